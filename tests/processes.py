"""What runs on this machine, for tests that must leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import psutil


async def until(condition: Callable[[], object], what: str, timeout: float = 10.0) -> None:
    """Wait until *condition* holds; fail with *what* after *timeout* seconds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {timeout:g} s"
        await asyncio.sleep(0.01)


def drivers() -> list[psutil.Process]:
    """The Playwright drivers of this process, up or not."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it ends this very moment
            if "run-driver" in child.cmdline():
                found.append(child)
    return found


def living(folder: Path) -> list[psutil.Process]:
    """The processes, zombies excepted, that were given *folder*, and their children."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if any(f"={folder}" in word for word in process.cmdline()):
                found |= {one.pid: one for one in (process, *process.children(recursive=True))}
        except psutil.Error:
            continue
    return [process for process in found.values() if alive(process.pid)]


def alive(pid: int) -> bool:
    """Whether a process with this id runs; a zombie does while one of its threads does."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.Error:
        return False
