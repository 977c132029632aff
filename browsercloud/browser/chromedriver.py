"""chromedriver: which one fits a browser, and one process of it beside each browser that needs it.

It is started when somebody asks for it and lives no longer than its browser. Its log lies in the
session's folder: by that folder in its command line the guard, a sweep and the end of the browser
find it, whatever has become of us.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, field

from browsercloud._aio import in_thread
from browsercloud.browser import find, flags
from browsercloud.browser.child import Child
from browsercloud.browser.words import LastWords
from browsercloud.errors import LaunchFailed

NAMES = ("chromedriver", "chromium-driver", "chromium.chromedriver")
WELL_KNOWN: Mapping[str, tuple[str, ...]] = {
    "linux": (
        "/usr/bin/chromedriver",
        "/usr/lib/chromium/chromedriver",
        "/usr/lib/chromium-browser/chromedriver",
        "/usr/lib64/chromium-browser/chromedriver",
    ),
    "darwin": ("/opt/homebrew/bin/chromedriver", "/usr/local/bin/chromedriver"),
}

START_TIMEOUT = 20.0
"""Seconds until it has to listen."""

PORT_TRIES = 5
"""It chooses a port that is free on IPv6, and gives up when that one is taken on IPv4."""

PORT_TAKEN = "port not available"
KILL_PATIENCE = 10.0
SECRET_BYTES = 18

STARTED = re.compile(r"was started successfully on port (\d+)")
INSTALL_HINT = (
    "run `browsercloud install` (Debian: apt-get install chromium-driver), or put the chromedriver "
    "of that version on PATH (Chrome for Testing has one for each)"
)


def candidates(
    browser: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    platform: str = sys.platform,
) -> Iterator[Path]:
    """Every chromedriver of this machine: beside the browser, on `PATH`, where systems put it.

    Wrapper scripts are as good as the program: it is known by its group and its folder.
    """
    places = os.environ if environ is None else environ
    folders = [Path(part) for part in places.get("PATH", "").split(os.pathsep) if part]
    beside = [browser.parent] if browser is not None else []
    paths = [folder / name for folder in (*beside, *folders) for name in NAMES]
    seen = set()
    for path in (*paths, *map(Path, WELL_KNOWN.get(platform, ()))):
        real = path.resolve()
        # A snap's launcher bears the name `snap`; a snap sees neither our folders nor our signals.
        usable = real.is_file() and os.access(real, os.X_OK) and real.name != "snap"
        if usable and real not in seen:
            seen.add(real)
            yield real


def choose(browser: Path, setting: Path | None = None) -> Path:
    """The chromedriver that fits *browser*: of the same major version. Blocks for some 0.1 s.

    Raises `LaunchFailed` that names both versions and the remedy.
    """
    if setting is not None and not os.access(setting, os.X_OK):
        raise LaunchFailed(
            f"the setting chromedriver is {setting}, which is no program; give the path of one, "
            f"or leave it out and {INSTALL_HINT}"
        )
    wanted = find.version(browser)
    found = [setting] if setting is not None else list(candidates(browser))
    versions = {path: find.version(path) for path in found}
    for path, version in versions.items():
        if version is not None and (wanted is None or _major(version) == _major(wanted)):
            return path
    if not versions:
        raise LaunchFailed(
            f"WebDriver needs chromedriver {_major(wanted)}, and there is none on the browser's "
            f"machine; {INSTALL_HINT}"
        )
    told = ", ".join(f"{version or 'of unknown version'} ({p})" for p, version in versions.items())
    raise LaunchFailed(
        f"chromedriver {told} does not fit Chromium {wanted} ({browser}): the major versions must "
        f"be equal. Get chromedriver {_major(wanted)}: {INSTALL_HINT}"
    )


def _major(version: str | None) -> str:
    return (version or "").partition(".")[0]


class Chromedriver:
    """A running chromedriver. `stop` must be called in any case."""

    def __init__(self, program: Path, folder: Path) -> None:
        # Any page on this machine can send requests to a port: it cannot guess the path.
        self._base = secrets.token_urlsafe(SECRET_BYTES)
        reading, writing = os.pipe()
        try:
            self._child = Child(
                self._argv(program, folder),
                env=flags.environment(folder, headless=True),
                cwd=folder,
                stdout=writing,
                stderr=writing,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._words = LastWords(reading, STARTED)

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._child.look()[0]

    @property
    def port_taken(self) -> bool:
        """Whether it ends for want of a port, which another one may find."""
        return any(PORT_TAKEN in line for line in self._words.lines)

    async def address(self) -> str:
        """Where it listens, once it does. Raises `LaunchFailed` with its last words."""
        either: set[asyncio.Future[Any]] = {self._words.endpoint, self._child.exited}
        await asyncio.wait(either, timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        named = self._words.endpoint
        if self.gone or not named.done() or named.cancelled():
            said = " | ".join(self._words.lines[-5:]) or "it said nothing"
            raise LaunchFailed(f"chromedriver did not start; last words: {said}")
        return f"http://127.0.0.1:{named.result()}/{self._base}"

    def kill(self) -> None:
        """SIGKILL its group now: there is nothing it could lose."""
        if self._child.held:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """End it and let go of it. Safe to call twice."""
        self.kill()
        await asyncio.wait({self._child.exited}, timeout=KILL_PATIENCE)
        self._child.release()
        self._words.close()

    def _argv(self, program: Path, folder: Path) -> tuple[str, ...]:
        return (
            str(program),
            "--port=0",
            f"--url-base=/{self._base}",
            # Whoever looks for what belongs to the session finds it by this folder. Below SEVERE
            # it would write down what is typed into pages.
            f"--log-path={folder}/chromedriver.log",
            "--log-level=SEVERE",
        )


@define(eq=False)
class _Beside:
    """What runs beside one browser."""

    process: Chromedriver | None = None
    stopped: bool = False
    lock: asyncio.Lock = field(factory=asyncio.Lock)


class Chromedrivers:
    """At most one chromedriver for each session. *setting* is a path that replaces the search."""

    def __init__(self, setting: str | os.PathLike[str] | None = None) -> None:
        self._setting = None if setting is None else Path(setting)
        self._fitting: dict[tuple[Path, int], Path] = {}
        self._beside: dict[str, _Beside] = {}

    async def fitting(self, browser: Path) -> Path:
        """The chromedriver for this browser's program; see `choose`. Remembered once found."""
        return await in_thread(partial(self._find, browser))

    async def address(self, session_id: str, browser: Path, folder: Path) -> str:
        """The address of the session's chromedriver, started now if there is none that runs."""
        here = self._beside.setdefault(session_id, _Beside())
        tries = 0
        async with here.lock:
            while True:
                if here.process is not None and here.process.gone:
                    await here.process.stop()
                    here.process = None
                if here.process is None:
                    here.process = await self._start(here, browser, folder)
                tries += 1
                try:
                    return await here.process.address()
                except LaunchFailed:
                    if tries == PORT_TRIES or not here.process.port_taken:
                        raise
                    await here.process.stop()
                    here.process = None

    async def stop(self, session_id: str) -> None:
        """End the session's chromedriver, also one that is just being started. Safe to repeat."""
        here = self._beside.get(session_id)
        if here is None:
            return
        here.stopped = True
        if here.process is not None:
            here.process.kill()
        async with here.lock:
            if here.process is not None:
                await here.process.stop()
            self._beside.pop(session_id, None)

    def _find(self, browser: Path) -> Path:
        try:
            # An update replaces the program in place.
            key = (browser, browser.stat().st_mtime_ns)
        except OSError as error:
            raise LaunchFailed(f"{browser} cannot be looked at: {error}") from error
        known = self._fitting.get(key)
        if known is None or not known.exists():
            known = self._fitting[key] = choose(browser, self._setting)
        return known

    async def _start(self, here: _Beside, browser: Path, folder: Path) -> Chromedriver:
        program = await self.fitting(browser)
        if here.stopped:
            raise LaunchFailed("the browser is being stopped")
        try:
            return Chromedriver(program, folder)
        except OSError as error:
            raise LaunchFailed(f"{program} cannot be run: {error}; {INSTALL_HINT}") from error
