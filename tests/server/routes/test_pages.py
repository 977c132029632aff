"""The pages for people, looked at with a browser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

from browsercloud.server.routes import pages
from browsercloud.testing import IdleEngine
from tests.conftest import Site
from tests.server.conftest import BODY, KEY, Cloud, StartCloud, Upstream

NASTY = """</title><script>document.title = "taken"</script>"'&<img src=x onerror=alert(1)>"""


@pytest.fixture
async def onlooker(real_cloud: Cloud) -> AsyncIterator[Browser]:
    """A person's browser: another session, driven by Playwright."""
    record = await real_cloud.create(browser="headless-shell")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(record["websocketUrl"])
        yield browser
        await browser.close()


async def show(cloud: Cloud, record: BODY, address: str) -> None:
    """Let the session's own page go there, and wait until it has loaded."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(record["websocketUrl"])
        await browser.contexts[0].pages[0].goto(address)
        await browser.close()


async def test_the_page_shows_the_session_until_it_ends(
    real_cloud: Cloud, onlooker: Browser, site: Site
) -> None:
    """Record, live picture, what happens and the open pages; then the reason. Nothing is run."""
    record = await real_cloud.create(browser="headless-shell", name=NASTY, metadata={"a": NASTY})
    site.pages["/"] = (
        "<!doctype html><title>x</title><body bgcolor=red>"
        "<script>document.title = '</li><b>bold'; console.error('<b>nasty</b>')</script>"
    )
    page = await onlooker.contexts[0].new_page()
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.goto(record["debugUrl"])
    await show(real_cloud, record, site.url)
    picture = page.frame_locator("[data-picture]").locator("canvas:not([width='0'])")
    await picture.wait_for()
    assert await page.title() == await page.locator("h1").text_content() == NASTY
    assert await page.locator("[data-field=id]").text_content() == record["id"]
    assert await page.locator("[data-field=metadata]").text_content() == f"a: {NASTY}"
    entry = page.locator("[data-pages] a")
    await entry.filter(has_text="</li><b>bold").wait_for()
    assert site.url in (await entry.text_content() or "")
    words = page.locator("[data-timeline] li[data-type='page.console'] .words")
    await words.filter(has_text="error: <b>nasty</b>").wait_for()
    await filters(page)
    assert all(url.startswith((real_cloud.url, "blob:", "data:")) for url in asked), asked
    assert problems == []
    await real_cloud.call("DELETE", f"/v1/sessions/{record['id']}")
    await page.get_by_text("has ended: user_requested").wait_for()
    assert await page.locator("[data-status]").text_content() == "ended"
    reply = await page.goto(record["debugUrl"])
    assert reply is not None
    assert reply.status == 410
    assert "user_requested" in await page.locator("main").inner_text()
    await page.close()


async def filters(page: Page) -> None:
    """By kind and by text; nothing is lost by it."""
    rows = page.locator("[data-timeline] li")
    shown = rows.filter(visible=True)
    everything = await rows.count()
    await page.get_by_label("Show").select_option("requests")
    assert {"page.request"} == {await row.get_attribute("data-type") for row in await shown.all()}
    await page.get_by_label("Show").select_option("everything")
    await page.get_by_label("With the text").fill("NASTY")
    assert 1 == await shown.count() < everything
    assert f"1 of {everything} events" == await page.locator("[data-count]").inner_text()
    await page.get_by_label("With the text").fill("")
    assert everything == await shown.count()


async def test_after_the_end_the_page_is_there_for_a_login(
    real_cloud: Cloud, onlooker: Browser, site: Site
) -> None:
    """With the timeline from the store, and why it has ended: the evidence of a crash."""
    record = await real_cloud.create(browser="headless-shell")
    site.pages["/"] = "here"
    page = await onlooker.contexts[0].new_page()
    await page.goto(f"{real_cloud.url}/")
    await page.locator("#key").fill(KEY)
    await page.get_by_role("button", name="Log in").click()
    await page.goto(f"{real_cloud.url}/sessions/{record['id']}")
    await show(real_cloud, record, site.url)
    happened = page.locator("[data-timeline]")
    await happened.get_by_text(site.url).first.wait_for()
    running = real_cloud.engine._browsers[record["id"]]
    running.process.kill()
    evidence = page.locator("[data-evidence]")
    await evidence.get_by_text("SIGKILL", exact=True).wait_for()
    await page.reload()
    await evidence.get_by_text("SIGKILL", exact=True).wait_for()
    await happened.get_by_text("session.failed").wait_for()
    assert await happened.get_by_text(site.url).count() > 0
    assert await page.locator("[data-status]").inner_text() == "failed"
    assert not await page.locator("[data-stage]").is_visible()
    await page.close()


async def test_what_is_not_to_be_kept_is_not(real_cloud: Cloud, site: Site) -> None:
    """`record` `none`: only the session's own life is in its events; and somebody's hand is."""
    site.pages["/"] = "here"
    kinds = {}
    for record in ("events", "none"):
        session = await real_cloud.create(browser="headless-shell", record=record)
        await show(real_cloud, session, site.url)
        path = f"/v1/sessions/{session['id']}"
        move = {"action": "move_mouse", "coordinates": [5, 5]}
        status, _ = await real_cloud.call("POST", f"{path}/computer", json=move)
        assert status == 200
        await real_cloud.call("DELETE", f"{path}?wait=true")
        _, events = await real_cloud.call("GET", f"{path}/events?limit=1000")
        kinds[record] = {event["type"] for event in events}
    assert {"page.navigated", "page.request", "page.input"} <= kinds["events"]
    assert not [kind for kind in kinds["none"] if not kind.startswith("session.")]


@pytest.mark.parametrize(
    ("kind", "begin"), [("png", b"\x89PNG"), ("jpeg", b"\xff\xd8\xff"), (None, b"\xff\xd8\xff")]
)
async def test_a_picture_has_the_wanted_format(
    real_cloud: Cloud, kind: str | None, begin: bytes
) -> None:
    """PNG or JPEG; JPEG when nothing is said; at once, before the page has drawn anything."""
    record = await real_cloud.create()
    address = record["debugUrl"].replace("?", "/screenshot?") + (f"&format={kind}" if kind else "")
    async with real_cloud.http.get(address) as reply:
        assert (reply.status, reply.content_type) == (200, f"image/{kind or 'jpeg'}")
        assert (await reply.read()).startswith(begin)


async def test_a_hung_browser_costs_a_picture_not_the_server(
    start_cloud: StartCloud, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser that never answers is 502 in bounded time."""
    monkeypatch.setattr(pages, "PICTURE_TIMEOUT", 0.2)
    cloud = await start_cloud(IdleEngine(endpoint=upstream.endpoint))
    upstream.paused.clear()
    record = await cloud.create()
    async with asyncio.timeout(3):
        status, answer = await cloud.call("GET", f"/sessions/{record['id']}/screenshot")
    assert (status, answer["error"]["code"]) == (502, "browser_unresponsive")
    upstream.paused.set()


@pytest.mark.parametrize("page", ["chrome://crash", "hang"])
async def test_a_broken_page_is_a_clean_error(
    real_cloud: Cloud, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    """A renderer that has crashed or hangs gives JSON, not silence; the session can be released."""
    monkeypatch.setattr(pages, "PICTURE_TIMEOUT", 1.0)
    record = await real_cloud.create(browser="headless-shell")
    ws = await real_cloud.http.ws_connect(record["websocketUrl"])
    _, details = await real_cloud.call("GET", f"/v1/sessions/{record['id']}/live")
    attach = {"targetId": details["pages"][0]["id"], "flatten": True}
    await ws.send_json({"id": 1, "method": "Target.attachToTarget", "params": attach})
    while "id" not in (reply := await ws.receive_json()):
        continue
    method, params = "Page.navigate", {"url": page}
    if page == "hang":
        method, params = "Runtime.evaluate", {"expression": "for (;;) {}"}
    session = reply["result"]["sessionId"]
    await ws.send_json({"id": 2, "method": method, "params": params, "sessionId": session})
    await asyncio.sleep(0.3)  # until the renderer is truly gone: nothing reports that to a client
    status, answer = await real_cloud.call("GET", f"/sessions/{record['id']}/screenshot")
    assert (status, answer["error"]["code"]) == (502, "browser_unresponsive")
    await ws.close()
    assert (await real_cloud.call("DELETE", f"/v1/sessions/{record['id']}"))[1]["success"]


async def test_a_page_that_is_not_there_is_404(real_cloud: Cloud) -> None:
    """A target of another kind, or none."""
    record = await real_cloud.create(browser="headless-shell")
    path = f"/sessions/{record['id']}/screenshot"
    status, answer = await real_cloud.call("GET", f"{path}?pageId=nothing")
    assert (status, answer["error"]["code"]) == (404, "page_not_found")
    assert (await real_cloud.call("GET", f"{path}?format=gif"))[0] == 400


@pytest.mark.parametrize("path", ["", "/viewer"])
async def test_pages_are_closed_to_everything_else(cloud: Cloud, path: str) -> None:
    """No script or style in the page itself, no request to others, nothing kept or passed on."""
    record = await cloud.create()
    async with cloud.http.get(record["debugUrl"].replace("?", f"{path}?")) as reply:
        text, headers = await reply.text(), reply.headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert (headers["Referrer-Policy"], headers["Cache-Control"]) == ("no-referrer", "no-store")
    assert re.findall(r"<script>|<style|\son\w+=|style=", text) == []
    assert cloud.token(record) not in text
    linked = re.findall(r'(?:src|href)="([^"]+)"', text)
    script = "/pages/viewer.js" if path else "/pages/page.js"
    assert set(linked) == {"data:,", "/pages/style.css", script}


@pytest.mark.parametrize("path", ["", "/viewer"])
async def test_a_page_that_does_not_open_is_a_page(cloud: Cloud, path: str) -> None:
    """401, 404 and 410 are readable by people, with the same headers."""
    record = await cloud.create()
    base = f"{cloud.url}/sessions/{record['id']}{path}"
    missing = f"{cloud.url}/sessions/<script>{path}"
    token, key = f"?token={cloud.token(record)}", {"x-api-key": KEY}
    cases: list[tuple[str, Any, int]] = [
        (base, {}, 401),
        (f"{base}?token=wrong", {}, 401),
        (missing, key, 404),
        (f"{base}?colour=red", key, 400),
    ]
    for address, headers, status in cases:
        await is_message(cloud, address, headers, status)
    await cloud.call("DELETE", f"/v1/sessions/{record['id']}")
    assert "user_requested" in await is_message(cloud, base + token, {}, 410)
    async with cloud.http.get(base, headers=key) as reply:  # the record stays for its owner
        assert reply.status == (410 if path else 200)


@pytest.mark.parametrize("name", ["nothing.js", "session.html", "..%2Fapp.py", "%2Fetc%2Fpasswd"])
async def test_only_the_pages_own_files_are_served(cloud: Cloud, name: str) -> None:
    """Style and script, and no other file of the package or the machine."""
    assert (await cloud.call("GET", f"/pages/{name}", key=None))[0] == 404
    for known, kind in [("style.css", "text/css"), ("page.js", "text/javascript")]:
        async with cloud.http.get(f"{cloud.url}/pages/{known}") as reply:
            assert (reply.status, reply.content_type) == (200, kind)


async def until_true(page: Page, expression: str) -> None:
    """Return when it is true. Asked from outside: the pages' own policy forbids to poll inside."""
    async with asyncio.timeout(10):
        while not await page.evaluate(expression):
            await asyncio.sleep(0.02)


async def is_message(cloud: Cloud, address: str, headers: Any, status: int) -> str:
    """The text of an error page, which has this status."""
    async with cloud.http.get(address, headers=headers) as reply:
        text = await reply.text()
        assert (reply.status, reply.content_type) == (status, "text/html"), address
        assert reply.headers["Referrer-Policy"] == "no-referrer"
    assert "<script" not in text
    return text
