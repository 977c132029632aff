"""A browser that was taken over is as good as one of our own, to its end."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from browsercloud.browser import orphan
from browsercloud.browser.group import Deed, read_deed
from browsercloud.cdp.connection import CdpConnection
from browsercloud.engines.folders import Lock, read_mark
from browsercloud.engines.local import LocalEngine
from browsercloud.options import Browser, Dimensions, SessionOptions
from tests.conftest import Site
from tests.killing import (
    GRACE,
    SHELL,
    evaluate,
    killed,
    nothing_is_left,
    successor,
)
from tests.processes import living, until

SHORT = 1.0
COUNTS = "window.secret = 'kept'; window.n = 0; setInterval(() => n++, 20); n"


@pytest.fixture
def data_dir(root: Path) -> Path:
    """A folder for engines."""
    return root / "data"


@pytest.mark.parametrize("browser", list(Browser))
@pytest.mark.parametrize("how", ["close", "SIGKILL", "SIGSEGV"])
async def test_the_end_of_a_restored_browser_is_told(
    data_dir: Path, browser: Browser, how: str
) -> None:
    """At once, and truly: it left by itself, or a signal ended it."""
    facts = killed(data_dir, browser=browser)
    engine = await successor(data_dir, facts["states"])
    handle = engine.running()["s0"]
    if how == "close":
        async with await CdpConnection.open(handle.endpoint) as cdp:
            await cdp.send("Browser.close")
    else:
        os.kill(handle.state["pid"], signal.Signals[how])
    end = await asyncio.wait_for(asyncio.shield(handle.exited), 5)
    assert (0, None) == (end.exit_code, end.signal) if how == "close" else how == end.signal
    assert end == await engine.poll(handle)
    await engine.stop(handle, grace=1)
    nothing_is_left(data_dir)
    await engine.close()


@pytest.mark.parametrize("how", ["close", "SIGKILL"])
@pytest.mark.parametrize("browser", list(Browser))
async def test_without_the_kernels_word_a_clean_end_is_read_from_the_profile(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, browser: Browser, how: str
) -> None:
    """Chromium takes its lock away when it leaves; of the headless shell nothing can be said."""
    monkeypatch.setattr(orphan.Orphan, "_of_zombie", lambda self: None)
    monkeypatch.setattr(orphan.Orphan, "_of_handle", lambda self: None)
    monkeypatch.setattr(orphan, "WATCHES_PIDFD", False)
    facts = killed(data_dir, browser=browser)
    engine = await successor(data_dir, facts["states"])
    handle = engine.running()["s0"]
    if how == "close":
        async with await CdpConnection.open(handle.endpoint) as cdp:
            await cdp.send("Browser.close")
    else:
        os.kill(handle.state["pid"], signal.SIGKILL)
    end = await asyncio.wait_for(asyncio.shield(handle.exited), 5)
    known = how == "close" and browser is Browser.CHROMIUM
    assert (0 if known else None, None) == (end.exit_code, end.signal)
    await engine.close()


@pytest.mark.parametrize("grace", [0, 0.2])
async def test_a_restored_browser_that_is_stopped_dead_is_ended(
    data_dir: Path, grace: float
) -> None:
    """The ladder works for those that are not our children too."""
    facts = killed(data_dir)
    engine = await successor(data_dir, facts["states"])
    handle = engine.running()["s0"]
    for process in living(data_dir):
        process.send_signal(signal.SIGSTOP)
    await asyncio.wait_for(engine.stop(handle, grace=grace), 5)
    assert "SIGKILL" == (await handle.exited).signal
    nothing_is_left(data_dir)
    await engine.close()


async def test_last_words_outlive_the_server(data_dir: Path) -> None:
    """What a browser says while no server listens is read by the next one."""
    facts = killed(data_dir)
    writing = os.open(data_dir / "sessions" / "s0" / "stderr", os.O_WRONLY | os.O_NONBLOCK)
    os.write(writing, b"said in between\n")
    os.close(writing)
    engine = await successor(data_dir, facts["states"])
    handle = engine.running()["s0"]
    os.kill(handle.state["pid"], signal.SIGKILL)
    assert ("said in between",) == (await asyncio.shield(handle.exited)).stderr
    await engine.close()


async def test_what_flags_cannot_do_is_done_again(data_dir: Path, site: Site) -> None:
    """User agent and a narrow viewport hold for old and new pages of a restored browser."""
    options = SessionOptions(user_agent="Chrome/99.0.0.0", dimensions=Dimensions(400, 300))
    facts = killed(data_dir, browser=Browser.CHROMIUM)
    engine = LocalEngine(data_dir, orphan_grace=GRACE)
    await engine.open()
    handle = await engine.restore("s0", options, facts["states"]["s0"])
    assert handle is not None
    assert "Chrome/99.0.0.0" == handle.user_agent
    assert "Chrome/99.0.0.0 400" == await evaluate(
        handle.endpoint, "`${navigator.userAgent} ${innerWidth}`"
    )
    await engine.close()


async def test_a_cancelled_restore_leaves_the_browser_for_another(data_dir: Path) -> None:
    """It can be restored again, and is swept if it is not."""
    state = killed(data_dir, guard=True)["states"]["s0"]
    engine = LocalEngine(data_dir, orphan_grace=GRACE)
    await engine.open()
    restoring = asyncio.create_task(engine.restore("s0", SHELL, state))
    await asyncio.sleep(0)  # to its first await
    restoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await restoring
    assert {} == engine.running()
    assert await engine.restore("s0", SHELL, state) is not None
    await engine.close()
    nothing_is_left(data_dir)


async def test_the_endpoint_is_in_no_log(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither when a browser is restored nor when it is not."""
    states = killed(data_dir, guard=True, count=2)["states"]
    os.kill(states["s1"]["pid"], signal.SIGKILL)
    with caplog.at_level("DEBUG"):
        engine = LocalEngine(data_dir, orphan_grace=GRACE)
        await engine.open()
        for name, state in states.items():
            await engine.restore(name, SHELL, state)
        await engine.sweep()
        assert ["s0"] == list(engine.running())
        await engine.close()
    assert "s1 cannot be restored" in caplog.text
    for state in states.values():
        assert state["endpoint"] not in caplog.text
        assert state["endpoint"].rpartition("/")[2] not in caplog.text


async def test_a_lock_tells_its_owner(root: Path) -> None:
    """Each owner writes another word, so that a guard sees a successor come."""
    words = []
    for _ in range(2):
        lock = Lock(root)
        assert lock.try_acquire()
        assert lock.fd is not None
        words.append(read_deed(lock.fd))
        lock.release()
    first, second = words
    assert isinstance(first, Deed)
    assert isinstance(second, Deed)
    assert (os.getpid(), os.getpid()) == (first.pid, second.pid)
    assert first.nonce != second.nonce
    assert not second.taken


async def test_only_a_complete_browser_can_be_adopted(data_dir: Path) -> None:
    """Folder and guard say so from the moment it is ready until its end begins."""
    engine = LocalEngine(data_dir, orphan_grace=GRACE)
    await engine.open()
    folder = data_dir / "sessions" / "one"
    starting = asyncio.create_task(engine.start("one", SHELL))
    await until((folder / "process.json").exists, "a process")
    guard = engine._guard
    assert guard is not None
    assert starting.done() or not (read_mark(folder).complete or guard._adoptable)
    handle = await starting
    assert (True, {"one"}) == (read_mark(folder).complete, guard._adoptable)
    for process in living(data_dir):
        process.send_signal(signal.SIGSTOP)  # so that its end takes a while
    stopping = asyncio.create_task(engine.stop(handle, grace=0.5))
    await until(lambda: not guard._adoptable, "the begin of its end")
    assert not stopping.done()
    assert not read_mark(folder).complete
    await stopping
    await engine.close()
