"""An existing script in a session: its command, its environment, its process, its end.

A file that is loaded before the script (`preload/`) makes what launches a browser connect to the
session instead. The session's address, which holds a token, reaches the script through its
environment, never through a command line.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from attrs import frozen

from browsercloud._aio import close_all, in_thread, join, settle, stop_task
from browsercloud.client.lease import Lease
from browsercloud.client.sessions import Sessions
from browsercloud.errors import BrowserCloudError, SessionEnded, SessionTimedOut, UsageError
from browsercloud.models import Released, ReleaseReason, Session
from browsercloud.options import SessionOptions

log = logging.getLogger(__name__)

PRELOAD = Path(__file__).parent / "preload"
NODE_SUFFIXES = (".js", ".cjs", ".mjs", ".ts", ".cts", ".mts")
STOP_PATIENCE = 5.0
"""How long a script may take to end after SIGTERM, in seconds, before SIGKILL."""

WATCH_EVERY = 5.0
"""Seconds between two looks at whether the session is still there."""

OUTLIVE_PATIENCE = 10.0
"""How long a script may go on after its session's timeout, in seconds."""

Stream = int | IO[Any] | None


@frozen
class Command:
    """How to start a script; `preload` holds the variables that load ours before it."""

    words: tuple[str, ...]
    preload: Mapping[str, str]


def command_for(
    script: str | os.PathLike[str],
    args: Sequence[str] = (),
    *,
    node: str | os.PathLike[str] | None = None,
    python: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Command:
    """The command that starts *script*, by its suffix.

    *environ* is what the script is started with, the process's own by default. Raises `UsageError`
    when there is no such script, nothing to run it with, or its suffix says nothing.
    """
    environ = os.environ if environ is None else environ
    path = Path(script)
    if not path.is_file():
        raise UsageError(f"there is no script {path}; give the path of a file")
    if path.suffix in NODE_SUFFIXES:
        words = (find_node(node, environ), str(path), *args)
        return Command(words, {"NODE_OPTIONS": _node_options(environ)})
    if path.suffix == ".py":
        return Command((_find_python(python, environ), str(path), *args), _python_path(environ))
    raise UsageError(
        f"{path}: how to run it cannot be told from its name; "
        f"known are .py for Python, and {', '.join(NODE_SUFFIXES)} for Node"
    )


def find_node(node: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> str:
    """Node: the one given, the one on the PATH, or the one that Playwright brings along."""
    wanted = ("node", "nodejs") if node is None else (os.fspath(node),)
    for name in wanted:
        if found := shutil.which(name, path=environ.get("PATH")):
            return found
    if node is not None:
        raise UsageError(
            f"node: {os.fspath(node)} cannot be run; give the path of Node 20 or newer"
        )
    playwright = importlib.util.find_spec("playwright")
    for folder in (playwright and playwright.submodule_search_locations) or ():
        bundled = Path(folder) / "driver" / "node"
        if bundled.is_file():
            return str(bundled)
    raise UsageError(
        "no Node on this machine: install Node 20 or newer (https://nodejs.org), "
        "or give its path with --node (node= in Python)"
    )


def _find_python(python: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> str:
    wanted = sys.executable if python is None else os.fspath(python)
    found = shutil.which(wanted, path=environ.get("PATH"))
    if found is None:
        raise UsageError(f"python: {wanted or 'it'} cannot be run; give the path of an interpreter")
    return found


def _node_options(environ: Mapping[str, str]) -> str:
    # The variable and not an argument: the script's own child processes are to have it as well.
    ours = f"--require {json.dumps(str(PRELOAD / 'node' / 'register.cjs'))}"
    return " ".join(filter(None, (environ.get("NODE_OPTIONS"), ours)))


def _python_path(environ: Mapping[str, str]) -> dict[str, str]:
    folders = filter(None, (str(PRELOAD / "python"), environ.get("PYTHONPATH")))
    unbuffered = environ.get("PYTHONUNBUFFERED") or "1"  # its output is to come as it is written
    return {"PYTHONPATH": os.pathsep.join(folders), "PYTHONUNBUFFERED": unbuffered}


class ScriptRun:
    """One script in one session, for `async with`: running inside, over and released afterwards.

    Leaving ends a script that still runs (SIGTERM, after 5 s SIGKILL), and then releases the
    session, whatever happened.
    """

    def __init__(
        self,
        sessions: Sessions,
        lease: Lease,
        command: Command,
        session: Session | SessionOptions,
        *,
        env: Mapping[str, str],
        cwd: str | os.PathLike[str] | None,
        streams: tuple[Stream, Stream, Stream],
        release: Callable[[], Awaitable[Released]] | None,
    ) -> None:
        self._sessions = sessions
        self._lease = lease
        self._command = command
        self._wanted = session
        self._env = env
        self._cwd = cwd
        self._streams = streams
        self._release_it = release
        self._session: Session | None = session if isinstance(session, Session) else None
        self._starting: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._guard: asyncio.subprocess.Process | None = None
        self._folder: Path | None = None
        self._released: Released | None = None
        self.connected = False
        """Once it is over: whether the script has launched, that is, connected."""

    @property
    def session(self) -> Session:
        """The session that the script runs in."""
        if self._session is None:
            raise UsageError("the script has not been started; use `async with`")
        return self._session

    @property
    def ending(self) -> str | None:
        """Once it is over: why the session had ended before its release, if it had."""
        released = self._released
        return released.release_reason if released and released.already_ended else None

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException as error:
            await self._close_after(error)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()
        else:
            await self._close_after(error)

    async def wait(self) -> int:
        """Its exit code; 128 and the signal's number if a signal ended it, as a shell says it.

        Raises `SessionTimedOut` when the session's `timeout` was over and the script went on for
        10 s more. Cancelling leaves the script to `close`.
        """
        process = self._process()
        if process is None:
            raise UsageError("the script has not been started; use `async with`")
        leaving = asyncio.create_task(process.wait(), name="script")
        watching = asyncio.create_task(self._timed_out(), name="script's session")
        try:
            await asyncio.wait({leaving, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not leaving.done():
                await asyncio.wait({leaving}, timeout=OUTLIVE_PATIENCE)
            if not leaving.done():
                raise watching.result()
            code = leaving.result()
        finally:
            await stop_task(watching)
            await stop_task(leaving)
        return code if code >= 0 else 128 - code

    def send_signal(self, number: signal.Signals) -> bool:
        """Pass a signal on; whether there was a running script to take it."""
        process = self._process()
        if process is None or process.returncode is not None:
            return False
        process.send_signal(number)
        return True

    async def close(self) -> None:
        """What leaving the block does. Runs to its end even when cancelled; safe to call twice."""
        patience = STOP_PATIENCE * 3 + 60
        await settle(self._close, patience=patience, what="ending a script and its session")

    async def _close_after(self, error: BaseException) -> None:
        """Close without hiding *error*; a cancellation meanwhile comes out all the same."""
        try:
            await self.close()
        except (BrowserCloudError, TimeoutError, ExceptionGroup) as failure:
            log.warning("ending a script and its session failed: %s", failure)
            error.add_note(f"ending the script and its session failed too: {failure}")

    async def _open(self) -> None:
        if isinstance(self._wanted, SessionOptions):
            self._lease.hold()  # so that the session also ends when this process is killed
            self._session = await self._sessions.start(self._wanted, lease_id=self._lease.id)
        self._folder = Path(tempfile.mkdtemp(prefix="browsercloud-script-"))
        # In a task of its own: cancelling a start may lose the process.
        self._starting = asyncio.create_task(self._start(), name="start the script")
        await join(self._starting)

    async def _start(self) -> asyncio.subprocess.Process:
        stdin, stdout, stderr = self._streams
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command.words,
                env={**os.environ, **self._addresses(), **self._env, **self._command.preload},
                cwd=self._cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
            )
        except OSError as error:
            raise UsageError(f"cannot start {self._command.words[0]}: {error.strerror}") from None
        try:
            self._guard = await _guarded(process.pid, self._folder)
        except OSError as error:
            log.warning("the script outlives this process if that is killed: %s", error)
        return process

    def _addresses(self) -> dict[str, str]:
        return {
            "BROWSERCLOUD_SESSION_ID": self.session.id,
            "BROWSERCLOUD_WEBSOCKET_URL": self.session.websocket_url,
            # Empty where there is none, so that the address of an outer run is not taken for it.
            "BROWSERCLOUD_WEBDRIVER_URL": self.session.webdriver_url,
            "BROWSERCLOUD_RUN_FOLDER": str(self._folder),
        }

    def _process(self) -> asyncio.subprocess.Process | None:
        task = self._starting
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return task.result()

    async def _timed_out(self) -> SessionEnded:
        """Return once the session's timeout is over."""
        while True:
            await asyncio.sleep(WATCH_EVERY)
            try:
                record = await self._sessions.retrieve(self.session.id)
            except BrowserCloudError as error:
                log.info("the script's session cannot be looked at: %s", error)
                continue
            if record.release_reason is ReleaseReason.TIMEOUT:
                return SessionTimedOut(
                    f"session {record.id} ended: its timeout of {record.timeout:g} s was over, and "
                    "the script went on, so it was ended; give it a longer timeout",
                    reason=record.release_reason,
                    session=record,
                )

    async def _close(self) -> None:
        await close_all([self._tidy, self._release, self._dismiss, self._stop])

    async def _stop(self) -> None:
        if self._starting is None:
            return
        await asyncio.wait({self._starting})
        process = self._process()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process is None or process.returncode is not None:
                return
            process.send_signal(number)
            waiting = asyncio.create_task(process.wait())
            await asyncio.wait({waiting}, timeout=STOP_PATIENCE)
            await stop_task(waiting)

    async def _dismiss(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            if guard.returncode is None:
                guard.kill()
            await guard.communicate()

    async def _release(self) -> None:
        if self._session is not None and self._released is None:
            by_id = partial(self._sessions.release, self._session.id)
            self._released = await (self._release_it or by_id)()

    async def _tidy(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            self.connected = (folder / "connected").exists()
            await in_thread(partial(shutil.rmtree, folder, ignore_errors=True))


async def _guarded(pid: int, folder: Path | None) -> asyncio.subprocess.Process:
    """A process that ends *pid*, and removes *folder*, when this one is killed."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-IS",
        str(PRELOAD / "guard.py"),
        str(pid),
        str(folder),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # a terminal's Ctrl-C is not for it
    )
