"""A window where there is no display: each session has an X server of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from browsercloud.browser import group
from browsercloud.browser.display import NOTE
from browsercloud.engines.local import LocalEngine
from browsercloud.options import Dimensions, SessionOptions
from tests.killing import evaluate, nothing_is_left
from tests.processes import alive, until

SIZES = "[innerWidth, innerHeight, outerWidth, screen.width, screen.height > outerHeight]"


@pytest_asyncio.fixture
async def engine(root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalEngine]:
    """An engine on a machine without a display."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    engine = LocalEngine(root / "data")
    await engine.open()
    yield engine
    await engine.close()
    nothing_is_left(root / "data")


def _screen(engine: LocalEngine, name: str) -> tuple[Path, int]:
    """Socket and process of the session's X server."""
    note = engine._browsers[name].folder / NOTE
    number, pid = note.read_text().split()
    return Path(f"/tmp/.X11-unix/X{number}"), int(pid)


def _still_there(socket: Path, pid: int) -> bool:
    """Whether it has left something; its number may have another owner by now."""
    there, lock = socket.exists(), Path(f"/tmp/.{socket.name}-lock")
    owner = int(lock.read_text()) if lock.exists() else None
    return owner == pid or (there and (owner is None or not alive(owner)))


async def test_two_windows_have_two_screens(engine: LocalEngine) -> None:
    """Of the right size, closed to others, and gone with their sessions."""
    sizes = {"one": Dimensions(1280, 720), "two": Dimensions(1000, 600)}
    handles = {}
    for name, size in sizes.items():
        options = SessionOptions(headless=False, dimensions=size)
        handles[name] = await engine.start(name, options)
        told = await evaluate(handles[name].endpoint, SIZES)
        assert [size.width, size.height, size.width, size.width, True] == told
        agent = await evaluate(handles[name].endpoint, "navigator.userAgent")
        assert "Headless" not in agent
    screens = {name: _screen(engine, name) for name in sizes}
    assert 2 == len(set(screens.values()))
    assert 0o600 == (engine._browsers["one"].folder / "xauthority").stat().st_mode & 0o777
    await engine.stop(handles["one"], grace=2)
    await engine.stop(handles["two"], grace=0)
    for socket, pid in screens.values():
        assert not alive(pid)
        assert not _still_there(socket, pid)


async def test_the_guard_ends_the_screen_too(engine: LocalEngine) -> None:
    """As it knows it by the session's folder, whatever became of the server."""
    handle = await engine.start("one", SessionOptions(headless=False))
    socket, pid = _screen(engine, "one")
    folder = str(engine._browsers["one"].folder)
    watched = group.Watched()
    watched.folders["one"] = folder
    await asyncio.to_thread(watched.clear, ["one"])
    await until(lambda: handle.exited.done() and not alive(pid), "the end of both")
    assert not _still_there(socket, pid)
    assert not Path(folder).exists()
    await engine.stop(handle, grace=0)


async def test_a_screen_that_dies_takes_its_browser_along(engine: LocalEngine) -> None:
    """The session ends as one whose browser has crashed, and nothing stays."""
    handle = await engine.start("one", SessionOptions(headless=False))
    _, pid = _screen(engine, "one")
    process = group.look(pid)
    assert process is not None
    group.send(process, group.signal.SIGKILL)
    await until(handle.exited.done, "the end of the browser", timeout=10)
    await engine.stop(handle, grace=0)
