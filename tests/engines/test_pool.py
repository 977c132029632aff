"""Browsers that a local engine starts ahead, with real ones."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from browsercloud.browser import warm
from browsercloud.browser.warm import Kind
from browsercloud.cdp.connection import CdpConnection
from browsercloud.engines.local import LocalEngine
from browsercloud.options import Browser, Dimensions, SessionOptions
from tests.cancelling import at_every_await
from tests.conftest import Site
from tests.killing import GRACE, evaluate, go, gone, killed, nothing_is_left
from tests.processes import alive, living, until

AGENT = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/131.0.0.0 Safari/537.36"
FULL = SessionOptions()
SHELL = SessionOptions(browser=Browser.HEADLESS_SHELL)

WINDOW = """[
    innerWidth, innerHeight, outerWidth, outerHeight, screen.width, screen.height,
    screen.availWidth, screen.availHeight, screenX, screenY, devicePixelRatio,
]"""
TOLD = f"""(async () => [
    ...{WINDOW}, navigator.userAgent, navigator.platform, navigator.language, navigator.languages,
    navigator.webdriver, navigator.hardwareConcurrency, document.visibilityState,
    JSON.stringify(navigator.userAgentData), Intl.DateTimeFormat().resolvedOptions().timeZone,
    matchMedia('(prefers-color-scheme: dark)').matches,
])()"""
UNUSED = """(async () => [
    location.href, history.length, document.cookie, document.referrer, localStorage.length,
    sessionStorage.length, (await indexedDB.databases()).length, (await caches.keys()).length,
    (await navigator.serviceWorker.getRegistrations()).length,
    (await navigator.permissions.query({name: 'geolocation'})).state,
    (await navigator.permissions.query({name: 'notifications'})).state,
])()"""


@pytest.fixture
def data_dir(root: Path) -> Path:
    """A folder for an engine."""
    return root / "data"


@pytest_asyncio.fixture
async def engine(data_dir: Path) -> AsyncIterator[LocalEngine]:
    """An engine that keeps one browser ahead; afterwards nothing may be left."""
    engine = LocalEngine(data_dir, pool_size=1)
    await engine.open()
    await engine.sweep()
    yield engine
    await engine.close()
    nothing_is_left(data_dir)


async def _ahead(engine: LocalEngine, kind: Browser = Browser.CHROMIUM) -> int:
    """Wait for a browser of this kind in the pool; its process id."""

    def found() -> list[int]:
        spares = [] if engine._pool is None else engine._pool._spares
        return [_pid(one.browser) for one in spares if one.kind == Kind(kind)]

    await until(found, "a browser ahead", timeout=30)
    return found()[0]


def _pid(running: Any) -> int:
    pid: int = running.process.mark.pid
    return pid


async def test_it_is_taken_once_and_replaced(engine: LocalEngine, data_dir: Path) -> None:
    """Each session gets one that was there before, and it ends with its session."""
    pids = []
    for number in range(3):
        pids.append(await _ahead(engine))
        handle = await engine.start(f"s{number}", FULL)
        assert pids[-1] == _pid(engine._browsers[f"s{number}"])
        assert handle.session_id == f"s{number}"
        assert await engine.poll(handle) is None
    assert 3 == len(set(pids))
    assert {"s0", "s1", "s2"} == set(engine.running())
    await engine.stop(engine.running()["s0"], grace=2)
    assert not alive(pids[0])
    assert [True, True] == [alive(pid) for pid in pids[1:]]


@pytest.mark.parametrize("browser", list(Browser))
async def test_nobody_has_used_it(data_dir: Path, site: Site, browser: Browser) -> None:
    """One blank page without a past; no cookie, storage, worker or permission of any site."""
    engine = LocalEngine(data_dir, pool_size=1)
    await engine.open()
    options = SessionOptions(browser=browser)
    if browser is Browser.HEADLESS_SHELL:
        await engine.stop(await engine.start("first", options), grace=0)
    pid = await _ahead(engine, browser)
    handle = await engine.start("one", options)
    assert pid == _pid(engine._browsers["one"])
    async with await CdpConnection.open(handle.endpoint) as cdp:
        targets = (await cdp.send("Target.getTargets"))["targetInfos"]
        assert [("page", "about:blank", False)] == [
            (one["type"], one["url"], one["attached"]) for one in targets
        ]
        session = await cdp.send(
            "Target.attachToTarget", {"targetId": targets[0]["targetId"], "flatten": True}
        )
        past = await cdp.send("Page.getNavigationHistory", cdp_session_id=session["sessionId"])
        assert ["about:blank"] == [entry["url"] for entry in past["entries"]]
        assert [] == (await cdp.send("Storage.getCookies"))["cookies"]
    assert 1 == await evaluate(handle.endpoint, "history.length")
    assert [] == await evaluate(handle.endpoint, "Object.keys(window).filter(n => n == 'done')")
    await go(handle.endpoint, f"{site.url}/")
    fresh = LocalEngine(data_dir.parent / "fresh")
    await fresh.open()
    other = await fresh.start("other", options)
    await go(other.endpoint, f"{site.url}/")
    seen = await evaluate(handle.endpoint, UNUSED)
    assert [f"{site.url}/", 0, 0, 0, 0, 0] == [seen[0], *seen[4:9]]
    assert await evaluate(other.endpoint, UNUSED) == seen
    await fresh.close()
    await engine.close()


@pytest.mark.parametrize(
    "options",
    [
        FULL,
        SessionOptions(dimensions=Dimensions(1000, 600)),
        SessionOptions(dimensions=Dimensions(1920, 1080)),
        SessionOptions(dimensions=Dimensions(400, 300)),
        SessionOptions(user_agent=AGENT),
        SessionOptions(user_agent=AGENT, dimensions=Dimensions(800, 500)),
        SessionOptions(browser=Browser.HEADLESS_SHELL, user_agent=AGENT),
        SessionOptions(browser=Browser.HEADLESS_SHELL, dimensions=Dimensions(1920, 1080)),
    ],
    ids=["plain", "smaller", "larger", "narrow", "agent", "both", "shell", "larger shell"],
)
async def test_options_make_it_the_same_as_a_fresh_one(
    data_dir: Path, site: Site, options: SessionOptions
) -> None:
    """A page finds the same window, screen and agent, and so does a server; new tabs too."""
    fresh, pooled = LocalEngine(data_dir), LocalEngine(data_dir.parent / "pooled", pool_size=1)
    await fresh.open()
    await pooled.open()
    if options.browser is Browser.HEADLESS_SHELL:
        await pooled.stop(await pooled.start("first", SHELL), grace=0)
    pid = await _ahead(pooled, options.browser)
    told = []
    for engine in (fresh, pooled):
        handle = await engine.start("one", options)
        here = [
            handle.user_agent,
            await evaluate(handle.endpoint, WINDOW),
            await _tab(handle, options),
        ]
        await go(handle.endpoint, f"{site.url}/")
        here.append(await evaluate(handle.endpoint, TOLD))
        sent = [headers for path, headers in site.seen if path == "/"][-1]
        headers = {name.lower(): value for name, value in sent.items()}
        told.append([*here, headers])
    assert pid == _pid(pooled._browsers["one"])
    assert told[0] == told[1]
    assert [options.size.width, options.size.height] == told[1][1][:2]
    await fresh.close()
    await pooled.close()


async def _tab(handle: Any, options: SessionOptions) -> Any:
    """What a new tab says of its size, once that is the one asked for; it is closed again."""
    async with await CdpConnection.open(handle.endpoint) as cdp:
        target = await cdp.send("Target.createTarget", {"url": "about:blank"})
        attached = await cdp.send("Target.attachToTarget", {**target, "flatten": True})
        # Only the page's own scripts wait for the overrides; another driver need not.
        there = f"innerWidth == {options.size.width} && done()"
        ready = f"new Promise(done => setInterval(() => {there}, 10))"
        asked = {"returnByValue": True, "awaitPromise": True}
        answer = await cdp.send(
            "Runtime.evaluate",
            {"expression": f"{ready}.then(() => {WINDOW})", **asked},
            attached["sessionId"],
        )
        await cdp.send("Target.closeTarget", target)
        while len((await cdp.send("Target.getTargets"))["targetInfos"]) > 1:
            await asyncio.sleep(0.01)  # closing is answered before the tab is gone
        return answer["result"].get("value")


async def test_further_windows_get_the_size_too(engine: LocalEngine) -> None:
    """One that opens in the size the browser was started with gets that of the session."""
    await _ahead(engine)
    handle = await engine.start("one", SessionOptions(dimensions=Dimensions(1000, 600)))
    async with await CdpConnection.open(handle.endpoint) as cdp:
        context = await cdp.send("Target.createBrowserContext")
        target = await cdp.send("Target.createTarget", {"url": "about:blank", **context})
        bounds: dict[str, Any] = {}
        for _ in range(200):
            bounds = (await cdp.send("Browser.getWindowForTarget", target))["bounds"]
            if bounds["width"] != 1280:
                break
            await asyncio.sleep(0.01)
        assert (1000, 687) == (bounds["width"], bounds["height"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_dead_one_is_not_handed_out(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Neither one that has ended nor one that does not answer; the start succeeds all the same."""
    monkeypatch.setattr(warm, "SIGN_OF_LIFE", 0.1)
    pid = await _ahead(engine)
    os.kill(pid, number)
    handle = await engine.start("one", FULL)
    assert pid != _pid(engine._browsers["one"])
    assert 1 == await evaluate(handle.endpoint, "history.length")
    await until(lambda: not alive(pid), "the end of the useless one")


async def test_the_first_start_takes_the_launch_under_way(
    engine: LocalEngine, data_dir: Path
) -> None:
    """No second browser is started for who comes before the first is ready."""
    assert engine._pool is not None
    await until(lambda: engine._pool._launches, "the launch")  # type: ignore[union-attr]
    await engine.start("one", FULL)
    assert engine._browsers["one"].folder.name.startswith("ahead-")


async def test_a_full_engine_has_none_ahead(data_dir: Path) -> None:
    """Running browsers and those ahead are never more than there is room for."""
    engine = LocalEngine(data_dir, pool_size=2, max_sessions=2)
    await engine.open()
    await _ahead(engine)
    await until(lambda: len(engine._pool or ()) == 2, "two ahead", timeout=30)
    await engine.start("one", SHELL)
    assert engine._pool is not None
    assert len(engine._pool) <= 1
    await engine.start("two", SHELL)
    assert 0 == len(engine._pool)
    await until(lambda: _leaders(data_dir) == 2, "the end of those ahead")
    await asyncio.sleep(0.3)
    assert 2 == _leaders(data_dir)
    await engine.close()
    nothing_is_left(data_dir)


def _leaders(folder: Path) -> int:
    """How many browsers run below *folder*."""

    def leads(process: psutil.Process) -> bool:
        try:
            words = process.cmdline()
        except psutil.Error:
            return False
        return not any(word.startswith("--type=") for word in words) and "--no-pings" in words

    return sum(leads(process) for process in living(folder))


async def test_a_cancelled_start_gives_nothing_away_twice(
    engine: LocalEngine, data_dir: Path
) -> None:
    """Cancelled anywhere, what it had taken has ended, and the next session gets another one."""
    seen: list[int] = []

    async def start() -> None:
        await _ahead(engine)
        handle = await engine.start("one", FULL)
        seen.append(_pid(engine._browsers["one"]))
        await engine.stop(handle, grace=0)

    async def nothing_is_held() -> None:
        assert [] == [one for one in engine._browsers.values() if not one.spare]

    await at_every_await(start, nothing_is_held, every=4)
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("guard", [False, True])
async def test_after_a_kill_taken_ones_are_adopted_and_the_others_end(
    data_dir: Path, guard: bool
) -> None:
    """A successor gets those that sessions have, with their folders; the rest is swept."""
    facts = killed(data_dir, browser=Browser.CHROMIUM, guard=guard, more=["pool"])
    folders = {name: state["folder"] for name, state in facts["states"].items()}
    assert folders["s0"].startswith("ahead-")
    assert facts["ahead"][0] not in folders.values()
    engine = LocalEngine(data_dir, orphan_grace=GRACE, pool_size=0)
    await engine.open()
    handle = await engine.restore("s0", FULL, facts["states"]["s0"])
    assert handle is not None
    await engine.sweep()
    assert [folders["s0"]] == os.listdir(data_dir / "sessions")
    assert 1 == _leaders(data_dir)
    assert 1 == await evaluate(handle.endpoint, "history.length")
    assert facts["states"]["s0"] == json.loads(json.dumps(dict(handle.state)))
    await engine.stop(handle, grace=2)
    nothing_is_left(data_dir)
    await engine.close()


async def test_without_grace_a_kill_leaves_nothing(data_dir: Path) -> None:
    """Taken or not."""
    facts = killed(data_dir, 0, browser=Browser.CHROMIUM, more=["pool"])
    assert facts["ahead"]
    await gone(data_dir, 5)


async def test_closing_ends_what_is_ahead_and_under_way(data_dir: Path) -> None:
    """At any moment of the first launch."""
    for pause in (0.0, 0.02, 0.1, 0.3, 1.0):
        engine = LocalEngine(data_dir, pool_size=2)
        await engine.open()
        await asyncio.sleep(pause)
        await engine.close()
        nothing_is_left(data_dir)
