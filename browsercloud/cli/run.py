"""`browsercloud run SCRIPT`: an existing script, unchanged, in a session."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from browsercloud.client.client import BrowserCloud
from browsercloud.client.scripts import ScriptRun
from browsercloud.models import ReleaseReason
from browsercloud.options import Browser, SessionOptions

_QUIET = (None, ReleaseReason.USER_REQUESTED, ReleaseReason.BROWSER_CLOSED)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(
    script: Path,
    /,
    *args: Annotated[str, Parameter(allow_leading_hyphen=True)],
    url: str | None = None,
    api_key: Annotated[str | None, Parameter(show_default=False)] = None,
    timeout: float | None = None,
    browser: Browser = Browser.CHROMIUM,
    node: str | None = None,
    python: str | None = None,
) -> int:
    """Run a Puppeteer, Playwright or Selenium script in a session: it launches none of its own.

    On the server that BROWSERCLOUD_URL names, or on an embedded one. Ends with the script's exit
    code. Options of `run` stand before SCRIPT; what follows it goes to the script.

    Parameters
    ----------
    script
        A file for Node (.js, .cjs, .mjs, .ts) or for Python (.py).
    args
        The script's own arguments.
    url
        The server.
    api_key
        Its key. Prefer BROWSERCLOUD_API_KEY: everyone on the machine can read a command line.
    timeout
        Whole life of the session, in seconds; 300 by default. A script that goes on is ended.
    browser
        Which browser to run.
    node
        The Node to run it with, by default the one on the PATH.
    python
        The Python to run it with, by default this one.
    """
    life = SessionOptions().timeout if timeout is None else timeout
    return asyncio.run(
        _run(
            script, args, url=url, api_key=api_key, timeout=life, browser=browser,
            node=node, python=python,
        )
    )  # fmt: skip


async def _run(
    script: Path,
    args: tuple[str, ...],
    *,
    url: str | None,
    api_key: str | None,
    timeout: float,
    browser: Browser,
    node: str | None,
    python: str | None,
) -> int:
    client = BrowserCloud(url, api_key=api_key)
    running = client.puppeteer.start(
        script, None, args, node=node, python=python, timeout=timeout, browser=browser,
        name=script.name,
    )  # fmt: skip
    signals = _Signals()
    try:
        with signals.taken():
            async with client, running:
                _say(f"{script.name} runs in session {running.session.id}")
                signals.running = running
                code = await running.wait()
                signals.running = None
    except asyncio.CancelledError:
        if signals.last is None:
            raise
        return 128 + signals.last
    _remark(script, running, code)
    return code


class _Signals:
    """Ctrl-C and its like are the script's; the second one, or one when there is none, ends us."""

    def __init__(self) -> None:
        self.running: ScriptRun | None = None
        self.last: signal.Signals | None = None
        self._given = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._take, number, task)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _take(self, number: signal.Signals, task: asyncio.Task[object]) -> None:
        self._given += 1
        self.last = number
        if self.running is None or self._given > 1:
            task.cancel()
        elif not (number is signal.SIGINT and _in_foreground()):
            self.running.send_signal(number)


def _in_foreground() -> bool:
    """Whether a terminal's Ctrl-C goes to us, and so to the script, which is in our group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _remark(script: Path, running: ScriptRun, code: int) -> None:
    """Say what the exit code does not: that the session ended early, or was not used."""
    if running.ending not in _QUIET:
        _say(f"session {running.session.id} had ended before the script: {running.ending}")
    if not running.connected and code == 0:
        _say(
            f"{script.name} launched no browser, so nothing of it ran in the session; a script "
            "that connects by itself finds the address in BROWSERCLOUD_WEBSOCKET_URL"
        )


def _say(line: str) -> None:
    print(f"browsercloud: {line}", file=sys.stderr, flush=True)
