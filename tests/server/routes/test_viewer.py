"""The live viewer: what people see of a session, and what they do to it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType
from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from playwright.async_api import Error as PlaywrightError

from browsercloud.cdp.connection import CdpConnection
from browsercloud.cdp.screencast import Screencast
from browsercloud.server import viewer
from tests.conftest import Site
from tests.server.conftest import BODY, KEY, Cloud, until

WITHIN = 10.0
SHOP = """<!doctype html><title>Shop</title><body style="margin:0;height:3000px">
<input style="position:absolute;left:20px;top:20px;width:300px;height:40px">
<button style="position:absolute;left:20px;top:100px;width:200px;height:60px"
  onclick="document.title = 'bought'" ondblclick="document.title = 'twice'">Buy</button>
<div style="position:absolute;left:20px;top:200px;width:300px;height:200px;background:red"
  ontouchend="document.title = event.changedTouches.length + ' touched'"></div>"""


class Watcher:
    """A viewer without a page: what the socket says."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.frames: list[bytes] = []
        self.told: list[BODY] = []
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.ws:
            if message.type is WSMsgType.BINARY:
                self.frames.append(message.data)
            else:
                self.told.append(json.loads(message.data))

    def last(self, kind: str) -> BODY:
        """The last message of this type; empty if there was none."""
        return next((one for one in reversed(self.told) if one["type"] == kind), {})

    @property
    def shown(self) -> BODY:
        """The tab that is shown."""
        view = self.last("view")
        return next((tab for tab in view.get("tabs", ()) if tab["id"] == view["shown"]), {})


@asynccontextmanager
async def watching(cloud: Cloud, record: BODY, **query: str) -> AsyncIterator[Watcher]:
    """A viewer that has its first picture."""
    token = query.pop("token", str(record["sessionViewerUrl"]).partition("token=")[2])
    params = {"token": token, **query}
    address = f"{cloud.url}/v1/sessions/{record['id']}/viewer/ws"
    async with cloud.http.ws_connect(address, params=params, max_msg_size=0) as ws:
        watcher = Watcher(ws)
        await until(lambda: bool(watcher.frames), WITHIN)
        yield watcher
        await ws.close()
        await watcher.reading


@asynccontextmanager
async def driving(record: BODY) -> AsyncIterator[BrowserContext]:
    """The session's own context, by Playwright."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(record["websocketUrl"])
        try:
            yield browser.contexts[0]
        finally:
            await browser.close()


@pytest.fixture
async def onlooker(real_cloud: Cloud) -> AsyncIterator[Browser]:
    """A person's browser: another session, driven by Playwright."""
    record = await real_cloud.create(browser="headless-shell")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(record["websocketUrl"])
        try:
            yield browser
        finally:
            await browser.close()


def screencasts(cloud: Cloud) -> int:
    """How many run."""
    return len(cloud.parts.screencasts)


@pytest.mark.parametrize("kind", ["chromium", "headless-shell"])
async def test_the_picture_follows(real_cloud: Cloud, site: Site, kind: str) -> None:
    """A first picture of a still page, new ones as it changes, the tab in front, the new size."""
    record = await real_cloud.create(browser=kind, dimensions={"width": 800, "height": 600})
    async with watching(real_cloud, record) as watcher, driving(record) as context:
        assert watcher.frames[0].startswith(b"\xff\xd8\xff")
        assert (800, 600) == (watcher.last("size")["width"], watcher.last("size")["height"])
        first = context.pages[0]
        seen = len(watcher.frames)
        await first.goto(site.url)
        await until(lambda: len(watcher.frames) > seen, WITHIN)
        await until(lambda: watcher.shown.get("title") == "Home", WITHIN)
        assert watcher.shown["url"] == f"{site.url}/"

        site.pages["/two"] = "<title>Two</title>"
        async with context.expect_page():
            await first.evaluate("() => void open('/two')")
        await until(lambda: watcher.shown.get("title") == "Two", WITHIN)
        assert 2 == len(watcher.last("view")["tabs"])
        await watcher.ws.send_json({"type": "tab", "do": "show", "pageId": await target(first)})
        await until(lambda: watcher.shown.get("title") == "Home", WITHIN)
        await first.set_viewport_size({"width": 500, "height": 400})
        await until(lambda: watcher.last("size")["width"] == 500, WITHIN)
        seen = len(watcher.frames)
        await first.close()
        await until(lambda: watcher.shown.get("title") == "Two", WITHIN)
        await until(lambda: len(watcher.frames) > seen, WITHIN)
    await until(lambda: screencasts(real_cloud) == 0, WITHIN)


async def target(page: Page) -> str:
    """The page's CDP target."""
    cdp = await page.context.new_cdp_session(page)
    try:
        told = await cdp.send("Target.getTargetInfo")
        return str(told["targetInfo"]["targetId"])
    finally:
        await cdp.detach()


async def test_a_person_reaches_in(real_cloud: Cloud, site: Site, onlooker: Browser) -> None:
    """Mouse, wheel, keys, composed and pasted text, address bar, history, tabs: by the page."""
    site.pages["/"], site.pages["/next"] = SHOP, "<title>Next</title>"
    record = await real_cloud.create(dimensions={"width": 1280, "height": 720})
    page = await onlooker.contexts[0].new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    async with driving(record) as context:
        shop = context.pages[0]
        await shop.goto(site.url)
        await page.goto(record["sessionViewerUrl"])
        await until_true(page, "document.querySelector('canvas').dataset.frames > 0")

        await page.mouse.click(*await place(page, 100, 40))
        await page.keyboard.type("Grüße 5")
        await page.keyboard.press("Shift+ArrowLeft")
        await page.keyboard.press("Backspace")
        await until_true(shop, "document.querySelector('input').value === 'Grüße '")
        await page.evaluate(COMPOSE, "日本")
        await page.evaluate(PASTE, "pasted\ttext")
        await until_true(
            shop, "document.querySelector('input').value === 'Grüße 日本pasted\\ttext'"
        )

        await page.mouse.click(*await place(page, 100, 130))
        await until_true(shop, "document.title === 'bought'")
        await page.mouse.dblclick(*await place(page, 180, 140))
        await until_true(shop, "document.title === 'twice'")
        await page.mouse.move(*await place(page, 600, 500))
        await page.mouse.wheel(0, 400)
        await until_true(shop, "scrollY === 400")

        await page.fill("[data-address]", f"{site.url}/next")
        await page.press("[data-address]", "Enter")
        await until_true(shop, "document.title === 'Next'")
        await page.click("[data-go=back]")
        await until_true(shop, "location.pathname === '/'")
        await page.click("[data-go=forward]")
        await until_true(shop, "document.title === 'Next'")
        await shop.evaluate("window.old = true")
        await page.click("[data-go=reload]")
        await until_true(shop, "window.old === undefined")

        await page.click("[data-open]")
        await page.locator("[role=tab]").nth(1).wait_for()
        await until(lambda: len(context.pages) == 2, WITHIN)
        await page.click(".tab:has-text('Next') .close")
        await page.locator("[role=tab]:has-text('Next')").wait_for(state="detached")
        await until(lambda: ["about:blank"] == [one.url for one in context.pages], WITHIN)
        await page.click(".tab .close")  # the last one: another takes its place
        await asyncio.sleep(0.5)  # in which the session would have ended
        assert "live" == (await real_cloud.call("GET", f"/v1/sessions/{record['id']}"))[1]["status"]
    await page.fill("[data-address]", "file:///etc/passwd")
    await page.press("[data-address]", "Enter")
    await page.get_by_text("must be an address with http, https, about, data").wait_for()
    await real_cloud.call("DELETE", f"/v1/sessions/{record['id']}")
    await page.get_by_text("The session has ended: user requested.").wait_for()
    assert "ended" == await page.locator("[data-status]").text_content()
    assert [] == problems
    await page.close()


async def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where in the viewer this point of a session of 1280 × 720 is."""
    box = await page.locator("canvas").bounding_box()
    assert box is not None
    scale = min(box["width"] / 1280, box["height"] / 720)
    left = box["x"] + (box["width"] - 1280 * scale) / 2
    top = box["y"] + (box["height"] - 720 * scale) / 2
    return left + x * scale, top + y * scale


COMPOSE = """text => {
  const keys = document.querySelector("[data-keys]");
  for (const [kind, data] of [["start", ""], ["update", text.slice(0, 1)], ["end", text]])
    keys.dispatchEvent(new CompositionEvent(`composition${kind}`, { data }));
}"""
PASTE = """text => {
  const clipboardData = new DataTransfer();
  clipboardData.setData("text/plain", text);
  document.querySelector("[data-keys]").dispatchEvent(
    new ClipboardEvent("paste", { clipboardData, cancelable: true }));
}"""


async def until_true(page: Page, expression: str) -> None:
    """Return when it is true. Asked from outside: the viewer forbids to poll inside."""
    end = time.monotonic() + WITHIN
    found = False
    while not found:
        assert time.monotonic() < end, expression
        with suppress(PlaywrightError):  # it goes elsewhere this very moment
            found = await page.evaluate(expression)
        await asyncio.sleep(0.02)


async def test_fingers_and_what_is_malformed(real_cloud: Cloud, site: Site) -> None:
    """A touch is one; what cannot be read is told, and the viewer goes on."""
    site.pages["/"] = SHOP
    record = await real_cloud.create(browser="headless-shell")
    async with watching(real_cloud, record) as watcher, driving(record) as context:
        page = context.pages[0]
        await page.goto(site.url)
        for kind, fingers in [("touchStart", [{"id": 1, "x": 100, "y": 250}]), ("touchEnd", [])]:
            await watcher.ws.send_json({"type": "touch", "kind": kind, "fingers": fingers})
        await until_true(page, "document.title === '1 touched'")
        for sent, told in [
            ("{", "not JSON"),
            ("[]", "type: must be one of mouse, key"),
            ('{"type": "mouse", "kind": "jump", "x": 1, "y": 1}', "kind: "),
            ('{"type": "mouse", "kind": "mouseMoved", "x": 1e9, "y": 1}', "x: must be between"),
            ('{"type": "text", "text": 5}', "text: must be a text"),
            ('{"type": "go", "to": "address", "address": "javascript:1"}', "address: "),
            ('{"type": "tab", "do": "show", "pageId": "none"}', "has been closed"),
            ('{"type": "tab", "do": "close", "pageId": "none"}', "Target.closeTarget"),
        ]:
            watcher.told.clear()
            await watcher.ws.send_str(sent)
            await until(lambda: bool(watcher.last("problem")), WITHIN)
            assert told in watcher.last("problem")["message"], (sent, watcher.told)


async def test_who_may_look_and_who_may_reach_in(real_cloud: Cloud, site: Site) -> None:
    """A link opens the viewer of its session and nothing else; one for looking moves nothing."""
    record = await real_cloud.create(browser="headless-shell")
    other = await real_cloud.create(browser="headless-shell")
    path = f"/v1/sessions/{record['id']}"
    status, link = await real_cloud.call(
        "POST", f"{path}/viewer", json={"interactive": False, "expiresIn": 60_000}
    )
    assert (200, False) == (status, link["interactive"])
    look = link["url"].partition("token=")[2]
    reach = record["sessionViewerUrl"].partition("token=")[2]
    for token in (look, reach):
        assert 401 == (await real_cloud.call("GET", f"{path}?token={token}", key=None))[0]
        assert 401 == await real_cloud.refused(f"{path}/cdp?token={token}")
        assert 401 == await real_cloud.refused(
            f"/v1/sessions/{other['id']}/viewer/ws?token={token}"
        )
    forged = look.replace("watch", "reach")
    later = look.replace("watch-", "watch-9")
    for token in (forged, later, f"reach-0.{real_cloud.token(record)}", "reach-0.", "watch-1.x"):
        assert 401 == await real_cloud.refused(f"{path}/viewer/ws?token={token}")

    async with watching(real_cloud, record, token=look) as watcher, driving(record) as context:
        assert watcher.told[0] == {"type": "hello", "interactive": False}
        await watcher.ws.send_json({"type": "go", "to": "address", "address": site.url})
        await until(lambda: bool(watcher.last("problem")), WITHIN)
        assert "only lets you look" in watcher.last("problem")["message"]
        assert "about:blank" == context.pages[0].url
    async with watching(real_cloud, record, interactive="false") as watcher:
        assert watcher.told[0] == {"type": "hello", "interactive": False}
    async with watching(real_cloud, record, token=real_cloud.token(record)) as watcher:
        assert watcher.told[0] == {"type": "hello", "interactive": True}

    _, link = await real_cloud.call("POST", f"{path}/viewer", json={"expiresIn": 1_000})
    async with watching(real_cloud, record, token=link["url"].partition("token=")[2]) as watcher:
        await until(lambda: watcher.ws.closed, WITHIN)
        assert 1008 == watcher.ws.close_code
    soon = link["url"].partition("token=")[2]
    assert 401 == await real_cloud.refused(f"{path}/viewer/ws?token={soon}")
    for body, where in [({"expiresIn": 0}, "expiresIn"), ({"interactive": 1}, "interactive")]:
        status, answer = await real_cloud.call("POST", f"{path}/viewer", json=body)
        assert (400, where) == (status, answer["error"]["details"][0]["path"])


async def test_one_screencast_for_all_and_none_for_nobody(
    real_cloud: Cloud, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many look, one is cast; a viewer that stalls holds nobody up and keeps no frames."""
    opened: list[str] = []
    first_open = Screencast.open

    async def counted(endpoint: str, page_id: str | None = None) -> Screencast:
        opened.append(endpoint)
        return await first_open(endpoint, page_id)

    monkeypatch.setattr(Screencast, "open", counted)
    record = await real_cloud.create(browser="headless-shell")
    async with driving(record) as context:
        page = context.pages[0]
        async with watching(real_cloud, record) as one, watching(real_cloud, record) as two:
            assert (1, 1) == (len(opened), screencasts(real_cloud))
            two.reading.cancel()  # it reads no more
            await page.evaluate(MOVING)
            seen = len(one.frames)
            await until(lambda: len(one.frames) > seen + 30, WITHIN)
            two.reading = asyncio.create_task(two._read())
        await until(lambda: screencasts(real_cloud) == 0, WITHIN)
        async with watching(real_cloud, record):
            assert 2 == len(opened)
    await until(lambda: screencasts(real_cloud) == 0, WITHIN)


MOVING = """() => {
  let turn = 0;
  setInterval(() => document.body.style.background = `hsl(${turn++} 80% 50%)`, 5);
}"""


async def test_frames_that_nobody_takes_are_not_drawn(real_cloud: Cloud, site: Site) -> None:
    """Not acknowledged, Chromium stops after a few; taken, they come at the wanted pace at most."""
    record = await real_cloud.create(browser="headless-shell")
    async with driving(record) as context:
        await context.pages[0].evaluate(MOVING)
        endpoint = real_cloud.parts.sessions.live(record["id"]).handle.endpoint  # type: ignore[union-attr]
        cast = await Screencast.open(endpoint)
        drawn = 0

        def count(params: Any, session: str | None) -> None:
            nonlocal drawn
            drawn += 1

        cast.cdp.on("Page.screencastFrame", count)
        await asyncio.sleep(1.0)  # in which sixty could be drawn
        assert 0 < drawn <= 4
        await cast.close()


async def test_watching_keeps_nothing_alive(real_cloud: Cloud) -> None:
    """Whoever only looks is no traffic; whoever reaches in is. The end is told with its reason."""
    record = await real_cloud.create(browser="headless-shell", inactivityTimeout=1_500)
    begun = time.monotonic()
    async with watching(real_cloud, record) as watcher:
        await asyncio.sleep(0.7)
        await watcher.ws.send_json({"type": "mouse", "kind": "mouseMoved", "x": 5, "y": 5})
        await until(lambda: bool(watcher.last("ended")), WITHIN)
        assert 2.0 < time.monotonic() - begun < 6.0
        assert "inactivity_timeout" == watcher.last("ended")["reason"]
        await until(lambda: watcher.ws.closed, WITHIN)


async def test_one_page_alone(real_cloud: Cloud, site: Site) -> None:
    """`pageId` and `pageIndex` stay with a tab, also with one that lies behind another."""
    record = await real_cloud.create(browser="chromium")
    async with driving(record) as context:
        first = context.pages[0]
        await first.goto(site.url)
        front = await context.new_page()
        await front.goto("data:text/html,<title>Front</title>")
        async with watching(real_cloud, record, pageId=await target(first)) as watcher:
            assert "Home" == watcher.shown["title"]
            await front.goto("data:text/html,<title>Still in front</title>")
            seen = len(watcher.frames)
            await first.evaluate("document.body.style.background = 'blue'")
            await until(lambda: len(watcher.frames) > seen, WITHIN)
            assert "Home" == watcher.shown["title"]
        pages = (await real_cloud.call("GET", f"/v1/sessions/{record['id']}/live"))[1]["pages"]
        index = [page["title"] for page in pages].index("Home")
        async with watching(real_cloud, record, pageIndex=str(index)) as watcher:
            assert "Home" == watcher.shown["title"]
    path, token = f"/v1/sessions/{record['id']}/viewer/ws", real_cloud.token(record)
    for query, status in [
        ("pageId=none", 404),
        ("pageIndex=7", 404),
        ("pageIndex=x", 400),
        ("pageIndex=0&pageId=none", 404),
        ("colour=red", 400),
    ]:
        assert status == await real_cloud.refused(f"{path}?token={token}&{query}")


async def test_the_page_comes_back_by_itself(
    real_cloud: Cloud, onlooker: Browser, site: Site
) -> None:
    """After a dropped socket; bare, in the wanted theme, inside somebody's frame."""
    record = await real_cloud.create(browser="headless-shell")
    address = f"{record['sessionViewerUrl']}&showControls=false&theme=dark"
    page = await onlooker.contexts[0].new_page()
    site.pages["/"] = f"<iframe src='{address}' width=600 height=400></iframe>"
    await page.goto(site.url)
    frame = page.frames[1]
    picture = frame.locator("canvas")
    await until_frames(picture, 0)
    assert not await frame.locator("header").is_visible()
    assert "rgb(20, 21, 23)" == await frame.evaluate(
        "getComputedStyle(document.body).backgroundColor"
    )
    for ws in tuple(real_cloud.parts.sockets):
        await ws.close(code=1011)
    await frame.get_by_text("The connection was lost").wait_for()
    await frame.locator("body:not(.away)").wait_for()
    await until_frames(picture, 1)
    await page.close()


async def until_frames(picture: Any, more_than: int) -> None:
    """Return when the canvas has drawn more pictures than that."""
    end = time.monotonic() + WITHIN
    while int(await picture.get_attribute("data-frames") or 0) <= more_than:
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def test_a_link_that_opens_nothing_says_why(real_cloud: Cloud, onlooker: Browser) -> None:
    """One whose key was revoked while it was open, too."""
    key, key_id = await real_cloud.new_key()
    _, record = await real_cloud.call(
        "POST", "/v1/sessions", key=key, json={"browser": "headless-shell"}
    )
    async with watching(real_cloud, record) as watcher:
        await real_cloud.revoke(key_id)
        await until(lambda: watcher.ws.closed, WITHIN)
        assert 1008 == watcher.ws.close_code
    page = await onlooker.contexts[0].new_page()
    await page.goto(record["sessionViewerUrl"])
    await page.get_by_text("This link does not open the session").wait_for()
    await page.close()


async def test_a_browser_that_hangs_holds_nobody_up(real_cloud: Cloud) -> None:
    """A page that never answers: the viewer opens, what is done to it is told to have failed."""
    record = await real_cloud.create(browser="headless-shell")
    endpoint = real_cloud.parts.sessions.live(record["id"]).handle.endpoint  # type: ignore[union-attr]
    async with await CdpConnection.open(endpoint) as cdp:
        (page,) = [
            one["targetId"]
            for one in (await cdp.send("Target.getTargets"))["targetInfos"]
            if one["type"] == "page"
        ]
        attached = await cdp.send("Target.attachToTarget", {"targetId": page, "flatten": True})
        await cdp.send(
            "Runtime.evaluate",
            {"expression": "setTimeout(() => {for(;;){}})"},
            attached["sessionId"],
        )
    address = f"{real_cloud.url}/v1/sessions/{record['id']}/viewer/ws"
    async with real_cloud.http.ws_connect(address, headers={"x-api-key": KEY}) as ws:
        assert {"type": "hello", "interactive": True} == await ws.receive_json()
    status, _ = await real_cloud.call("DELETE", f"/v1/sessions/{record['id']}")
    assert 200 == status
    assert viewer.END_PATIENCE
