"""When Playwright's driver, a Node process, starts and ends; `test_live` has what it is for."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from playwright._impl._driver import compute_driver_executable

from browsercloud import BrowserCloud, ConnectionFailed
from browsercloud import local as local_module
from browsercloud.client.adapters import playwright as adapter_module
from browsercloud.local import LocalServer
from browsercloud.testing import IdleEngine
from tests.cancelling import at_every_await
from tests.leaks import browsers
from tests.processes import drivers, until

Program = Callable[[str], None]


@pytest.fixture
def node(root: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Has Playwright run a shell script in place of its Node."""

    def run(script: str) -> None:
        program = root / "node"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PLAYWRIGHT_NODEJS_PATH", str(program))

    return run


async def test_open_does_not_wait_for_the_driver(root: Path, node: Program) -> None:
    """It starts with the client, is not waited for, and then serves the first session."""
    gate = root / "gate"
    real, _ = compute_driver_executable()
    node(f'until [ -e {gate} ]; do sleep 0.02; done\nexec {real} "$@"')
    async with BrowserCloud() as client:
        await until(drivers, "a driver that starts")
        assert not client.playwright.start().done()
        (first,) = drivers()
        gate.touch()
        async with client.session(browser="headless-shell") as session:
            assert await session.page.evaluate("1 + 1") == 2
            assert [first] == drivers()
    assert [] == drivers()


async def test_closed_at_once() -> None:
    """A client that is closed while its driver starts leaves none."""
    async with BrowserCloud():
        pass
    assert [] == drivers()


async def test_cancelled_while_opening() -> None:
    """Opening, cancelled at any await, leaves no driver."""

    async def whole() -> None:
        async with BrowserCloud():
            pass

    async def nothing() -> None:
        assert [] == drivers()

    assert await at_every_await(whole, nothing) >= 2


async def test_a_driver_that_hangs_is_ended(node: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that never answers does not outlive its client, and does not hold it up for long."""
    monkeypatch.setattr(adapter_module, "START_PATIENCE", 0.2)
    node("exec sleep 1000 # $@")
    async with BrowserCloud() as client:
        sleeper = Path("/bin/sleep").resolve().name
        await until(lambda: _children_named(sleeper), "a driver that hangs")
        assert not client.playwright.start().done()
    assert [] == _children_named(sleeper)


def _children_named(name: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.name() == name and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


@pytest.mark.parametrize("broken", ["exit 1", None])
async def test_a_broken_driver_fails_where_it_is_used(
    node: Program,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str | None,
) -> None:
    """Opening and `sessions` work without one; `session()` says what is wrong, each time."""
    if broken is None:
        monkeypatch.setenv("PLAYWRIGHT_NODEJS_PATH", str(root / "nothing"))
    else:
        node(broken)
    async with BrowserCloud() as client:
        made = await client.sessions.create(browser="headless-shell")
        await client.sessions.release(made.id)
        for _ in range(2):
            with pytest.raises(ConnectionFailed, match="driver does not start.*playwright"):
                async with client.session(browser="headless-shell"):
                    pass
        assert all(session.release_reason for session in (await client.sessions.list()).sessions)
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_a_server_elsewhere_needs_a_driver_for_live_sessions_only() -> None:
    """A client with a URL that makes and lists sessions never starts one."""
    async with (
        LocalServer(engine=IdleEngine()) as server,
        BrowserCloud(server.url, api_key=server.api_key) as client,
    ):
        made = await client.sessions.create()
        await client.sessions.list()
        await client.sessions.release(made.id)
        assert client.playwright._starting is None
        assert [] == drivers()


async def test_the_first_browser_does_not_wait_for_the_server(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedded cloud starts a browser while the server's modules are still being loaded."""
    seen: list[int] = []

    def slowly(name: str) -> ModuleType:
        end = time.monotonic() + 10
        while not browsers(root) and time.monotonic() < end:
            time.sleep(0.01)
        seen.append(len(browsers(root)))
        return import_module(name)

    monkeypatch.setattr(local_module, "load", slowly)
    async with BrowserCloud(pool=1):
        assert [1] == seen
