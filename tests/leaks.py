"""What a test run has left behind: processes, folders, tasks, threads."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import psutil

MARK = "BROWSERCLOUD_TEST_ROOT"
"""Environment variable that every process of a test run inherits; its value is the run's folder."""


def stray_processes(root: Path) -> list[str]:
    """Every process that a test under *root* started and that still runs: browser, driver, guard.

    Found by the run's folder in the command line (Chromium, whose environment is its own) or in the
    environment (drivers, servers, guards). Zombies are gone; their parent has not looked yet.
    """
    found = []
    for process in psutil.process_iter(["pid", "status", "cmdline"]):
        if process.pid == os.getpid() or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        command = " ".join(process.info["cmdline"] or ())
        if str(root) in command or _marked(process, root):
            found.append(f"{process.pid} {command[:120]}")
    return found


def _marked(process: psutil.Process, root: Path) -> bool:
    try:
        return process.environ().get(MARK) == str(root)
    except psutil.Error:
        return False


def browsers(root: Path) -> list[psutil.Process]:
    """The main process of every browser that runs under *root*."""
    found = []
    for process in psutil.process_iter(["status", "cmdline"]):
        command = process.info["cmdline"] or []
        data = [part for part in command if part.startswith("--user-data-dir=")]
        child = any(part.startswith("--type=") for part in command)
        if data and str(root) in data[0] and not child and _leads(process):
            found.append(process)
    return found


def _leads(process: psutil.Process) -> bool:
    """Whether it is its group's first: a child that was just forked still looks like its parent."""
    try:
        return os.getpgid(process.pid) == process.pid
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
