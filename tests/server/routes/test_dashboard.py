"""The dashboard: who gets in, what it shows, and what can be done there."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from playwright.async_api import Browser, Page, async_playwright

from browsercloud.server.routes import dashboard
from browsercloud.server.trust import LOGIN, LOGIN_FOR
from tests.conftest import Site
from tests.server.conftest import KEY, Cloud

NASTY = """</td><script>document.title = "taken"</script>"'&<img src=x onerror=alert(1)>"""
OURS = {"Sec-Fetch-Site": "same-origin"}


async def enter(cloud: Cloud, key: str = KEY, **headers: str) -> aiohttp.ClientResponse:
    """The answer to the form, and nothing that follows it."""
    return await cloud.http.post(
        f"{cloud.url}/login", data={"key": key}, headers=headers or OURS, allow_redirects=False
    )


async def cookie_of(cloud: Cloud, key: str = KEY) -> str:
    """The header of somebody who has logged in."""
    reply = await enter(cloud, key)
    assert (reply.status, reply.headers["Location"]) == (303, "/")
    return f"{LOGIN}={reply.cookies[LOGIN].value}"


async def ask(cloud: Cloud, method: str, path: str, cookie: str, **headers: str) -> Any:
    """Status of a request with a login and no key."""
    sent = {"Cookie": cookie, **(headers or OURS)}
    async with cloud.http.request(method, cloud.url + path, headers=sent) as reply:
        return reply.status


async def test_a_login_is_a_cookie_that_no_script_reads(cloud: Cloud) -> None:
    """HttpOnly, strict, expiring; it holds no key, and opens the project's sessions."""
    reply = await enter(cloud)
    told = SimpleCookie(reply.headers["Set-Cookie"])[LOGIN]
    assert (True, "Strict", str(LOGIN_FOR)) == (
        told["httponly"],
        told["samesite"],
        told["max-age"],
    )
    assert KEY not in told.value
    cookie = await cookie_of(cloud)
    record = await cloud.create()
    for path in ("/v1/sessions", "/v1/capacity", f"/sessions/{record['id']}"):
        assert 200 == await ask(cloud, "GET", path, cookie)
    other, _ = await cloud.new_key("other")
    stranger = await cookie_of(cloud, other)
    assert 404 == await ask(cloud, "GET", f"/v1/sessions/{record['id']}", stranger)
    assert 404 == await ask(cloud, "DELETE", f"/v1/sessions/{record['id']}", stranger)
    assert 200 == await ask(cloud, "DELETE", f"/v1/sessions/{record['id']}", cookie)
    out = await cloud.http.post(f"{cloud.url}/logout", headers=OURS, allow_redirects=False)
    assert "Max-Age=0" in out.headers["Set-Cookie"]


async def test_a_login_ends(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its key, with its time, and when somebody has changed a letter of it."""
    key, key_id = await cloud.new_key()
    cookie = await cookie_of(cloud, key)
    assert 200 == await ask(cloud, "GET", "/v1/sessions", cookie)
    later = cookie.replace(f".{re.findall('[0-9]{10}', cookie)[0]}.", ".9999999999.")
    assert later != cookie
    for wrong in (later, cookie[:-1] + ("A" if cookie[-1] != "A" else "B"), f"{LOGIN}=x"):
        assert 401 == await ask(cloud, "GET", "/v1/sessions", wrong)
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr("browsercloud.server.trust.time.time", lambda: now + LOGIN_FOR + 1)
        assert 401 == await ask(cloud, "GET", "/v1/sessions", cookie)
    await cloud.revoke(key_id)
    assert 401 == await ask(cloud, "GET", "/v1/sessions", cookie)


async def test_other_sites_cannot_use_a_login(cloud: Cloud) -> None:
    """Whatever they ask for, and by whichever header the browser tells of them."""
    cookie = await cookie_of(cloud)
    record = await cloud.create()
    path = f"/v1/sessions/{record['id']}"
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "none"},
    ):
        assert 401 == await ask(cloud, "DELETE", path, cookie, **headers)
        assert 403 == (await enter(cloud, KEY, **headers)).status
    assert 401 == await ask(cloud, "DELETE", path, cookie, Accept="*/*")  # from no page at all
    assert 401 == await ask(cloud, "GET", path, cookie, Origin="https://evil.example")
    assert 200 == await ask(cloud, "DELETE", path, cookie, Origin=cloud.url)


async def test_wrong_keys_are_counted(cloud: Cloud) -> None:
    """After ten within a minute not even the right one is looked at, for a while."""
    for _ in range(dashboard.MAX_FAILURES):
        reply = await enter(cloud, "a wrong key")
        assert (reply.status, "opens nothing" in await reply.text()) == (401, True)
    reply = await enter(cloud)
    assert (reply.status, 0 < int(reply.headers["Retry-After"]) <= 60) == (429, True)
    assert LOGIN not in reply.cookies


async def test_the_address_is_a_socket_as_well(cloud: Cloud) -> None:
    """Steel's form of CDP: without an upgrade it is told so, without a key it is refused."""
    assert 426 == (await cloud.call("GET", "/?apiKey=x"))[0]
    assert 401 == (await cloud.call("GET", "/?apiKey=x", key=None))[0]
    with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
        await cloud.http.ws_connect(f"{cloud.url}/?apiKey=wrong")


@pytest.fixture
async def person(real_cloud: Cloud) -> AsyncIterator[Browser]:
    """A person's browser: another session, driven by Playwright."""
    record = await real_cloud.create(browser="headless-shell", name="the onlooker's")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(record["websocketUrl"])
        yield browser
        await browser.close()


async def names(page: Page) -> list[str]:
    """What the list shows, the newest first."""
    return await page.locator("[data-rows] tr td:nth-child(2) a").all_inner_texts()


async def until_listed(page: Page, expected: list[str]) -> None:
    """Wait until the list is that."""
    end = time.monotonic() + 5
    while expected != await names(page):
        assert time.monotonic() < end, await names(page)
        await page.wait_for_timeout(20)


async def test_a_person_finds_and_releases_a_session(real_cloud: Cloud, person: Browser) -> None:
    """By keyboard alone: log in, filter, release after a question; nobody else is asked."""
    one = await real_cloud.create(name=NASTY, build="7", metadata={"team": "a"})
    two = await real_cloud.create(browser="headless-shell", name="two", metadata={"team": "b"})
    page = await person.contexts[0].new_page()
    asked: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.goto(f"{real_cloud.url}/")
    await page.locator("#key:focus").wait_for()
    await page.keyboard.type(KEY)
    await page.keyboard.press("Enter")
    await page.get_by_role("search").wait_for()
    everything = ["two", NASTY, "the onlooker's"]
    await until_listed(page, everything)
    assert await page.title() == "Sessions · browsercloud"
    assert await page.locator("[data-figure=inUse]").inner_text() == "3"
    for field, value, found in (
        ("Metadata", "team=b", ["two"]),
        ("Build", "7", [NASTY]),
        ("Name", "two", ["two"]),
    ):
        await page.get_by_label(field, exact=True).focus()
        await page.keyboard.type(value)
        await until_listed(page, found)
        await page.keyboard.press("ControlOrMeta+A")
        await page.keyboard.press("Delete")
        await until_listed(page, everything)
    await page.get_by_label("Status").select_option("released")
    await page.get_by_text("No session is like that.").wait_for()
    await page.get_by_label("Status").select_option("")
    await until_listed(page, everything)
    button = page.get_by_role("button", name="Release two")
    await button.focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    await dialog.wait_for()
    assert "two" in await dialog.inner_text()
    await page.keyboard.press("Escape")
    await dialog.wait_for(state="hidden")
    assert (await real_cloud.call("GET", f"/v1/sessions/{two['id']}"))[1]["status"] == "live"
    await button.focus()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    row = page.locator("tr", has_text=two["id"])
    await row.get_by_text("user requested").wait_for()
    await row.get_by_text("released", exact=True).wait_for()
    assert await button.count() == 0 or not await button.is_visible()
    view = page.get_by_role("link", name="View", exact=False).filter(visible=True).first
    assert await view.get_attribute("href") == f"/sessions/{one['id']}/viewer"
    await page.goto(real_cloud.url + str(await view.get_attribute("href")))
    await page.locator("canvas:not([width='0'])").wait_for()
    await page.goto(f"{real_cloud.url}/sessions/{two['id']}")
    assert await page.locator("[data-field=releaseReason]").inner_text() == "user_requested"
    assert all(url.startswith((real_cloud.url, "blob:", "data:")) for url in asked), asked
    assert problems == []
    await page.close()


SHOTS = Path(".shots")
"""What the pages look like is kept here, to be looked at."""

SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
FITS = "document.documentElement.scrollWidth <= innerWidth"


async def test_the_pages_fit_every_screen(real_cloud: Cloud, person: Browser, site: Site) -> None:
    """On a desktop and a phone, light and dark, nothing has to be scrolled sideways."""
    site.pages["/"] = "<title>Shop</title><h1>Shop</h1><script>console.error('no')</script>"
    long = "a-name-without-a-gap-" * 8
    one = await real_cloud.create(browser="headless-shell", name=long, metadata={"team": long})
    async with async_playwright() as playwright:
        driver = await playwright.chromium.connect_over_cdp(one["websocketUrl"])
        await driver.contexts[0].pages[0].goto(f"{site.url}/{'long' * 40}?x")
        await driver.contexts[0].pages[0].goto(site.url)
        await driver.close()
    context = await person.new_context()
    page = await context.new_page()
    SHOTS.mkdir(exist_ok=True)
    for name, path, there in (
        ("login", "/", "#key"),
        ("dashboard", "/", "[data-rows] tr"),
        ("session", f"/sessions/{one['id']}", "[data-timeline] li.bad"),
        ("viewer", f"/sessions/{one['id']}/viewer", "canvas:not([width='0'])"),
    ):
        await page.goto(real_cloud.url + path)
        if name == "dashboard":
            await page.locator("#key").fill(KEY)
            await page.get_by_role("button", name="Log in").click()
        await page.locator(there).first.wait_for()
        for screen, (width, height) in SIZES.items():
            for scheme in SCHEMES:
                await page.set_viewport_size({"width": width, "height": height})
                await page.emulate_media(color_scheme=scheme)
                assert await page.evaluate(FITS), (name, screen)
                await page.screenshot(path=SHOTS / f"{name}-{screen}-{scheme}.png")
    await context.close()
