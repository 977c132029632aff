"""Whose a process is, and the guard that ends what we cannot end any more."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from browsercloud.browser import group
from browsercloud.browser.group import (
    Deed,
    Mark,
    Watched,
    bequeath,
    look,
    mark,
    members,
    write_deed,
)
from browsercloud.browser.guard import Guard
from tests.processes import alive, until

SLEEP = "import time; time.sleep(60)"


@contextmanager
def _sleeping(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", SLEEP, *arguments], start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_browser_is_known_by_its_leader(root: Path) -> None:
    """Leader alive with the start time we know: the group is ours."""
    with _sleeping() as process:
        browser = mark(process.pid, sys.executable, str(root))
        assert [process.pid] == [one.pid for one in members(browser)]


def test_a_number_that_was_given_again_is_a_strangers(root: Path) -> None:
    """Another start time or another boot: not ours, and nothing is signalled."""
    with _sleeping() as process:
        browser = mark(process.pid, sys.executable, str(root))
        for other in (
            browser._replace(start=browser.start - 1),
            browser._replace(boot="another"),
            browser._replace(pid=0, start=0, program=""),
        ):
            assert [] == members(other)
            assert [] == group.kill(other)
        assert process.poll() is None


def test_a_folder_named_in_passing_is_not_given(root: Path) -> None:
    """Somebody who looks into the folder is not killed for it."""
    with _sleeping(f"{root}/profile"):
        assert [] == members(Mark(0, 0, "", "", str(root)))
    with _sleeping(f"--user-data-dir={root}/profile") as process:
        assert [process.pid] == [one.pid for one in members(Mark(0, 0, "", "", str(root)))]


def test_zombies_do_not_count(root: Path) -> None:
    """A dead process that nobody has collected is gone for us."""
    with _sleeping() as process:
        browser = mark(process.pid, sys.executable, str(root))
        assert [] == group.kill(browser)
        left = look(process.pid)
        assert left is not None
        assert left.zombie


def test_ps_tells_the_same_where_there_is_no_proc(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without `/proc` the same facts come from `ps`, and a browser can be ended by them."""
    with _sleeping(f"--user-data-dir={root}/profile") as process:
        known = look(process.pid)
        monkeypatch.setattr(group, "PROC", root / "no-proc")
        told = look(process.pid)
        assert known is not None
        assert told is not None
        assert (known.pid, known.group, known.zombie) == (told.pid, told.group, told.zombie)
        browser = mark(process.pid, sys.executable, str(root))
        assert [process.pid] == [one.pid for one in members(browser)]
        assert [] == group.kill(browser)
        assert -signal.SIGKILL == process.wait(5)


def test_a_folder_is_removed_though_written_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removal is tried again for a while, and a folder that is not there is fine."""
    folder = root / "one"
    (folder / "deep").mkdir(parents=True)
    real, failures = group.shutil.rmtree, [OSError("not empty")] * 3

    def rmtree(path: str) -> None:
        if failures:
            raise failures.pop()
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(group.shutil, "rmtree", rmtree)
        group.remove(str(folder))
    assert not folder.exists()
    group.remove(str(folder))


def test_a_folder_that_stays_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its patience the reason is raised."""

    def rmtree(path: str) -> None:
        raise PermissionError(path)

    with monkeypatch.context() as patch, pytest.raises(PermissionError):
        patch.setattr(group.shutil, "rmtree", rmtree)
        group.remove(str(root), patience=0.05)


def test_what_is_gone_is_forgotten() -> None:
    """The guard touches only what is there at the end."""
    watched = Watched()
    watched.hear(b'{"folder": ["a", "/x"]}')
    watched.hear(b'{"browser": ["a", [1, 2, "boot", "chrome", "/x"]]}')
    assert {"a": Mark(1, 2, "boot", "chrome", "/x")} == watched.browsers
    watched.hear(b'{"gone": "a"}')
    assert ({}, {}, False) == (watched.browsers, watched.folders, watched.orderly)
    watched.hear(b'{"bye": true}')
    assert watched.orderly


async def test_an_orderly_goodbye_touches_nothing(root: Path) -> None:
    """A guard that is told goodbye leaves, and what it watched stays."""
    guard = Guard("test")
    guard.start()
    pid = guard.pid
    assert pid is not None
    guard.folder("one", root)
    await guard.close()
    await guard.close()
    assert not alive(pid)
    assert root.exists()


async def test_a_closed_pipe_is_a_death(root: Path) -> None:
    """Without a goodbye everything told is ended and removed."""
    (root / "one").mkdir()
    with _sleeping() as told, _sleeping(f"--user-data-dir={root}/one/profile") as untold:
        guard = Guard("test")
        guard.start()
        guard.folder("one", root / "one")
        guard.browser("one", mark(told.pid, sys.executable, str(root / "one")))
        child = guard._child
        assert child is not None
        assert child.popen.stdin is not None
        guard._closed = True  # so that it is not replaced
        child.popen.stdin.close()
        await asyncio.wait_for(asyncio.shield(child.exited), 5)
        assert [-signal.SIGKILL] * 2 == [told.wait(1), untold.wait(1)]
        assert not (root / "one").exists()
        guard._let_go(child)


async def test_a_guard_that_does_not_listen_is_replaced(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen one is killed when its pipe is full; the next one is told everything."""
    monkeypatch.setattr("browsercloud.browser.guard.RESTART_DELAY", 0.01)
    guard = Guard("test")
    guard.start()
    first = guard.pid
    assert first is not None
    guard.folder("kept", root)
    os.kill(first, signal.SIGSTOP)
    with caplog.at_level(logging.WARNING):
        for n in range(3000):
            guard.folder("other", root / str(n))
        await until(lambda: guard.pid not in (None, first), "another guard")
    assert "does not listen" in caplog.text
    guard.gone("kept")
    await guard.close()


def _lock(folder: Path) -> int:
    """A lock that is held, with a new owner's word in it."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    write_deed(fd, Deed(os.getpid(), 1, secrets.token_hex(4)))
    return fd


def _bequest(root: Path) -> Watched:
    """A folder that can be adopted, and one that cannot."""
    watched = Watched()
    for key in ("complete", "starting"):
        (root / key).mkdir()
        watched.hear(json.dumps({"folder": [key, str(root / key)]}).encode())
    watched.hear(b'{"adoptable": "complete"}')
    return watched


async def test_only_what_is_complete_waits_for_a_successor(root: Path) -> None:
    """The rest ends at once, with the lock held; the complete one when the grace is over."""
    lock = _lock(root)
    with (
        _sleeping(f"--user-data-dir={root}/complete/profile") as complete,
        _sleeping(f"--user-data-dir={root}/starting/profile") as starting,
    ):
        waiting = asyncio.create_task(asyncio.to_thread(bequeath, _bequest(root), lock, 1.0))
        await until(lambda: not (root / "starting").exists(), "the end of what was starting")
        assert -signal.SIGKILL == starting.wait(1)
        assert complete.poll() is None
        await waiting
        assert -signal.SIGKILL == complete.wait(1)
    assert not (root / "complete").exists()
    os.close(lock)


async def test_a_guard_leaves_when_a_successor_has_taken_all(root: Path) -> None:
    """And touches nothing, though the successor has left since."""
    lock = _lock(root)
    waiting = asyncio.create_task(asyncio.to_thread(bequeath, _bequest(root), lock, 30.0))
    await until(lambda: not (root / "starting").exists(), "the guard's wait")
    heir = os.open(root / "lock", os.O_RDWR)
    await until(lambda: _can_lock(heir), "the lock")
    write_deed(heir, Deed(1, 1, "heir"))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    write_deed(heir, Deed(1, 1, "heir", taken=True))
    os.close(heir)
    await asyncio.wait_for(waiting, 5)
    assert (root / "complete").exists()
    os.close(lock)


async def test_a_guard_does_nothing_without_the_lock(root: Path) -> None:
    """Past its grace it waits for a successor that has not taken over yet, and then ends all."""
    lock = _lock(root)
    waiting = asyncio.create_task(asyncio.to_thread(bequeath, _bequest(root), lock, 0.5))
    await until(lambda: not (root / "starting").exists(), "the guard's wait")
    heir = os.open(root / "lock", os.O_RDWR)
    await until(lambda: _can_lock(heir), "the lock", timeout=0.4)
    write_deed(heir, Deed(1, 1, "heir"))
    await asyncio.sleep(1.0)
    assert (root / "complete").exists()
    os.close(heir)
    await asyncio.wait_for(waiting, 5)
    assert not (root / "complete").exists()
    os.close(lock)


async def test_a_guard_leaves_when_nothing_is_there_any_more(root: Path) -> None:
    """A successor that has ended everything need not say so."""
    lock = _lock(root)
    watched = _bequest(root)
    waiting = asyncio.create_task(asyncio.to_thread(bequeath, watched, lock, 30.0))
    (root / "complete").rmdir()
    await asyncio.wait_for(waiting, 5)
    os.close(lock)


async def test_a_guard_remembers_through_a_removed_data_folder(root: Path) -> None:
    """Removed by hand, a folder still tells whose the processes are."""
    data = root / "data"
    data.mkdir()
    lock = _lock(data)
    watched = Watched()
    watched.hear(json.dumps({"folder": ["one", str(data / "one")]}).encode())
    watched.hear(b'{"adoptable": "one"}')
    with _sleeping(f"--user-data-dir={data}/one/profile") as process:
        waiting = asyncio.create_task(asyncio.to_thread(bequeath, watched, lock, 0.5))
        (data / "lock").unlink()
        data.rmdir()
        await asyncio.wait_for(waiting, 5)
        assert -signal.SIGKILL == process.wait(1)
    os.close(lock)


def _can_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
