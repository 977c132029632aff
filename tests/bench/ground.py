"""Where the contest takes place: folder, page, browsers, servers, drivers, and quiet."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from attrs import frozen
from playwright.async_api import BrowserType, async_playwright

from browsercloud import BrowserCloud
from browsercloud.options import Browser
from tests.conftest import Site
from tests.serving import KEY, Serving, serving

MB = 2**20

QUIET_WINDOW = 0.2
QUIET_USE = 0.1
"""Quiet is when all that was started here uses less than this of a core over the window, in s."""

QUIET_AT_MOST = 6.0
"""Seconds after which a turn begins although it is not quiet."""


def serve_arguments(kind: Browser, *, sessions: int | None = None) -> tuple[str, ...]:
    """How `browsercloud serve` is started for sessions of *kind*: settings of a pool belong here.

    *sessions* are the slots it has; browsers that wait in a pool have to yield to that many.
    """
    return () if sessions is None else ("--max-sessions", str(sessions))


WITHOUT_POOL = ("--pool-size", "0")
"""How `browsercloud serve` is told to start no browser ahead."""


def embedded_client(programs: dict[Browser, Path], kind: Browser) -> BrowserCloud:
    """A client that embeds its server, for sessions of *kind*: settings of its pool belong here."""
    if kind is Browser.CHROMIUM:
        return BrowserCloud(chromium=programs[kind])
    return BrowserCloud(headless_shell=programs[kind])


@frozen
class Ground:
    """What a row is given. *programs* are the browsers that both sides run."""

    root: Path
    """For every temporary file; its processes are found by it."""

    site: Site
    programs: dict[Browser, Path]
    rounds: int
    quick: bool

    @property
    def fewer(self) -> int:
        """Rounds of a row that takes long or that changes little."""
        return max(1, self.rounds - 1) if self.quick else self.rounds

    def launch_args(self, kind: Browser) -> dict[str, Any]:
        """What Playwright is told to run the same program: headless, in the new mode if full."""
        arguments = ["--headless=new"] if kind is Browser.CHROMIUM else []
        return {
            "executable_path": str(self.programs[kind]),
            "headless": True,
            "args": [*arguments, "--no-sandbox"],
        }

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[BrowserType]:
        """Playwright's Chromium, with a driver of its own."""
        async with async_playwright() as playwright:
            yield playwright.chromium

    @contextmanager
    def serve(self, name: str, *arguments: str, kind: Browser | None = None) -> Iterator[Serving]:
        """`browsercloud serve` with this ground's browsers, in a folder *name*; or with one."""
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        options = list(arguments)
        for found, program in self.programs.items():
            if kind in (None, found):
                options += [OPTIONS[found], str(program)]
        with serving(folder, *options) as server:
            yield server

    @asynccontextmanager
    async def embedded(self, kind: Browser) -> AsyncIterator[BrowserCloud]:
        """A client with a server in this process."""
        async with embedded_client(self.programs, kind) as client:
            yield client

    @asynccontextmanager
    async def served(self, kind: Browser, name: str) -> AsyncIterator[BrowserCloud]:
        """A client of a server in a process of its own."""
        with self.serve(name, *serve_arguments(kind), kind=kind) as server:
            async with BrowserCloud(server.url, api_key=KEY) as client:
                yield client


OPTIONS = {Browser.CHROMIUM: "--chromium", Browser.HEADLESS_SHELL: "--headless-shell"}
TITLES = {Browser.CHROMIUM: "full Chromium", Browser.HEADLESS_SHELL: "headless shell"}


def offspring() -> list[psutil.Process]:
    """Every process that was started here and that still runs, whoever started it."""
    return psutil.Process().children(recursive=True)


def chromium_processes(program: Path, among: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that run *program* or something else of its folder, such as its crash handler."""
    found = []
    for process in among:
        with suppress(psutil.Error, OSError):
            if Path(process.exe()).parent == program.parent:
                found.append(process)
    return found


def check_program(program: Path) -> None:
    """Every browser that runs here now is *program*, by `/proc/PID/exe`, and headless."""
    mains = []
    for process in chromium_processes(program, offspring()):
        with suppress(psutil.Error):
            words = process.cmdline()
            if words and not any(word.startswith("--type=") for word in words):
                mains.append((process.exe(), words))
    mains = [(exe, words) for exe, words in mains if "crashpad" not in exe]
    if not mains:
        raise RuntimeError(f"no process of {program} runs")
    for exe, words in mains:
        if exe != str(program):
            raise RuntimeError(f"{exe} runs instead of {program}")
        if not any(word in ("--headless", "--headless=new") for word in words):
            raise RuntimeError(f"{program} is not headless")


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds of all its threads so far, as exactly as the kernel knows."""
    total = 0
    for thread in Path(f"/proc/{process.pid}/task").glob("*"):
        with suppress(OSError):
            total += int((thread / "schedstat").read_text().split()[0])
    if total:
        return total / 1e9
    used = process.cpu_times()
    return float(used.user + used.system)


def pss(processes: Sequence[psutil.Process]) -> float:
    """Proportional memory of all of them together, in MB."""
    total = 0
    for process in processes:
        with suppress(OSError):
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def _used() -> dict[int, float]:
    found = {}
    for process in offspring():
        with suppress(psutil.Error):
            times = process.cpu_times()
            found[process.pid] = times.user + times.system
    return found


async def quiet() -> None:
    """Wait until nothing that was started here has work left: browsers in a pool are ready then.

    The same before every turn of everybody.
    """
    end = time.monotonic() + QUIET_AT_MOST
    before = _used()
    while time.monotonic() < end:
        await asyncio.sleep(QUIET_WINDOW)
        now = _used()
        grown = sum(used - before.get(pid, 0.0) for pid, used in now.items())
        if grown < QUIET_USE * QUIET_WINDOW and now.keys() <= before.keys():
            return
        before = now


async def run(*command: str, timeout: float = 60.0) -> tuple[float, str]:
    """Run a process to its end: wall seconds, and what it said. Raises if it fails."""
    begin = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(timeout):
            said, complaints = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    seconds = time.perf_counter() - begin
    if process.returncode:
        last = complaints.decode(errors="replace").strip().rpartition("\n")[2]
        raise RuntimeError(f"it ended with {process.returncode}: {last}")
    return seconds, said.decode()


@contextmanager
def child(module: str, *arguments: str) -> Iterator[tuple[psutil.Process, dict[str, Any]]]:
    """`python -m MODULE`, and the JSON line that it says first.

    Killed at the end: only for what has nothing outside of itself. Its standard input ends with us.
    """
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{module} did not start")
            yield psutil.Process(process.pid), json.loads(line)
        finally:
            process.kill()
