"""What this machine has for running browsers: for `browsercloud doctor` and `install`."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from attrs import evolve, frozen

from browsercloud.browser import chromedriver, confine, find
from browsercloud.browser.capacity import capacity, room
from browsercloud.browser.group import has_proc
from browsercloud.browser.memory import can_watch
from browsercloud.engines.folders import embedded_data_dir
from browsercloud.engines.local import LocalEngine
from browsercloud.errors import BrowserCloudError, BrowserNotFound
from browsercloud.options import Browser, SessionOptions

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - only asked for its size
SMALL_MEMORY = 1024 * 1024 * 1024
LANDLOCK_CREATE_RULESET = 444
LANDLOCK_VERSION_FLAG = 1


@frozen(kw_only=True)
class BrowserFacts:
    """One kind of browser on this machine. `path` is `None` when it is not there."""

    kind: Browser
    path: str | None = None
    version: str | None = None
    source: str | None = None
    problem: str | None = None
    """Why it is not there, or does not start."""

    start_seconds: float | None = None
    """From nothing to a page; `None` when it did not start."""

    sandbox: str | None = None
    """`on`, or `off` with the reason; `None` when it did not start."""


@frozen(kw_only=True)
class DriverFacts:
    """The chromedriver of this machine, for Selenium. `path` is `None` when none fits."""

    path: str | None = None
    version: str | None = None
    problem: str | None = None
    """Why there is none that fits, and what to do."""


@frozen
class Fact:
    """One line about the machine; `degraded` when sessions are worse off for it."""

    name: str
    value: str
    degraded: bool = False


def look_up(kind: Browser, setting: Path | None = None) -> BrowserFacts:
    """Where the browser is and what version; it is not started as a browser. Blocks."""
    try:
        found = find.find(kind, setting)
    except BrowserNotFound as error:
        return BrowserFacts(kind=kind, problem=str(error))
    return BrowserFacts(
        kind=kind,
        path=str(found.path),
        version=find.version(found.path),
        source=found.source,
    )


def look_up_driver(browsers: Sequence[BrowserFacts], setting: Path | None = None) -> DriverFacts:
    """The chromedriver that fits the browser which sessions get if they do not choose. Blocks."""
    program = next((browser.path for browser in browsers if browser.path is not None), None)
    if program is None:
        return DriverFacts(problem="there is no browser that it could drive")
    try:
        path = chromedriver.choose(Path(program), setting)
    except BrowserCloudError as error:
        return DriverFacts(problem=str(error))
    return DriverFacts(path=str(path), version=find.version(path))


async def try_out(kind: Browser, setting: Path | None = None) -> BrowserFacts:
    """Start one real session and take it away again."""
    facts = look_up(kind, setting)
    if facts.path is None:
        return facts
    engine = LocalEngine(
        embedded_data_dir(),
        chromium=setting if kind is Browser.CHROMIUM else None,
        headless_shell=setting if kind is Browser.HEADLESS_SHELL else None,
    )
    try:
        await engine.open()
        await engine.sweep()
        begun = time.monotonic()
        handle = await engine.start("doctor", SessionOptions(browser=kind))
        seconds = time.monotonic() - begun
        await engine.stop(handle, grace=1)
    except (BrowserCloudError, OSError) as error:
        return evolve(facts, problem=str(error))
    finally:
        await engine.close()
    reason = engine.sandbox_reason
    return evolve(
        facts, start_seconds=seconds, sandbox="on" if reason is None else f"off: {reason}"
    )


def machine(environ: Mapping[str, str]) -> list[Fact]:
    """Facts about this machine, each with what it lacks. Starts nothing."""
    return [
        Fact("Python", f"{platform.python_version()} at {sys.executable or 'unknown'}"),
        Fact("platform", platform.platform()),
        _display(environ),
        _shared_memory(),
        _memory(),
        Fact("cores", str(os.cpu_count() or "unknown")),
        _capacity(),
        _memory_cap(),
        _guard(),
        _yes_or("pidfd", hasattr(os, "pidfd_open"), "absent: a thread watches each browser"),
        _yes_or("process list", has_proc(), "through ps: slower"),
        _landlock(),
        _cgroup(),
        _playwright(),
    ]


def _yes_or(name: str, available: bool, otherwise: str) -> Fact:
    return Fact(name, "yes" if available else otherwise, degraded=not available)


def _display(environ: Mapping[str, str]) -> Fact:
    display = environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")
    if display or sys.platform == "darwin":
        return Fact("display", display or "yes")
    if shutil.which("Xvfb"):
        return Fact("display", "none; sessions with headless=False have an Xvfb each")
    missing = "none, and no Xvfb: headless=False is refused; `browsercloud install --xvfb`"
    return Fact("display", missing, degraded=True)


def _shared_memory() -> Fact:
    try:
        size = shutil.disk_usage(SHARED_MEMORY).total
    except OSError:
        return Fact(SHARED_MEMORY, "absent, and not needed")
    return Fact(SHARED_MEMORY, f"{_megabytes(size)}, not used: sessions have their own folders")


def _memory() -> Fact:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            size = min(size, int(Path(limit).read_text()))
        except (OSError, ValueError):  # not there, or `max`
            continue
    return Fact("memory", _megabytes(size), degraded=size < SMALL_MEMORY)


def _capacity() -> Fact:
    found = capacity(room())
    return Fact("capacity", f"{found.sessions} sessions: {found.reason}")


def _memory_cap() -> Fact:
    if confine.find() is not None:
        return Fact("memory cap", "cgroup v2: the kernel keeps it, for each session")
    if can_watch():
        return Fact("memory cap", "watch of PSS, twice a second")
    return Fact("memory cap", "none: this system does not tell what a process uses", degraded=True)


def _guard() -> Fact:
    python = sys.executable or shutil.which("python3")
    return _yes_or("guard", bool(python), "absent: a killed server leaves browsers until next time")


def _landlock() -> Fact:
    if sys.platform != "linux":
        return Fact("Landlock", "absent", degraded=True)
    call = ctypes.CDLL(None, use_errno=True).syscall
    abi = call(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_VERSION_FLAG)
    return Fact("Landlock", f"version {abi}" if abi > 0 else "absent", degraded=abi <= 0)


def _cgroup() -> Fact:
    root = Path("/sys/fs/cgroup")
    if not (root / "cgroup.controllers").exists():
        older = (root / "memory").exists()
        return Fact("cgroup", "version 1" if older else "absent", degraded=True)
    writable = os.access(root / "cgroup.procs", os.W_OK)
    return Fact(
        "cgroup", "version 2" if writable else "version 2, read-only", degraded=not writable
    )


def _playwright() -> Fact:
    try:
        return Fact("Playwright", version("playwright"))
    except PackageNotFoundError:
        return Fact("Playwright", "absent", degraded=True)


def _megabytes(size: int) -> str:
    return f"{size // (1024 * 1024)} MB"
