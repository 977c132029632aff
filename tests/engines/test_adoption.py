"""An engine is killed, and its browsers are taken over, or end by themselves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from browsercloud.browser import group, orphan
from browsercloud.browser.group import Deed, read_deed
from browsercloud.cdp.connection import CdpConnection
from browsercloud.engines.adoption import endpoint_in, state_of
from browsercloud.engines.folders import Left, Lock, embedded_data_dir, read_mark
from browsercloud.engines.local import LocalEngine
from browsercloud.errors import UsageError
from browsercloud.models import Browser, Dimensions, SessionOptions
from tests.conftest import Site
from tests.processes import alive, living, until

SHELL = SessionOptions(browser=Browser.HEADLESS_SHELL)
MORTAL = Path(__file__).with_name("mortal.py")
GRACE = 30.0
SHORT = 1.0
COUNTS = "window.secret = 'kept'; window.n = 0; setInterval(() => n++, 20); n"


@pytest.fixture
def data_dir(root: Path) -> Path:
    """A folder for engines."""
    return root / "data"


@contextmanager
def mortal(
    data_dir: Path,
    grace: float,
    browser: Browser = Browser.HEADLESS_SHELL,
    count: int = 1,
    restore: Mapping[str, Any] | None = None,
    more: Sequence[str] = (),
) -> Iterator[tuple[int, Any]]:
    """A running program with an engine: its pid, and what it tells."""
    arguments = [str(data_dir), str(grace), browser.value, str(count), json.dumps(restore or {})]
    with subprocess.Popen(
        [sys.executable, MORTAL, *arguments, *more],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ) as process:
        assert process.stdout is not None
        try:
            yield process.pid, json.loads(process.stdout.readline())
        finally:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def _kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # all stand still first, so that none can replace another
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def _killed(data_dir: Path, grace: float = GRACE, *, guard: bool = False, **more: Any) -> Any:
    """The facts of a program that was killed, with its guard or without."""
    with mortal(data_dir, grace, **more) as (pid, facts):
        _kill(pid, *([facts["guard"]] if guard else []))
    return facts


async def _evaluate(endpoint: str, expression: str, session: str | None = None) -> Any:
    async with await CdpConnection.open(endpoint) as cdp:
        pages = (await cdp.send("Target.getTargets"))["targetInfos"]
        page = next(one["targetId"] for one in pages if one["type"] == "page")
        attached = await cdp.send("Target.attachToTarget", {"targetId": page, "flatten": True})
        answer = await cdp.send(
            "Runtime.evaluate",
            {"expression": expression, "returnByValue": True, "awaitPromise": True},
            attached["sessionId"],
        )
        return answer["result"].get("value")


async def _go(endpoint: str, url: str) -> None:
    await _evaluate(endpoint, f"location.href = {url!r}")
    deadline = time.monotonic() + 5
    while await _evaluate(endpoint, "location.href + document.readyState") != f"{url}complete":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def _nothing_is_left(data_dir: Path) -> None:
    assert [] == living(data_dir)
    assert [] == os.listdir(data_dir / "sessions")


async def _gone(data_dir: Path, within: float) -> None:
    await until(
        lambda: not living(data_dir) and not os.listdir(data_dir / "sessions"),
        "the end of browsers and folders",
        timeout=within,
    )


@pytest.mark.parametrize("browser", list(Browser))
async def test_a_successor_takes_over_every_browser(
    data_dir: Path, site: Site, browser: Browser
) -> None:
    """Same page, same URL, variables and timers go on; closing the successor leaves nothing."""
    options = SessionOptions(browser=browser)
    with mortal(data_dir, GRACE, browser, 3) as (pid, facts):
        for name, state in facts["states"].items():
            await _go(state["endpoint"], f"{site.url}/?{name}")
            await _evaluate(state["endpoint"], COUNTS)
        _kill(pid)
    engine = LocalEngine(data_dir, orphan_grace=GRACE)
    await engine.open()
    states = facts["states"]
    handles = await asyncio.gather(*(engine.restore(n, options, states[n]) for n in states))
    await engine.sweep()
    assert set(states) == set(engine.running())
    for handle in handles:
        assert handle is not None
        assert states[handle.session_id] == handle.state
        assert await engine.poll(handle) is None
        url = f"{site.url}/?{handle.session_id}"
        assert f"{url} kept" == await _evaluate(handle.endpoint, "`${location.href} ${secret}`")
        before = await _evaluate(handle.endpoint, "n")
        await asyncio.sleep(0.1)
        assert before < await _evaluate(handle.endpoint, "n")
    await until(lambda: not alive(facts["guard"]), "the old guard's leave", timeout=3)
    assert 3 == len(await engine.usage())
    first = handles[0]
    assert first is not None
    await engine.stop(first, grace=5)
    assert 0 == (await first.exited).exit_code
    await engine.close()
    _nothing_is_left(data_dir)


async def test_without_a_successor_all_ends_after_the_grace(data_dir: Path) -> None:
    """Not before it, and soon after it; folders go too, and the guard."""
    with mortal(data_dir, SHORT, count=3) as (pid, facts):
        _kill(pid)
        killed = time.monotonic()
    await asyncio.sleep(0.5)
    assert 3 == len(os.listdir(data_dir / "sessions"))
    assert [] != living(data_dir)
    await _gone(data_dir, 5)
    assert time.monotonic() - killed >= SHORT
    await until(lambda: not alive(facts["guard"]), "the guard's end")


async def test_without_a_grace_all_ends_at_once(data_dir: Path) -> None:
    """`orphan_grace` 0: as soon as the program is dead."""
    _killed(data_dir, 0, count=2)
    await _gone(data_dir, 5)


async def test_an_embedded_engine_leaves_nothing(root: Path) -> None:
    """Whatever grace it is given."""
    folder = embedded_data_dir()
    _killed(folder, GRACE, count=2)
    await until(lambda: not living(folder) and not folder.exists(), "its end", timeout=5)


async def _successor(data_dir: Path, states: Mapping[str, Any]) -> LocalEngine:
    """An engine that has restored these."""
    engine = LocalEngine(data_dir, orphan_grace=GRACE)
    await engine.open()
    for name, state in states.items():
        assert await engine.restore(name, SHELL, state) is not None
    await engine.sweep()
    return engine


async def test_a_successor_in_time_needs_no_old_guard(data_dir: Path) -> None:
    """With the guard killed too, the browsers run on and can be taken over."""
    facts = _killed(data_dir, guard=True, count=3)
    engine = await _successor(data_dir, facts["states"])
    await engine.close()
    _nothing_is_left(data_dir)


async def test_a_restored_browser_can_be_restored_again(data_dir: Path) -> None:
    """Any number of times, by the same state."""
    states = _killed(data_dir, count=2)["states"]
    for _ in range(2):
        assert states == _killed(data_dir, count=0, restore=states, more=["sweep"])["states"]
    engine = await _successor(data_dir, states)
    await engine.close()
    _nothing_is_left(data_dir)


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize("restored", [0, 1, 2])
async def test_a_successor_killed_while_it_opens_loses_nothing(
    data_dir: Path, guard: bool, restored: int
) -> None:
    """Before it has restored anything, in the middle, before its sweep: the next one has all."""
    states = _killed(data_dir, guard=guard, count=2)["states"]
    some = dict(list(states.items())[:restored])
    _killed(data_dir, count=0, restore=some)
    engine = await _successor(data_dir, states)
    await engine.close()
    _nothing_is_left(data_dir)


@pytest.mark.parametrize("guard", [True, False])
async def test_after_a_successor_killed_while_it_opens_all_ends(
    data_dir: Path, guard: bool
) -> None:
    """Its guard knows what it has found, also when the first guard is dead."""
    states = _killed(data_dir, 4, guard=guard, count=2)["states"]
    _killed(data_dir, 4, count=0, restore=dict(list(states.items())[:1]))
    assert [] != living(data_dir)
    await _gone(data_dir, 9)


async def test_failed_starts_do_not_lengthen_the_grace(data_dir: Path) -> None:
    """Successors that leave in order before their sweep leave all to the first guard."""
    begun = time.monotonic()
    _killed(data_dir, 2, count=1)
    while os.listdir(data_dir / "sessions"):
        assert time.monotonic() - begun < 10
        engine = LocalEngine(data_dir, orphan_grace=GRACE)
        await engine.open()
        await engine.close()
        await asyncio.sleep(0.25)
    assert time.monotonic() - begun >= 2
    await _gone(data_dir, 1)


@pytest.mark.parametrize("grace", [0, GRACE])
async def test_what_nobody_waits_for_ends_with_the_engine_that_found_it(
    data_dir: Path, grace: float
) -> None:
    """Without the first guard, or without a grace of its own, an engine leaves nothing behind."""
    _killed(data_dir, guard=grace > 0, count=1)
    engine = LocalEngine(data_dir, orphan_grace=grace)
    await engine.open()
    await engine.close()
    _nothing_is_left(data_dir)


async def test_what_is_not_restored_is_swept(data_dir: Path) -> None:
    """And its id is free again only then."""
    facts = _killed(data_dir, count=2)
    engine = LocalEngine(data_dir, orphan_grace=GRACE)
    await engine.open()
    assert await engine.restore("s0", SHELL, facts["states"]["s0"]) is not None
    assert await engine.restore("s0", SHELL, facts["states"]["s0"]) is None
    with pytest.raises(UsageError, match="has a browser already"):
        await engine.start("s1", SHELL)
    await engine.sweep()
    assert ["s0"] == os.listdir(data_dir / "sessions")
    handle = await engine.start("s1", SHELL)
    await engine.stop(handle, grace=0)
    await engine.close()
    _nothing_is_left(data_dir)


async def test_a_guard_that_was_replaced_leaves_the_same_grace(data_dir: Path) -> None:
    """The second guard has been told what the first one knew."""
    with mortal(data_dir, GRACE, count=1) as (pid, facts):
        os.kill(facts["guard"], signal.SIGKILL)
        await until(lambda: _guards(data_dir) - {facts["guard"]}, "another guard")
        _kill(pid)
    await asyncio.sleep(0.5)
    engine = await _successor(data_dir, facts["states"])
    await engine.close()
    _nothing_is_left(data_dir)


def _guards(data_dir: Path) -> set[int]:
    return {
        one.pid
        for one in group.processes()
        if not one.zombie and group.__file__ in one.command and str(data_dir) in one.command
    }


NONSENSE: list[dict[str, Any]] = [
    {},
    {"pid": "1"},
    {"pid": True, "start": None, "boot": [], "program": {}, "endpoint": 7},
    {"endpoint": "ws://127.0.0.1:1/devtools/browser/x"},
    {"endpoint": "http://example.com/"},
]


@pytest.mark.parametrize("state", NONSENSE)
async def test_a_state_of_nonsense_restores_nothing(data_dir: Path, state: dict[str, Any]) -> None:
    """No error, and the browser that was there is swept."""
    _killed(data_dir, guard=True)
    engine = LocalEngine(data_dir, orphan_grace=GRACE)
    await engine.open()
    for name in ("s0", "../s0", "", "nobody"):
        assert await engine.restore(name, SHELL, state) is None
    await engine.sweep()
    _nothing_is_left(data_dir)
    await engine.close()


async def test_another_browsers_endpoint_is_not_taken(data_dir: Path) -> None:
    """The right process with an id that it does not answer to is not restored."""
    state = _killed(data_dir, guard=True)["states"]["s0"]
    other = state["endpoint"].rpartition("/")[0] + "/" + "0" * 8 + "-0000-0000-0000-" + "0" * 12
    engine = LocalEngine(data_dir, orphan_grace=GRACE)
    await engine.open()
    assert await engine.restore("s0", SHELL, {**state, "endpoint": other}) is None
    await engine.close()


async def test_a_browser_that_does_not_answer_is_not_restored(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its patience `restore` gives up, and the sweep ends it, frozen as it is."""
    monkeypatch.setattr("browsercloud.engines.local.RESTORE_PATIENCE", 0.3)
    state = _killed(data_dir, guard=True)["states"]["s0"]
    os.kill(state["pid"], signal.SIGSTOP)
    engine = LocalEngine(data_dir, orphan_grace=GRACE)
    await engine.open()
    assert await engine.restore("s0", SHELL, state) is None
    await engine.sweep()
    _nothing_is_left(data_dir)
    await engine.close()


def test_a_strangers_process_is_never_taken(root: Path) -> None:
    """Another start time, boot, program or folder: not that browser, whatever its number."""
    program = sys.executable
    words = [program, "-c", "import time; time.sleep(60)", f"--user-data-dir={root}/profile", "x"]
    with subprocess.Popen(words, start_new_session=True) as process:
        try:
            mark = group.mark(process.pid, program, str(root))
            endpoint = "ws://127.0.0.1:1/devtools/browser/" + "a" * 36
            assert endpoint == endpoint_in(state_of(mark, endpoint), Left(mark, complete=True))
            assert endpoint_in(state_of(mark, endpoint), Left(mark, complete=False)) is None
            for other in (
                mark._replace(start=mark.start + 1),
                mark._replace(boot="another"),
                mark._replace(program="/usr/bin/chromium"),
                mark._replace(folder=f"{root}/elsewhere"),
                mark._replace(pid=os.getpid()),
                mark._replace(pid=1),
            ):
                assert endpoint_in(state_of(other, endpoint), Left(other, complete=True)) is None
                assert endpoint_in(
                    state_of(mark, endpoint), Left(other, complete=True)
                ) is None or (other.folder != mark.folder)
        finally:
            process.kill()


@pytest.mark.parametrize("text", ["", "[]", '{"browser": 1}', '{"browser": {"pid": 1}}', "\0"])
def test_a_mark_of_nonsense_knows_only_the_folder(root: Path, text: str) -> None:
    """Half a file, or another's: nothing to adopt, and only what was given the folder is swept."""
    (root / "process.json").write_text(text)
    left = read_mark(root)
    assert (0, str(root), False) == (left.mark.pid, left.mark.folder, left.complete)


@pytest.mark.parametrize("browser", list(Browser))
@pytest.mark.parametrize("how", ["close", "SIGKILL", "SIGSEGV"])
async def test_the_end_of_a_restored_browser_is_told(
    data_dir: Path, browser: Browser, how: str
) -> None:
    """At once, and truly: it left by itself, or a signal ended it."""
    facts = _killed(data_dir, browser=browser)
    engine = await _successor(data_dir, facts["states"])
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
    _nothing_is_left(data_dir)
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
    facts = _killed(data_dir, browser=browser)
    engine = await _successor(data_dir, facts["states"])
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
    facts = _killed(data_dir)
    engine = await _successor(data_dir, facts["states"])
    handle = engine.running()["s0"]
    for process in living(data_dir):
        process.send_signal(signal.SIGSTOP)
    await asyncio.wait_for(engine.stop(handle, grace=grace), 5)
    assert "SIGKILL" == (await handle.exited).signal
    _nothing_is_left(data_dir)
    await engine.close()


async def test_last_words_outlive_the_server(data_dir: Path) -> None:
    """What a browser says while no server listens is read by the next one."""
    facts = _killed(data_dir)
    writing = os.open(data_dir / "sessions" / "s0" / "stderr", os.O_WRONLY | os.O_NONBLOCK)
    os.write(writing, b"said in between\n")
    os.close(writing)
    engine = await _successor(data_dir, facts["states"])
    handle = engine.running()["s0"]
    os.kill(handle.state["pid"], signal.SIGKILL)
    assert ("said in between",) == (await asyncio.shield(handle.exited)).stderr
    await engine.close()


async def test_what_flags_cannot_do_is_done_again(data_dir: Path, site: Site) -> None:
    """User agent and a narrow viewport hold for old and new pages of a restored browser."""
    options = SessionOptions(user_agent="Chrome/99.0.0.0", dimensions=Dimensions(400, 300))
    facts = _killed(data_dir, browser=Browser.CHROMIUM)
    engine = LocalEngine(data_dir, orphan_grace=GRACE)
    await engine.open()
    handle = await engine.restore("s0", options, facts["states"]["s0"])
    assert handle is not None
    assert "Chrome/99.0.0.0" == handle.user_agent
    assert "Chrome/99.0.0.0 400" == await _evaluate(
        handle.endpoint, "`${navigator.userAgent} ${innerWidth}`"
    )
    await engine.close()


async def test_a_cancelled_restore_leaves_the_browser_for_another(data_dir: Path) -> None:
    """It can be restored again, and is swept if it is not."""
    state = _killed(data_dir, guard=True)["states"]["s0"]
    engine = LocalEngine(data_dir, orphan_grace=GRACE)
    await engine.open()
    restoring = asyncio.create_task(engine.restore("s0", SHELL, state))
    await asyncio.sleep(0.005)
    restoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await restoring
    assert {} == engine.running()
    assert await engine.restore("s0", SHELL, state) is not None
    await engine.close()
    _nothing_is_left(data_dir)


async def test_the_endpoint_is_in_no_log(data_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither when a browser is restored nor when it is not."""
    states = _killed(data_dir, guard=True, count=2)["states"]
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
