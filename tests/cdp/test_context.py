"""A replaced user agent: header, client hints and `navigator` all tell the same story."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import async_playwright

from browsercloud.cdp.agent import override
from browsercloud.engines.local import LocalEngine
from browsercloud.options import Browser, SessionOptions

WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/131.0.6778.86 Safari/537.36"
)
PHONE = (
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/131.0.6778.86 Mobile Safari/537.36"
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"

WORKER = "fetch('/from-worker').then(() => postMessage(navigator.userAgent))"
WORKER_PATHS = ("worker.js", "from-worker")
TOLD = """() => [navigator.userAgent,
               navigator.userAgentData.platform, navigator.userAgentData.mobile,
               navigator.userAgentData.brands.map(one => `${one.brand} ${one.version}`)]"""


class Site:
    """Pages under two hosts that write down what each request said."""

    def __init__(self) -> None:
        self.heard: dict[str, dict[str, str | None]] = {}
        self.server: TestServer | None = None

    async def answer(self, request: web.Request) -> web.Response:
        """Any path; `?body=` is the page."""
        names = ("User-Agent", "sec-ch-ua", "sec-ch-ua-platform", "sec-ch-ua-mobile")
        self.heard[request.path] = {name.lower(): request.headers.get(name) for name in names}
        if request.path == "/worker.js":
            return web.Response(text=WORKER, content_type="text/javascript")
        return web.Response(text=request.query.get("body", "hello"), content_type="text/html")

    def url(self, path: str, host: str = "localhost") -> str:
        """An address; two hosts are two sites. Both count as secure, as client hints need."""
        assert self.server is not None
        return f"http://{host}:{self.server.port}{path}"


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    """A site that serves and listens."""
    site = Site()
    app = web.Application()
    app.router.add_get("/{path:.*}", site.answer)
    async with TestServer(app) as server:
        site.server = server
        yield site


@pytest_asyncio.fixture
async def engine(root: Path) -> AsyncIterator[LocalEngine]:
    """An engine of its own."""
    engine = LocalEngine(root / "data")
    await engine.open()
    yield engine
    await engine.close()


def _check(heard: dict[str, str | None], platform: str) -> None:
    assert WINDOWS == heard["user-agent"]
    assert '"Google Chrome";v="131"' in (heard["sec-ch-ua"] or "")
    assert f'"{platform}"' == heard["sec-ch-ua-platform"]
    assert "?0" == heard["sec-ch-ua-mobile"]


@pytest.mark.parametrize("browser", list(Browser))
async def test_every_target_tells_the_same_from_its_first_request(
    engine: LocalEngine, site: Site, browser: Browser
) -> None:
    """Page, new tab, popup, frame of another site and worker, with Playwright attached as well."""
    handle = await engine.start("one", SessionOptions(browser=browser, user_agent=WINDOWS))
    assert WINDOWS == handle.user_agent
    async with async_playwright() as playwright:
        attached = await playwright.chromium.connect_over_cdp(handle.endpoint)
        context = attached.contexts[0]
        page = context.pages[0]
        told: list[Any] = [await _visit(page, site, "/first")]
        tab = await context.new_page()
        told.append(await _visit(tab, site, "/tab"))
        async with page.expect_popup() as waiting:
            await page.evaluate("url => void open(url)", site.url("/popup"))
        popup = await waiting.value
        loaded = "location.pathname === '/popup' && document.readyState === 'complete'"
        await popup.wait_for_function(loaded)
        told.append(await popup.evaluate(TOLD))
        frame_url = site.url("/frame", host="127.0.0.1")
        await page.set_content(f"<iframe src='{frame_url}'></iframe>")
        frame = page.frames[1]
        await frame.wait_for_url(frame_url)
        told.append(await frame.evaluate(TOLD))
        worker = await tab.evaluate(
            "() => new Promise(done => new Worker('/worker.js').onmessage = e => done(e.data))"
        )
        other = await attached.new_context()
        told.append(await _visit(await other.new_page(), site, "/other-context"))
        await attached.close()
    for path in ("/first", "/tab", "/popup", "/frame", "/other-context"):
        _check(site.heard[path], "Windows")
    # Chromium sends no client hints with a worker's requests, replaced or not.
    assert [WINDOWS, WINDOWS] == [site.heard[f"/{one}"]["user-agent"] for one in WORKER_PATHS]
    assert WINDOWS == worker
    brands = ["Chromium 131", "Google Chrome 131", "Not.A/Brand 99"]
    assert [[WINDOWS, "Windows", False, brands]] * 5 == told
    await engine.stop(handle, grace=2)


async def _visit(page: Any, site: Site, path: str) -> Any:
    await page.goto(site.url(path))
    return await page.evaluate(TOLD)


async def test_without_a_user_agent_nothing_is_attached(engine: LocalEngine) -> None:
    """Only a session that asks for it pays for the extra connection."""
    handle = await engine.start("one", SessionOptions(browser=Browser.HEADLESS_SHELL))
    running = engine._browsers["one"]
    assert running.launched is not None
    assert running.launched.overrides is None
    await engine.stop(handle, grace=0)


def test_a_phone_is_mobile() -> None:
    """A mobile string gives mobile hints with its model and no desktop architecture."""
    hints = override(PHONE)["userAgentMetadata"]
    assert (True, "Pixel 8", "Android", "14", "") == (
        hints["mobile"],
        hints["model"],
        hints["platform"],
        hints["platformVersion"],
        hints["architecture"],
    )


def test_another_family_has_no_brands() -> None:
    """Firefox sends no client hints, so a string of its kind must not come with Chromium's."""
    hints = override(FIREFOX)["userAgentMetadata"]
    assert ([], []) == (hints["brands"], hints["fullVersionList"])


@pytest.mark.parametrize(
    ("user_agent", "brand"),
    [
        (f"{WINDOWS} Edg/131.0.2903.70", "Microsoft Edge"),
        (f"{WINDOWS} OPR/117.0.0.0", "Opera"),
        (WINDOWS.replace("Chrome/", "HeadlessChrome/"), "HeadlessChrome"),
        (WINDOWS, "Google Chrome"),
    ],
)
def test_a_relative_of_chromium_is_called_by_its_name(user_agent: str, brand: str) -> None:
    """The brand beside Chromium is the one that the string names."""
    brands = [one["brand"] for one in override(user_agent)["userAgentMetadata"]["brands"]]
    assert ["Chromium", brand, "Not.A/Brand"] == brands
