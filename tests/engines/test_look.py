"""Look and place: what every page of a session is told, seen from inside and from the far end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from browsercloud.browser import launch
from browsercloud.cdp.connection import CdpConnection
from browsercloud.cdp.window import wait_for_page
from browsercloud.context import SessionContext
from browsercloud.engines.base import BrowserHandle
from browsercloud.engines.local import LocalEngine
from browsercloud.errors import LaunchFailed
from browsercloud.options import Dimensions, SessionOptions
from browsercloud.wanted import Coordinates, Device, Permission
from tests.conftest import Site
from tests.killing import evaluate, go, nothing_is_left
from tests.processes import until

SPEAKS = """({
    languages: navigator.languages.join(), locale: Intl.DateTimeFormat().resolvedOptions().locale,
    number: (1234.5).toLocaleString(), zone: Intl.DateTimeFormat().resolvedOptions().timeZone,
    mobile: navigator.userAgentData.mobile, agent: navigator.userAgent,
})"""
PAGE = f"""<!doctype html><meta name=viewport content="width=device-width">
<script>var first = {{...{SPEAKS}, kept: sessionStorage.getItem('kept')}}</script>"""
WORKER = f"fetch('/from-worker').then(() => postMessage({SPEAKS}))"
MAY = """(async () => [
    (await navigator.permissions.query({name: 'camera'})).state,
    await new Promise(done => navigator.geolocation.getCurrentPosition(
        at => done([at.coords.latitude, at.coords.longitude, at.coords.accuracy]),
        no => done(no.message)))])()"""
PHONE = """[innerWidth, innerHeight, outerWidth, screen.width, screen.height, devicePixelRatio,
    navigator.maxTouchPoints, 'ontouchstart' in window, matchMedia('(pointer: coarse)').matches,
    matchMedia('(hover: none)').matches, screen.orientation.type, navigator.userAgentData.mobile,
    /Android.*Mobile/.test(navigator.userAgent)]"""
OPTIONS = SessionOptions(
    geo_location="IN",
    locale="de-de",
    extra_headers={"X-Key": "from the far end"},
    permissions=(Permission.CAMERA,),
)
TOLD = {
    "languages": "de-DE,de,en-US,en",
    "locale": "de-DE",
    "number": "1.234,5",
    "zone": "Asia/Calcutta",
    "mobile": False,
}
ACCEPTED = "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7"
PATHS = ("/first", "/tab", "/popup", "/stranger", "/frame", "/other", "/client")


@pytest.fixture
def world(site: Site) -> Site:
    """A site that serves under two names, which are two sites to a browser."""
    site.pages |= dict.fromkeys(PATHS, PAGE) | {"/from-worker": ""}
    site.scripts["/worker.js"] = WORKER
    return site


def _strange(site: Site, path: str) -> str:
    return f"{site.url}{path}".replace("localhost", "127.0.0.1")


@pytest_asyncio.fixture(params=["fresh", "pooled"])
async def engine(root: Path, request: pytest.FixtureRequest) -> AsyncIterator[LocalEngine]:
    """An engine whose next browser is started for the session, or was started before."""
    pooled = request.param == "pooled"
    engine = LocalEngine(root / "data", pool_size=1 if pooled else 0)
    await engine.open()
    await engine.sweep()
    if pooled:
        assert engine._pool is not None
        pool = engine._pool
        await until(lambda: pool._spares, "a browser ahead", timeout=30)
    yield engine
    await engine.close()
    nothing_is_left(root / "data")


AGAIN_WITHIN = 2.0
"""Seconds until a page is as before when a popup of its process has gone."""


async def _everywhere(handle: BrowserHandle, site: Site) -> dict[str, Any]:
    """What every kind of place says of itself, as its own first script saw it."""
    async with async_playwright() as playwright:
        attached = await playwright.chromium.connect_over_cdp(handle.endpoint)
        context = attached.contexts[0]
        page = context.pages[0]
        await page.goto(f"{site.url}/first")
        told = {"first": await page.evaluate("first")}
        for name, url in {
            "popup": f"{site.url}/popup",
            "stranger": _strange(site, "/stranger"),
        }.items():
            async with page.expect_popup() as opening:
                await page.evaluate("url => void open(url)", url)
            popup = await opening.value
            await popup.wait_for_url(url)
            told[name] = await popup.evaluate("first")
            await popup.close()
        end = asyncio.get_running_loop().time() + AGAIN_WITHIN
        while TOLD["locale"] != (await page.evaluate(SPEAKS))["locale"]:
            assert asyncio.get_running_loop().time() < end
        told["opener"] = await page.evaluate(SPEAKS)
        frame = await _frame(page, _strange(site, "/frame"))
        told["frame"] = await frame.evaluate("first")
        work = "new Promise(done => new Worker('/worker.js').onmessage = e => done(e.data))"
        told["worker"] = await page.evaluate(work)
        tab = await context.new_page()
        await tab.goto(f"{site.url}/tab")
        told["tab"] = await tab.evaluate("first")
        other = await (await attached.new_context()).new_page()
        await other.goto(f"{site.url}/other")
        told["other"] = await other.evaluate("first")
        assert await other.evaluate(MAY) == await page.evaluate(MAY)
        await other.context.close()
        await page.bring_to_front()
        await tab.close()
        await attached.close()
    told["client"] = await _own_tab(handle.endpoint, f"{site.url}/client")
    return told


async def _frame(page: Any, url: str) -> Any:
    add = "url => document.body.append(Object.assign(document.createElement('iframe'), {src: url}))"
    await page.evaluate(add, url)
    frame = page.frames[-1]
    await frame.wait_for_url(url)
    return frame


async def _may(endpoint: str) -> Any:
    """What the first page may do: only one that is seen is told where it is."""
    async with await CdpConnection.open(endpoint) as cdp:
        attached = await cdp.send(
            "Target.attachToTarget", {"targetId": await wait_for_page(cdp), "flatten": True}
        )
        await cdp.send("Page.bringToFront", cdp_session_id=attached["sessionId"])
        return await evaluate(endpoint, MAY)


async def _own_tab(endpoint: str, url: str) -> Any:
    """What a page says that another client of CDP has opened."""
    async with await CdpConnection.open(endpoint) as cdp:
        target = await cdp.send("Target.createTarget", {"url": "about:blank"})
        attached = await cdp.send("Target.attachToTarget", {**target, "flatten": True})
        await cdp.send("Page.enable", cdp_session_id=attached["sessionId"])
        await cdp.send("Page.navigate", {"url": url}, attached["sessionId"])
        asked = {"expression": "window.first", "returnByValue": True}
        while True:
            answer = await cdp.send("Runtime.evaluate", asked, attached["sessionId"])
            if "value" in answer["result"]:
                await cdp.send("Target.closeTarget", target)
                return answer["result"]["value"]
            await asyncio.sleep(0.02)


def _sent(site: Site, path: str) -> dict[str, str]:
    headers = [headers for seen, headers in site.seen if seen == path][-1]
    return {name.lower(): value for name, value in headers.items()}


async def test_every_page_is_in_the_same_place(engine: LocalEngine, world: Site) -> None:
    """Language, numbers, clock and headers agree everywhere, also after a takeover."""
    kept = SessionContext(session_storage={world.url: {"kept": "in the tab"}})
    options = attrs.evolve(OPTIONS, session_context=kept)
    handle = await engine.start("one", options)
    told = await _everywhere(handle, world)
    assert {"first", "opener", "worker", *(path[1:] for path in PATHS)} == set(told)
    for where, said in told.items():
        assert TOLD == {name: said[name] for name in TOLD}, where
        assert handle.user_agent == said["agent"], where
    for path in (*PATHS, "/worker.js", "/from-worker"):
        sent = _sent(world, path)
        assert (ACCEPTED, "from the far end") == (sent["accept-language"], sent["x-key"]), path
        assert handle.user_agent == sent["user-agent"]
    assert ["granted", [22.5333, 88.3667, 1000]] == await _may(handle.endpoint)
    async with _taken_over(engine, options) as again:
        told["again"] = await _again(again, world)
        assert TOLD == {name: told["again"][name] for name in TOLD}
        assert "in the tab" == told["first"]["kept"] == told["again"]["kept"]
        assert "from the far end" == _sent(world, "/tab")["x-key"]
        assert "granted" == (await _may(handle.endpoint))[0]
    await engine.stop(handle, grace=2)


AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/150.0.0.0 Safari/537.36"
)
NAMED = "[navigator.userAgent, navigator.appVersion, navigator.platform]"
SHARED = f"""const first = {{...{SPEAKS}, named: {NAMED}}};
    onconnect = event => event.ports[0].postMessage(first);
    oninstall = () => skipWaiting();
    onmessage = event => fetch('/from-worker').then(() => event.source.postMessage(first))"""
ASKED = """(async () => [
    await new Promise(done => new SharedWorker('/shared.js').port.onmessage = e => done(e.data)),
    await navigator.serviceWorker.register('/shared.js').then(() => navigator.serviceWorker.ready)
        .then(one => new Promise(done => {
            navigator.serviceWorker.onmessage = e => done(e.data);
            one.active.postMessage('')})),
])()"""


async def test_workers_of_many_pages_tell_the_same(engine: LocalEngine, world: Site) -> None:
    """A shared worker and a service worker, from their first line; what they ask for as well."""
    world.scripts["/shared.js"] = SHARED
    options = attrs.evolve(OPTIONS, user_agent=AGENT)
    handle = await engine.start("one", options)
    await go(handle.endpoint, f"{world.url}/first")
    for told in await evaluate(handle.endpoint, ASKED):
        assert TOLD == {name: told[name] for name in TOLD}
        assert [AGENT, AGENT.partition("/")[2], "Win32"] == told["named"]
    sent = _sent(world, "/from-worker")
    assert (AGENT, ACCEPTED) == (sent["user-agent"], sent["accept-language"])
    assert "from the far end" == sent["x-key"]
    await engine.stop(handle, grace=2)


async def _again(handle: launch.Launched, site: Site) -> Any:
    site.seen.clear()
    return await _own_tab(handle.endpoint, f"{site.url}/tab")


@contextlib.asynccontextmanager
async def _taken_over(
    engine: LocalEngine, options: SessionOptions
) -> AsyncIterator[launch.Launched]:
    """The browser with everything that held its look gone, adopted as by a later server."""
    running = engine._browsers["one"]
    assert running.launched is not None
    assert running.launched.overrides is not None
    await running.launched.overrides.close()
    mark = running.launched.process.mark
    adopted = await launch.adopt(options, "one", mark, running.launched.endpoint)
    try:
        yield adopted
    finally:
        assert adopted.overrides is not None
        await adopted.overrides.close()
        adopted.process.let_go()


async def test_a_phone_is_one_everywhere(engine: LocalEngine, world: Site) -> None:
    """Touch, size, density, media queries, agent and hints; with a given size too."""
    for number, size in enumerate((None, Dimensions(360, 740))):
        options = SessionOptions(device=Device.MOBILE, dimensions=size)
        handle = await engine.start(f"s{number}", options)
        assert "Android" in handle.user_agent
        width, height = options.size.width, options.size.height
        phone = [width, height, width, width, height, 2.625, 5, True, True, True]
        await go(handle.endpoint, f"{world.url}/first")
        mobile = ["portrait-primary", True, True]
        assert [*phone, *mobile] == await evaluate(handle.endpoint, PHONE)
        sent = _sent(world, "/first")
        assert ("?1", '"Android"') == (sent["sec-ch-ua-mobile"], sent["sec-ch-ua-platform"])
        assert handle.user_agent == sent["user-agent"]
        hints = await evaluate(
            handle.endpoint,
            "navigator.userAgentData.getHighEntropyValues(['model', 'fullVersionList'])",
        )
        assert hints["model"]
        assert any(one["version"].count(".") == 3 for one in hints["fullVersionList"])
        said = await _own_tab(handle.endpoint, f"{world.url}/client")
        assert (True, handle.user_agent) == (said["mobile"], said["agent"])
        async with async_playwright() as playwright:
            attached = await playwright.chromium.connect_over_cdp(handle.endpoint)
            page = attached.contexts[0].pages[0]
            frame = await _frame(page, _strange(world, "/frame"))
            touched = await frame.evaluate(PHONE)
            assert [5, True, True, True, True, True] == [*touched[6:10], *touched[11:]]
            assert handle.user_agent == _sent(world, "/frame")["user-agent"]
            async with page.expect_popup() as opening:
                await page.evaluate("url => void open(url)", _strange(world, "/popup"))
            popup = await opening.value
            await popup.wait_for_url("**/popup")
            assert [*phone, *mobile] == await popup.evaluate(PHONE)
            await attached.close()
        await engine.stop(handle, grace=0)


async def test_coordinates_alone_change_nothing_else(root: Path, world: Site) -> None:
    """A point is where pages are; language and clock stay the machine's."""
    engine = LocalEngine(root / "data")
    await engine.open()
    plain = await engine.start("plain", SessionOptions())
    at = Coordinates(latitude=48.2, longitude=16.4)
    handle = await engine.start("one", SessionOptions(geo_location=at))
    for each in (plain, handle):
        await go(each.endpoint, f"{world.url}/first")
    assert ["prompt", [48.2, 16.4, 20]] == await evaluate(handle.endpoint, MAY)
    assert await evaluate(plain.endpoint, SPEAKS) == await evaluate(handle.endpoint, SPEAKS)
    await engine.close()


async def test_the_first_page_is_there(engine: LocalEngine, world: Site) -> None:
    """With the look of the session already; one that cannot be had fails the start by name."""
    options = attrs.evolve(OPTIONS, start_url=f"{world.url}/first?token=secret")
    handle = await engine.start("one", options)
    assert "/first?token=secret" == await evaluate(
        handle.endpoint, "location.pathname + location.search"
    )
    assert ACCEPTED == _sent(world, "/first?token=secret")["accept-language"]
    await engine.stop(handle, grace=0)
    nowhere = SessionOptions(start_url="http://127.0.0.1:9/x?token=secret")
    with pytest.raises(LaunchFailed, match=r"startUrl: .*ERR_") as caught:
        await engine.start("two", nowhere)
    assert "secret" not in str(caught.value)
    assert "two" not in engine._browsers
