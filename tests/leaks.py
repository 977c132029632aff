"""What a test run has left behind: processes, folders, tasks, threads."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "BROWSERCLOUD_TEST_ROOT"
"""Environment variable that every process of a test run inherits; its value is the run's folder."""

PROC = Path("/proc")
HAS_PROC = (PROC / "self" / "cmdline").exists()


def stray_processes(root: Path) -> list[str]:
    """Every process that a test under *root* started and that still runs: browser, driver, guard.

    Found by the run's folder in the command line (Chromium, whose environment is its own) or in the
    environment (drivers, servers, guards). Zombies are gone; their parent has not looked yet.
    """
    found = []
    for pid, command in _commands():
        if pid == os.getpid():
            continue
        words = " ".join(command)
        if str(root) in words or _marked(pid, root):
            found.append(f"{pid} {words[:120]}")
    return found


def _commands() -> Iterator[tuple[int, list[str]]]:
    """Every process with its command line; that of a zombie is empty, and it is left out."""
    for pid in psutil.pids():
        with suppress(psutil.Error, OSError):
            if HAS_PROC:  # some ten times as fast as psutil, and asked for after each test
                text = (PROC / str(pid) / "cmdline").read_text(errors="replace").rstrip("\0")
                # Chromium writes its command line anew, with blanks in between.
                command = text.split("\0" if "\0" in text else " ")
            else:
                command = psutil.Process(pid).cmdline()
            if any(command):
                yield pid, command


def _marked(pid: int, root: Path) -> bool:
    with suppress(psutil.Error, OSError):
        if HAS_PROC:
            return f"{MARK}={root}\0".encode() in (PROC / str(pid) / "environ").read_bytes()
        return psutil.Process(pid).environ().get(MARK) == str(root)
    return False


def browsers(root: Path) -> list[psutil.Process]:
    """The main process of every browser that runs under *root*."""
    found = []
    for pid, command in _commands():
        data = [part for part in command if part.startswith("--user-data-dir=")]
        child = any(part.startswith("--type=") for part in command)
        if data and str(root) in data[0] and not child and _leads(pid):
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
    return found


def _leads(pid: int) -> bool:
    """Whether it is its group's first: a child that was just forked still looks like its parent."""
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def stray_folders(root: Path) -> list[str]:
    """Every session's folder, and every embedded server's, that is still there."""
    patterns = ("browsercloud-*/*", "browsercloud-*/*/sessions/*", "*/sessions/*")
    patterns += ("playwright-artifacts-*",)
    return sorted({str(path) for pattern in patterns for path in root.glob(pattern)})


def stray_threads() -> list[str]:
    """Threads of embedded servers."""
    return [thread.name for thread in threading.enumerate() if "browsercloud" in thread.name]


def left(root: Path) -> list[str]:
    """All of the above."""
    return [*stray_processes(root), *stray_folders(root), *stray_threads()]


def wait_until_nothing_is_left(root: Path, within: float) -> None:
    """Return when nothing is left; fail with the list when something still is after *within* s."""
    end = time.monotonic() + within
    while found := left(root):
        if time.monotonic() > end:
            raise AssertionError(f"left over after {within:g} s:\n" + "\n".join(found))
        time.sleep(0.02)


async def nothing_is_left(root: Path, within: float) -> None:
    """The same without blocking the loop, and without a task left on it."""
    end = time.monotonic() + within
    while found := [*left(root), *stray_tasks()]:
        if time.monotonic() > end:
            raise AssertionError(f"left over after {within:g} s:\n" + "\n".join(found))
        await asyncio.sleep(0.02)


def stray_tasks() -> list[str]:
    """Tasks on this loop besides the one that asks."""
    return [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]
