"""What browsers use is known, and who uses too much is ended alone."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from browsercloud.browser import group, memory
from browsercloud.browser.memory import MemoryWatch, proportional, sums
from browsercloud.browser.process import BrowserProcess
from tests.processes import until

MEGABYTE = 1024 * 1024
IDLES = "import time; time.sleep(60)"
EATS = "import time; kept = [bytearray(b'x' * 2**20) for _ in range(200)]; time.sleep(60)"
BY_A_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {EATS!r}])"


def _start(root: Path, name: str, code: str) -> BrowserProcess:
    (root / name).mkdir()
    words = [sys.executable, "-c", code]
    return BrowserProcess.begin(words, env=dict(os.environ), folder=root / name)


@pytest.mark.parametrize("code", [EATS, BY_A_CHILD])
async def test_only_the_one_above_its_cap_is_ended(
    root: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """Children count; the end tells why and how much; a neighbour runs on."""
    monkeypatch.setattr(memory, "INTERVAL", 0.05)
    eater, neighbour = _start(root, "eater", code), _start(root, "neighbour", IDLES)
    watch = MemoryWatch(lambda: {"a": eater, "b": neighbour}, 100 * MEGABYTE)
    await watch.start()
    end = await asyncio.wait_for(asyncio.shield(eater.exited), 10)
    assert (True, "SIGKILL") == (end.out_of_memory, end.signal)
    assert end.memory is not None
    assert end.memory > 100 * MEGABYTE
    assert neighbour.poll() is None
    await watch.close()
    await watch.close()
    for one in (eater, neighbour):
        await one.stop(grace=0)
    assert not (await neighbour.exited).out_of_memory


async def test_without_a_cap_nobody_is_ended_and_memory_is_still_told(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`usage` and the memory at the end."""
    monkeypatch.setattr(memory, "INTERVAL", 0.05)
    one = _start(root, "one", EATS)
    watch = MemoryWatch(lambda: {"a": one}, 0)
    monkeypatch.setattr(memory, "FRESH", 0.1)
    await watch.start()
    await until(lambda: (one.memory or 0) > 150 * MEGABYTE, "its memory")
    processes, size = (await watch.usage())["a"]
    assert 1 == processes
    assert size > 150 * MEGABYTE
    await watch.close()
    await one.stop(grace=0)
    end = await one.exited
    assert (False, True) == (end.out_of_memory, (end.memory or 0) > 150 * MEGABYTE)


async def test_much_that_is_shared_is_no_reason_to_end(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum of resident sizes is above the cap, what is really taken is not: it lives."""
    monkeypatch.setattr(memory, "INTERVAL", 0.02)
    code = (
        "import os, time; kept = bytearray(b'x' * 80 * 2**20)\n"
        "for _ in range(4):\n  if os.fork() == 0: break\n"
        "time.sleep(60)"
    )
    one = _start(root, "one", code)
    asked: list[int] = []
    real = proportional

    def measured(pids: tuple[int, ...]) -> int:
        asked.append(len(pids))
        return real(pids)

    monkeypatch.setattr(memory, "proportional", measured)
    watch = MemoryWatch(lambda: {"a": one}, 200 * MEGABYTE)
    group_of = {one.mark.pid}
    await until(lambda: sums(group_of)[one.mark.pid].resident > 400 * MEGABYTE, "its children")
    await watch.start()
    await until(lambda: asked, "a measure")
    await asyncio.sleep(0.3)
    assert one.poll() is None
    assert len(asked) <= 2, "what does not grow is not measured again and again"
    await watch.close()
    await one.stop(grace=0)


def test_a_process_that_has_gone_counts_nothing() -> None:
    """It may go at any moment between two looks."""
    assert 0 == proportional([2**22 + 1])
    assert {} == sums({2**22 + 1})
    assert proportional([os.getpid()]) > MEGABYTE


async def test_where_nothing_is_told_nothing_is_done(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No watch, no usage, and no error."""
    monkeypatch.setattr(group, "PROC", root / "no-proc")
    watch = MemoryWatch(dict, 1)
    await watch.start()
    assert {} == await watch.usage()
    await watch.close()
