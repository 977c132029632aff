"""The local engine with real browsers: each start and each end, tidy or not."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from browsercloud.browser import display, find, group
from browsercloud.cdp.connection import CdpConnection
from browsercloud.engines.folders import Lock, embedded_data_dir
from browsercloud.engines.local import LocalEngine
from browsercloud.errors import BrowserNotFound, LaunchFailed, UsageError
from browsercloud.options import Browser, Dimensions, SessionOptions
from tests.cancelling import at_every_await
from tests.processes import alive, living, until

SHELL = SessionOptions(browser=Browser.HEADLESS_SHELL)
EMBEDDING = Path(__file__).with_name("embedding.py")
SIZES = [Dimensions(1280, 720), Dimensions(400, 300), Dimensions(1920, 1080), Dimensions(3000, 500)]


@pytest.fixture
def data_dir(root: Path) -> Path:
    """A folder for an engine."""
    return root / "data"


@pytest_asyncio.fixture
async def engine(data_dir: Path) -> AsyncIterator[LocalEngine]:
    """An open engine; afterwards nothing of its browsers may be left."""
    engine = LocalEngine(data_dir)
    await engine.open()
    yield engine
    await engine.close()
    _nothing_is_left(data_dir)


def _nothing_is_left(data_dir: Path) -> None:
    assert [] == living(data_dir)
    assert not (data_dir / "sessions").exists() or [] == os.listdir(data_dir / "sessions")


async def _viewports(endpoint: str) -> list[list[int]]:
    """Of the first page, and of a new one."""
    async with await CdpConnection.open(endpoint) as cdp:
        targets = (await cdp.send("Target.getTargets"))["targetInfos"]
        pages = [one["targetId"] for one in targets if one["type"] == "page"]
        pages.append((await cdp.send("Target.createTarget", {"url": "about:blank"}))["targetId"])
        return [await _viewport(cdp, page) for page in pages]


async def _viewport(cdp: CdpConnection, page: str) -> list[int]:
    attached = await cdp.send("Target.attachToTarget", {"targetId": page, "flatten": True})
    answer = await cdp.send(
        "Runtime.evaluate",
        {"expression": "[innerWidth, innerHeight]", "returnByValue": True},
        attached["sessionId"],
    )
    size: list[int] = answer["result"]["value"]
    return size


async def test_a_started_browser_has_its_folder_and_leaves_none(engine: LocalEngine) -> None:
    """The folder holds everything, is private, and is gone with the browser."""
    handle = await engine.start("one", SHELL)
    folder = engine.data_dir / "sessions" / "one"
    assert {"profile", "tmp", "stderr", "process.json"} == set(os.listdir(folder))
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert {"one": handle} == engine.running()
    assert await engine.poll(handle) is None
    assert "HeadlessChrome" in handle.user_agent
    assert handle.endpoint not in repr(handle)
    await engine.stop(handle, grace=5)
    assert 0 == (await handle.exited).exit_code
    assert handle.exited.result() == await engine.poll(handle)
    await engine.stop(handle, grace=5)
    assert {} == engine.running()
    _nothing_is_left(engine.data_dir)


@pytest.mark.parametrize("browser", list(Browser))
async def test_the_viewport_is_exactly_as_asked_for(engine: LocalEngine, browser: Browser) -> None:
    """First page and new pages, with sizes above and below the screen's usual one."""
    for size in SIZES:
        handle = await engine.start("one", SessionOptions(browser=browser, dimensions=size))
        assert [[size.width, size.height]] * 2 == await _viewports(handle.endpoint)
        await engine.stop(handle, grace=0)


async def test_another_frame_height_is_measured_and_remembered(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build whose window has another frame still gets the right viewport."""
    monkeypatch.setattr("browsercloud.browser.flags.FRAME_HEIGHT", 20)
    handle = await engine.start("one", SessionOptions())
    assert [1280, 720] == (await _viewports(handle.endpoint))[0]
    await engine.stop(handle, grace=0)
    assert [87] == list(engine._launcher._frames.values())


async def test_many_start_at_once(engine: LocalEngine) -> None:
    """Starts do not wait for, or disturb, each other; closing the engine ends them all."""
    handles = await asyncio.gather(*(engine.start(f"s{n}", SHELL) for n in range(6)))
    assert 6 == len({handle.endpoint for handle in handles})
    await engine.close()
    await engine.close()
    assert [True] * 6 == [handle.exited.done() for handle in handles]
    assert not any([await engine.poll(handle) is None for handle in handles])


async def test_a_start_cancelled_anywhere_leaves_nothing(engine: LocalEngine) -> None:
    """At every place where a start can be cancelled, browser and folder are gone afterwards."""
    started = []

    async def start() -> None:
        started.append(await engine.start("one", SHELL))

    async def nothing_is_left() -> None:
        while started:
            await engine.stop(started.pop(), grace=0)
        assert {} == engine._browsers
        _nothing_is_left(engine.data_dir)

    assert await at_every_await(start, nothing_is_left) > 5


async def test_a_start_cancelled_twice_leaves_nothing(engine: LocalEngine) -> None:
    """A second cancellation does not stop the clean-up of the first."""
    started = []
    options = SessionOptions(browser=Browser.HEADLESS_SHELL, user_agent="Chrome/100.0.0.0")

    async def start() -> None:
        started.append(await engine.start("one", options))

    async def nothing_is_left() -> None:
        while started:
            await engine.stop(started.pop(), grace=0)
        assert {} == engine._browsers
        _nothing_is_left(engine.data_dir)

    assert await at_every_await(start, nothing_is_left, again=1, every=3) > 5


async def test_a_stop_cancelled_anywhere_still_stops(engine: LocalEngine) -> None:
    """The cancellation is raised when the browser and its folder are gone, not before."""
    handle = await engine.start("one", SHELL)
    stopping = asyncio.create_task(engine.stop(handle, grace=5))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    _nothing_is_left(engine.data_dir)


async def test_closing_ends_a_start_under_way(data_dir: Path) -> None:
    """A start that the engine's end overtakes fails, and nothing of it is left."""
    engine = LocalEngine(data_dir)
    await engine.open()
    starting = asyncio.create_task(engine.start("one", SessionOptions(user_agent="Chrome/1.0")))
    await until(lambda: living(data_dir), "a process")
    await engine.close()
    with pytest.raises(LaunchFailed):
        await starting
    _nothing_is_left(data_dir)


async def test_a_start_that_takes_too_long_fails(data_dir: Path) -> None:
    """Beyond `start_timeout` the start is given up, and says what to do."""
    engine = LocalEngine(data_dir, start_timeout=0.01)
    await engine.open()
    with pytest.raises(LaunchFailed, match=r"longer than 0\.01 s.*browsercloud doctor"):
        await engine.start("one", SHELL)
    _nothing_is_left(data_dir)
    await engine.close()


async def test_a_browser_that_dies_at_start_is_quoted(data_dir: Path) -> None:
    """What it said last is in the error, and nothing is left."""
    engine = LocalEngine(data_dir, headless_shell=sys.executable)
    await engine.open()
    with pytest.raises(LaunchFailed, match=r"exit code 2; last words: .*unknown option"):
        await engine.start("one", SHELL)
    _nothing_is_left(data_dir)
    await engine.close()


async def test_a_window_without_a_display_is_refused(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is started; the error names Xvfb."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(display, "PROGRAM", "no-Xvfb-here")
    with pytest.raises(LaunchFailed, match="Xvfb"):
        await engine.start("one", SessionOptions(headless=False))
    _nothing_is_left(engine.data_dir)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_a_death_from_outside_is_told_at_once(
    engine: LocalEngine, number: signal.Signals
) -> None:
    """`exited` and `poll` say how it ended; `stop` takes the children that outlived it."""
    handle = await engine.start("one", SessionOptions())
    process = engine._browsers["one"].process
    assert process is not None
    os.kill(process.mark.pid, number)
    end = await asyncio.wait_for(asyncio.shield(handle.exited), 5)
    assert end == await engine.poll(handle)
    if number is not signal.SIGTERM:  # which Chromium takes as a request
        assert number.name == end.signal
    await engine.stop(handle, grace=5)
    _nothing_is_left(engine.data_dir)


@pytest.mark.parametrize("grace", [0, 0.2])
async def test_a_browser_that_is_stopped_dead_is_ended(engine: LocalEngine, grace: float) -> None:
    """A process that hears nothing, all its children too, is killed once its grace is over."""
    handle = await engine.start("one", SHELL)
    for process in living(engine.data_dir):
        process.send_signal(signal.SIGSTOP)
    await asyncio.wait_for(engine.stop(handle, grace=grace), 5)
    assert "SIGKILL" == (await handle.exited).signal
    _nothing_is_left(engine.data_dir)


async def test_children_outlive_a_killed_browser_only_until_stop(engine: LocalEngine) -> None:
    """Children that are frozen when their browser is killed do not die with it, but with `stop`."""
    handle = await engine.start("one", SHELL)
    process = engine._browsers["one"].process
    assert process is not None
    for child in living(engine.data_dir):
        if child.pid != process.mark.pid:
            child.send_signal(signal.SIGSTOP)
    os.kill(process.mark.pid, signal.SIGKILL)
    await handle.exited
    assert [] != group.members(process.mark)
    await engine.stop(handle, grace=5)
    assert [] == group.members(process.mark)


async def test_a_folder_that_cannot_be_removed_is_reported(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stop` raises `OSError`, keeps the browser in `running`, and can be called again."""
    handle = await engine.start("one", SHELL)

    def refuse(folder: str) -> None:
        raise PermissionError(f"cannot remove {folder}")

    with monkeypatch.context() as patch:
        patch.setattr(group, "remove", refuse)
        with pytest.raises(PermissionError):
            await engine.stop(handle, grace=0)
    assert [] == living(engine.data_dir)
    assert {"one": handle} == engine.running()
    await engine.stop(handle, grace=0)
    assert {} == engine.running()


async def test_a_second_engine_is_refused(engine: LocalEngine) -> None:
    """A data folder in use is not shared; the error names it, and the first one works on."""
    with pytest.raises(UsageError, match=f"{engine.data_dir} is in use.*{os.getpid()}"):
        await LocalEngine(engine.data_dir).open()
    await engine.stop(await engine.start("one", SHELL), grace=0)


async def test_no_browser_at_all_is_an_error_at_open(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With neither kind the engine does not open, and says where it looked."""
    monkeypatch.setattr(find, "ON_PATH", dict.fromkeys(Browser, ()))
    monkeypatch.setattr(find, "WELL_KNOWN", {})
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(data_dir))
    engine = LocalEngine(data_dir)
    with pytest.raises(BrowserNotFound, match="browsercloud install") as caught:
        await engine.open()
    assert any(str(data_dir) in place for place in caught.value.looked)
    assert Lock(data_dir).try_acquire()


async def test_use_before_open_and_bad_ids_are_refused(engine: LocalEngine) -> None:
    """An engine that is not open starts nothing, and an id is no path."""
    with pytest.raises(UsageError, match="not open"):
        await LocalEngine(engine.data_dir).start("one", SHELL)
    with pytest.raises(UsageError, match="no session id"):
        await engine.start("../one", SHELL)


async def test_an_embedded_folder_goes_with_its_engine(root: Path) -> None:
    """Nothing of it is left after `close`, and its parent is for this user only."""
    engine = LocalEngine(embedded_data_dir())
    await engine.open()
    await engine.start("one", SHELL)
    assert 0o700 == stat.S_IMODE(engine.data_dir.parent.stat().st_mode)
    await engine.close()
    assert not engine.data_dir.exists()
    assert [] == living(root)


def test_an_embedded_folder_is_never_behind_a_link(root: Path) -> None:
    """Somebody else's link in the temporary folder is not followed."""
    (root / "elsewhere").mkdir()
    (root / f"browsercloud-{os.getuid()}").symlink_to(root / "elsewhere")
    with pytest.raises(UsageError, match="is a link"):
        embedded_data_dir()


def test_it_works_on_a_loop_in_another_thread(data_dir: Path) -> None:
    """The embedded server has a thread of its own: no signal handler, no child watcher."""
    ends: list[Any] = []

    async def run() -> None:
        engine = LocalEngine(data_dir)
        await engine.open()
        handle = await engine.start("one", SHELL)
        await engine.stop(handle, grace=5)
        ends.append(await handle.exited)
        await engine.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    thread.join(30)
    assert [0] == [end.exit_code for end in ends]


@contextmanager
def _embedding(folder: str, browser: Browser, count: int = 2) -> Iterator[tuple[int, Any]]:
    """A running program that embeds an engine: its pid and what it tells."""
    with subprocess.Popen(
        [sys.executable, EMBEDDING, folder, browser.value, str(count)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ) as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        try:
            yield process.pid, facts
        finally:
            for pid in (process.pid, facts["forked"]):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("browser", list(Browser))
async def test_nothing_outlives_a_killed_program(root: Path, browser: Browser) -> None:
    """Browsers, guard and folders follow it, though a forked child holds what it held."""
    with _embedding("-", browser) as (pid, facts):
        folder = Path(facts["folder"])
        assert [] != living(folder)
        os.kill(pid, signal.SIGKILL)
        await until(
            lambda: not living(folder) and not folder.exists() and not alive(facts["guard"]),
            "the end of browsers, folder and guard",
            timeout=5,
        )
        assert alive(facts["forked"])


async def test_a_killed_guard_is_replaced(
    engine: LocalEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Another guard takes over, knows everything, and the log tells."""
    await engine.start("one", SHELL)
    guard = engine._guard
    assert guard is not None
    first = guard.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    with caplog.at_level(logging.WARNING):
        await until(lambda: guard.pid not in (None, first), "another guard")
    assert "starting another" in caplog.text


@pytest.mark.parametrize("browser", list(Browser))
async def test_a_successor_sweeps_what_a_killed_server_left(
    data_dir: Path, browser: Browser
) -> None:
    """With server and guard killed, the next engine on the folder ends and removes everything."""
    with _embedding(str(data_dir), browser) as (pid, facts):
        os.kill(facts["guard"], signal.SIGSTOP)  # so that no other one is started
        os.kill(pid, signal.SIGKILL)
        os.kill(facts["guard"], signal.SIGKILL)
        assert [] != living(data_dir)
        engine = LocalEngine(data_dir)
        await engine.open()
        await engine.sweep()
        _nothing_is_left(data_dir)
        await engine.close()


async def test_an_embedded_engine_sweeps_dead_siblings_only(root: Path) -> None:
    """The folder of a dead program is gone at the latest when the engine is closed.

    That of a living program is not touched.
    """
    with _embedding("-", Browser.HEADLESS_SHELL, 1) as (pid, dead):
        os.kill(dead["guard"], signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        os.kill(dead["guard"], signal.SIGKILL)
        with _embedding("-", Browser.HEADLESS_SHELL, 1) as (_, other):
            engine = LocalEngine(embedded_data_dir())
            await engine.open()
            await engine.sweep()
            await engine.close()
            assert [] == living(Path(dead["folder"]))
            assert not Path(dead["folder"]).exists()
            assert [] != living(Path(other["folder"]))
        folder = Path(other["folder"])
        await until(lambda: not folder.exists(), "the guard's work")


@pytest.mark.parametrize("name", ["notes.txt", "sessions/2024/notes.txt"])
async def test_a_folder_with_other_things_is_refused(root: Path, name: str) -> None:
    """It is somebody's: nothing in it is removed, and its mode stays."""
    theirs = root / "theirs"
    (theirs / name).parent.mkdir(parents=True)
    (theirs / name).write_text("precious")
    theirs.chmod(0o755)
    with pytest.raises(UsageError, match="choose a new or an empty folder"):
        await LocalEngine(theirs).open()
    assert (theirs / name).read_text() == "precious"
    assert theirs.stat().st_mode & 0o777 == 0o755
    shutil.rmtree(theirs)


async def test_a_sweep_leaves_strangers_alone(root: Path) -> None:
    """In a data folder, what no engine has made is not swept."""
    strange = root / "data" / "sessions" / "2024"
    strange.mkdir(parents=True)
    (strange / "notes.txt").write_text("precious")
    (root / "data" / "secrets.json").write_text("{}")
    engine = LocalEngine(root / "data")
    await engine.open()
    await engine.sweep()
    await engine.close()
    assert (strange / "notes.txt").read_text() == "precious"
    shutil.rmtree(root / "data")
