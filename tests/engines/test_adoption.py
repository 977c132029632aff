"""An engine is killed, and its browsers are taken over, or end by themselves."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from browsercloud.browser import group
from browsercloud.engines.adoption import endpoint_in, state_of
from browsercloud.engines.folders import Left, embedded_data_dir, read_mark
from browsercloud.engines.local import LocalEngine
from browsercloud.errors import UsageError
from browsercloud.options import Browser, SessionOptions
from tests.conftest import Site
from tests.killing import (
    GRACE,
    SHELL,
    evaluate,
    go,
    gone,
    kill,
    killed,
    mortal,
    nothing_is_left,
    successor,
)
from tests.processes import alive, living, until

SHORT = 1.0
COUNTS = "window.secret = 'kept'; window.n = 0; setInterval(() => n++, 20); n"


@pytest.fixture
def data_dir(root: Path) -> Path:
    """A folder for engines."""
    return root / "data"


@pytest.mark.parametrize("browser", list(Browser))
async def test_a_successor_takes_over_every_browser(
    data_dir: Path, site: Site, browser: Browser
) -> None:
    """Same page, same URL, variables and timers go on; closing the successor leaves nothing."""
    options = SessionOptions(browser=browser)
    with mortal(data_dir, GRACE, browser, 3) as (pid, facts):
        for name, state in facts["states"].items():
            await go(state["endpoint"], f"{site.url}/?{name}")
            await evaluate(state["endpoint"], COUNTS)
        kill(pid)
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
        assert f"{url} kept" == await evaluate(handle.endpoint, "`${location.href} ${secret}`")
        before = await evaluate(handle.endpoint, "n")
        await asyncio.sleep(0.1)
        assert before < await evaluate(handle.endpoint, "n")
    await until(lambda: not alive(facts["guard"]), "the old guard's leave", timeout=3)
    assert 3 == len(await engine.usage())
    first = handles[0]
    assert first is not None
    await engine.stop(first, grace=5)
    assert 0 == (await first.exited).exit_code
    await engine.close()
    nothing_is_left(data_dir)


async def test_without_a_successor_all_ends_after_the_grace(data_dir: Path) -> None:
    """Not before it, and soon after it; folders go too, and the guard."""
    with mortal(data_dir, SHORT, count=3) as (pid, facts):
        kill(pid)
        killed = time.monotonic()
    await asyncio.sleep(0.5)
    assert 3 == len(os.listdir(data_dir / "sessions"))
    assert [] != living(data_dir)
    await gone(data_dir, 5)
    assert time.monotonic() - killed >= SHORT
    await until(lambda: not alive(facts["guard"]), "the guard's end")


async def test_without_a_grace_all_ends_at_once(data_dir: Path) -> None:
    """`orphan_grace` 0: as soon as the program is dead."""
    killed(data_dir, 0, count=2)
    await gone(data_dir, 5)


async def test_an_embedded_engine_leaves_nothing(root: Path) -> None:
    """Whatever grace it is given."""
    folder = embedded_data_dir()
    killed(folder, GRACE, count=2)
    await until(lambda: not living(folder) and not folder.exists(), "its end", timeout=5)


async def test_a_successor_in_time_needs_no_old_guard(data_dir: Path) -> None:
    """With the guard killed too, the browsers run on and can be taken over."""
    facts = killed(data_dir, guard=True, count=3)
    engine = await successor(data_dir, facts["states"])
    await engine.close()
    nothing_is_left(data_dir)


async def test_a_restored_browser_can_be_restored_again(data_dir: Path) -> None:
    """Any number of times, by the same state."""
    states = killed(data_dir, count=2)["states"]
    for _ in range(2):
        assert states == killed(data_dir, count=0, restore=states, more=["sweep"])["states"]
    engine = await successor(data_dir, states)
    await engine.close()
    nothing_is_left(data_dir)


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize("restored", [0, 1, 2])
async def test_a_successor_killed_while_it_opens_loses_nothing(
    data_dir: Path, guard: bool, restored: int
) -> None:
    """Before it has restored anything, in the middle, before its sweep: the next one has all."""
    states = killed(data_dir, guard=guard, count=2)["states"]
    some = dict(list(states.items())[:restored])
    killed(data_dir, count=0, restore=some)
    engine = await successor(data_dir, states)
    await engine.close()
    nothing_is_left(data_dir)


@pytest.mark.parametrize("guard", [True, False])
async def test_after_a_successor_killed_while_it_opens_all_ends(
    data_dir: Path, guard: bool
) -> None:
    """Its guard knows what it has found, also when the first guard is dead."""
    states = killed(data_dir, 4, guard=guard, count=2)["states"]
    killed(data_dir, 4, count=0, restore=dict(list(states.items())[:1]))
    assert [] != living(data_dir)
    await gone(data_dir, 9)


async def test_failed_starts_do_not_lengthen_the_grace(data_dir: Path) -> None:
    """Successors that leave in order before their sweep leave all to the first guard."""
    begun = time.monotonic()
    killed(data_dir, 2, count=1)
    while os.listdir(data_dir / "sessions"):
        assert time.monotonic() - begun < 10
        engine = LocalEngine(data_dir, orphan_grace=GRACE)
        await engine.open()
        await engine.close()
        await asyncio.sleep(0.25)
    assert time.monotonic() - begun >= 2
    await gone(data_dir, 1)


@pytest.mark.parametrize("grace", [0, GRACE])
async def test_what_nobody_waits_for_ends_with_the_engine_that_found_it(
    data_dir: Path, grace: float
) -> None:
    """Without the first guard, or without a grace of its own, an engine leaves nothing behind."""
    killed(data_dir, guard=grace > 0, count=1)
    engine = LocalEngine(data_dir, orphan_grace=grace)
    await engine.open()
    await engine.close()
    nothing_is_left(data_dir)


async def test_what_is_not_restored_is_swept(data_dir: Path) -> None:
    """And its id is free again only then."""
    facts = killed(data_dir, count=2)
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
    nothing_is_left(data_dir)


async def test_a_guard_that_was_replaced_leaves_the_same_grace(data_dir: Path) -> None:
    """The second guard has been told what the first one knew."""
    with mortal(data_dir, GRACE, count=1) as (pid, facts):
        os.kill(facts["guard"], signal.SIGKILL)
        await until(lambda: _guards(data_dir) - {facts["guard"]}, "another guard")
        kill(pid)
    await asyncio.sleep(0.5)
    engine = await successor(data_dir, facts["states"])
    await engine.close()
    nothing_is_left(data_dir)


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
    killed(data_dir, guard=True)
    engine = LocalEngine(data_dir, orphan_grace=GRACE)
    await engine.open()
    for name in ("s0", "../s0", "", "nobody"):
        assert await engine.restore(name, SHELL, state) is None
    await engine.sweep()
    nothing_is_left(data_dir)
    await engine.close()


async def test_another_browsers_endpoint_is_not_taken(data_dir: Path) -> None:
    """The right process with an id that it does not answer to is not restored."""
    state = killed(data_dir, guard=True)["states"]["s0"]
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
    state = killed(data_dir, guard=True)["states"]["s0"]
    os.kill(state["pid"], signal.SIGSTOP)
    engine = LocalEngine(data_dir, orphan_grace=GRACE)
    await engine.open()
    assert await engine.restore("s0", SHELL, state) is None
    await engine.sweep()
    nothing_is_left(data_dir)
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
