"""One process and all that it starts: its words, its end, and what is left of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from browsercloud.browser import child, process
from browsercloud.browser.child import Child
from browsercloud.browser.confine import Confined
from browsercloud.browser.process import BrowserProcess, describe
from browsercloud.browser.words import KEPT_LINES, MAX_LINE, LastWords
from browsercloud.errors import LaunchFailed
from browsercloud.models import BrowserExit
from tests.processes import alive, until

ENDPOINT = "ws://127.0.0.1:1/devtools/browser/x"
SAYS_ENDPOINT = f"print('DevTools listening on {ENDPOINT}', file=sys.stderr, flush=True)"
WAITS = "time.sleep(60)"
IGNORES_TERM = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
HAS_A_CHILD = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"


def _python(*lines: str) -> list[str]:
    return [sys.executable, "-c", "\n".join(("import os, signal, subprocess, sys, time", *lines))]


def _start(folder: Path, *lines: str) -> BrowserProcess:
    return BrowserProcess.begin(_python(*lines), env=dict(os.environ), folder=folder)


async def test_the_endpoint_is_what_it_says(root: Path) -> None:
    """The endpoint is told as soon as it is written, among other words."""
    one = _start(root, "print('noise', file=sys.stderr)", SAYS_ENDPOINT, WAITS)
    assert ENDPOINT == await one.endpoint()
    assert ("noise",) == one.words
    assert one.poll() is None
    await one.stop(grace=0)


async def test_an_early_death_is_told_with_its_last_words(root: Path) -> None:
    """Waiting for the endpoint of a browser that dies ends at once."""
    one = _start(root, "sys.exit('no such display')")
    with pytest.raises(LaunchFailed, match="exit code 1; last words: no such display"):
        await one.endpoint()
    await one.stop(grace=1)
    await one.stop(grace=1)


async def test_the_ladder_ends_with_sigkill(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser that neither answers nor follows SIGTERM is killed, its children with it."""
    monkeypatch.setattr(process, "TERM_PATIENCE", 0.2)
    one = _start(root, IGNORES_TERM, HAS_A_CHILD, SAYS_ENDPOINT, WAITS)
    await one.endpoint()
    await one.stop(grace=0.2)
    assert "SIGKILL" == (await one.exited).signal


async def test_sigterm_comes_before_sigkill(root: Path) -> None:
    """One that follows SIGTERM may end in its own way."""
    one = _start(
        root, "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))", SAYS_ENDPOINT, WAITS
    )
    await one.endpoint()
    await one.stop(grace=0.1)
    assert 7 == (await one.exited).exit_code


async def test_children_that_outlive_it_are_ended(root: Path) -> None:
    """The group is waited for, not only its leader."""
    one = _start(root, f"child = {HAS_A_CHILD}", "print(child.pid, file=sys.stderr)")
    await one.exited
    orphan = int(one.words[-1])
    assert alive(orphan)
    await one.stop(grace=1)
    assert not alive(orphan)


async def test_a_child_that_left_the_group_is_ended_by_its_folder(root: Path) -> None:
    """Crash handlers make a session of their own; the folder in their arguments tells whose."""
    gone = (
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', "
        f"'--database={root}/profile'], start_new_session=True)"
    )
    one = _start(root, gone, "print(child.pid, file=sys.stderr)", WAITS)
    await until(lambda: one.words, "the child's pid")
    await one.stop(grace=0)
    assert not alive(int(one.words[-1]))


async def test_a_program_that_cannot_run_leaves_nothing_open(root: Path) -> None:
    """A failed start closes its pipe."""
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match="nope"):
        BrowserProcess.begin([str(root / "nope")], env={}, folder=root)
    assert before == len(os.listdir("/dev/fd"))


async def test_a_kill_by_the_kernel_for_memory_is_told(root: Path, tmp_path: Path) -> None:
    """The control group's events say so; the cap is what it had used then."""
    one = _start(root, WAITS)
    one.confined = Confined(tmp_path)
    (tmp_path / "memory.max").write_text("314572800\n")
    (tmp_path / "memory.events").write_text("oom 1\noom_kill 4\n")
    os.kill(one.mark.pid, signal.SIGKILL)  # as the kernel does
    end = await asyncio.shield(one.exited)
    assert (True, "SIGKILL", 314572800) == (end.out_of_memory, end.signal, end.memory)
    await one.stop(grace=0)


async def test_a_full_pipe_stops_nobody(root: Path) -> None:
    """Words that nobody reads are lost, and whoever says them works on."""
    one = _start(
        root,
        "lost = 0",
        "for _ in range(100):",
        "    try: os.write(2, b'x' * 4095 + b'\\n')",
        "    except BlockingIOError: lost += 1",
        "open('done', 'w').write(str(lost))",
        WAITS,
    )
    one._words.close()
    await until(lambda: (root / "done").exists() and (root / "done").read_text(), "its work")
    assert int((root / "done").read_text()) > 0
    assert one.poll() is None
    await one.stop(grace=0)


@pytest.mark.parametrize("pidfd", [True, False])
async def test_the_end_is_told_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, pidfd: bool
) -> None:
    """With the kernel's help or with a thread; and the number stays ours until it is let go."""
    monkeypatch.setattr(child, "WATCHES_PIDFD", pidfd and child.WATCHES_PIDFD)
    one = Child(_python("os.kill(os.getpid(), signal.SIGUSR1)"), env={}, cwd=root)
    assert -signal.SIGUSR1 == await asyncio.wait_for(one.exited, 5)
    assert one.held
    one.release()
    one.release()
    assert not one.held


async def test_a_child_that_somebody_else_collected_is_gone(root: Path) -> None:
    """A program that collects every child takes ours too; then only its code is unknown."""
    one = Child(_python("pass"), env={}, cwd=root)
    os.waitpid(one.pid, 0)
    assert await asyncio.wait_for(one.exited, 5) is None
    assert not one.held
    one.release()


@pytest_asyncio.fixture
async def pipe() -> AsyncIterator[tuple[LastWords, int]]:
    """Words, and the end of the pipe to write them to."""
    reading, writing = os.pipe()
    words = LastWords(reading)
    yield words, writing
    words.close()
    os.close(writing)


async def test_only_the_last_words_are_kept(pipe: tuple[LastWords, int]) -> None:
    """At most 50 lines, each cut, without what every start says."""
    words, writing = pipe
    for n in range(100):
        os.write(writing, f"line {n} {'x' * 1000}\n".encode())
        _ = words.lines
    os.write(writing, b"[1:2:ERROR:dbus/bus.cc] no bus\nlast \xff\n")
    assert "last \ufffd" == words.lines[-1]
    assert words.lines[-2].startswith("line 99 ")
    assert KEPT_LINES == len(words.lines)
    assert MAX_LINE == len(words.lines[0])


async def test_an_endless_line_does_not_grow(pipe: tuple[LastWords, int]) -> None:
    """A browser that writes without a line break cannot fill our memory."""
    words, writing = pipe
    for _ in range(8):
        os.write(writing, b"x" * 60_000)
        assert () == words.lines
    assert 65_536 >= len(words._rest)


def test_an_end_is_told_in_one_sentence() -> None:
    """Signal or code, and what was said."""
    assert "SIGKILL; last words: it said nothing" == describe(BrowserExit(signal="SIGKILL"))
    end = BrowserExit(exit_code=3, stderr=("a", "b"))
    assert "exit code 3; last words: a | b" == describe(end)
    assert describe(BrowserExit()).startswith("unknown")
