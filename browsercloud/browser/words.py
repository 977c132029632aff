"""What a browser, or its driver, says while it runs: where it listens, and its last words."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections import deque
from pathlib import Path

KEPT_LINES = 50
MAX_LINE = 500
READ_SIZE = 65_536

ENDPOINT = re.compile(r"DevTools listening on (ws://\S+)")

# Said by every start in a container, and never the reason for anything.
NOISE = re.compile(
    r"DevTools listening on|dbus/|/dbus|vaapi|bluez|InitializeSandbox\(\) called with"
)


def listen(folder: Path, *, again: bool = False) -> tuple[int, int]:
    """Both ends of the pipe for the standard error of the browser in *folder*: ours, the browser's.

    It has a name there, so that a successor can listen *again*. The browser gets an end that it
    could read from too and that never waits: a pipe that is full or has no reader neither stops nor
    kills it, only its newest words are lost. Raises `OSError`.
    """
    path = folder / "stderr"
    if not again:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        os.mkfifo(path, 0o600)
    # Not following links: what lies in the folder was made by us, or it is not what we look for.
    writing = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW), writing
    except BaseException:
        os.close(writing)
        raise


class LastWords:
    """Reads a pipe for as long as anyone holds its other end; keeps the last 50 lines.

    *names* finds the place it listens at, in its first group. Lines are cut at 500 characters.
    `endpoint` is done when the browser has named its address, and cancelled when the pipe ends
    before.
    """

    def __init__(self, pipe: int, names: re.Pattern[str] = ENDPOINT) -> None:
        self._names = names
        self._loop = asyncio.get_running_loop()
        self.endpoint: asyncio.Future[str] = self._loop.create_future()
        self._pipe: int | None = pipe
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._rest = b""
        os.set_blocking(pipe, False)
        self._loop.add_reader(pipe, self._readable)

    @property
    def lines(self) -> tuple[str, ...]:
        """The last lines, oldest first, with everything that can be read by now."""
        while self._pipe is not None and self._read():
            pass
        return tuple(self._lines)

    def close(self) -> None:
        """Read what is there and let go of the pipe. Safe to call twice."""
        _ = self.lines
        self._let_go()

    def _readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Read a piece; whether there may be more."""
        if self._pipe is None:
            return False
        try:
            piece = os.read(self._pipe, READ_SIZE)
        except BlockingIOError:
            return False
        if not piece:
            self._let_go()
            return False
        *lines, rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._hear(line)
        self._rest = rest[:READ_SIZE]  # a line without an end must not grow without one either
        return True

    def _hear(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip()
        named = self._names.search(text)
        if named and not self.endpoint.done():
            self.endpoint.set_result(named.group(1))
        if text and not NOISE.search(text):
            self._lines.append(text[:MAX_LINE])

    def _let_go(self) -> None:
        if self._pipe is not None:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = None
            self._hear(self._rest)
            self._rest = b""
        self.endpoint.cancel()
