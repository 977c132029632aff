"""The addresses of a browser's pages: what is told of them, and what it costs to know them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from browsercloud.cdp import capture as module
from browsercloud.cdp.capture import MAX_URL_LENGTH, MAX_URLS, PageUrls, clean_url
from browsercloud.cdp.connection import CdpConnection
from browsercloud.engines.base import BrowserHandle
from browsercloud.engines.local import LocalEngine
from browsercloud.options import Browser, SessionOptions
from tests.conftest import Site
from tests.leaks import browsers
from tests.server.conftest import until

CLEANED = [
    ("https://example.com/", "https://example.com/"),
    ("https://example.com:8443/a/b.html", "https://example.com:8443/a/b.html"),
    ("https://example.com/a?token=sesame&b=c", "https://example.com/a?…"),
    ("https://example.com/a?", "https://example.com/a?…"),
    ("https://example.com?q=http://u:p@h/", "https://example.com?…"),
    ("https://example.com/a#access_token=sesame", "https://example.com/a"),
    ("https://example.com/a?b#c?d", "https://example.com/a?…"),
    ("https://me:sesame@example.com/a", "https://example.com/a"),
    ("https://me@work:se@same@example.com/a@b", "https://example.com/a@b"),
    ("http://[::1]:80/a", "http://[::1]:80/a"),
    ("http://[/a", "http://[/a"),
    ("about:blank", "about:blank"),
    ("about:blank?sesame#sesame", "about:blank?…"),
    ("about:srcdoc", "about:srcdoc"),
    ("file:///home/me/page.html?a", "file:///home/me/page.html?…"),
    ("chrome://settings/passwords?q=a", "chrome://settings/passwords?…"),
    ("chrome-extension://abcdef/page.html", "chrome-extension://abcdef/page.html"),
    ("data:text/html,<h1>sesame", "data:text/html,…"),
    ("data:image/png;base64,AAAA", "data:image/png;base64,…"),
    ("data:,sesame", "data:,…"),
    ("data:sesame", "data:…"),
    (f"data:{'x' * 101},", "data:…"),
    ("blob:https://me:sesame@example.com/5e5a-6e", "blob:https://example.com/…"),
    ("blob:null/5e5a-6e", "blob:null/…"),
    ("filesystem:https://example.com/temporary/a", "filesystem:https://example.com/…"),
    ("view-source:https://me:sesame@h/a?b", "view-source:https://h/a?…"),
    ("javascript:alert('sesame')", "javascript:…"),
    ("mailto:me@example.com", "mailto:…"),
    ("view-source:" * 5_000 + "a:b", "view-source:view-source:…"),
    ("HTTPS://Example.com/A", "https://Example.com/A"),
    ("https://example.com/a\nb\x1b[31m", "https://example.com/a�b�[31m"),
    ("", ""),
    ("?a", "?…"),
    ("//u:p@h/a", "//h/a"),
]


@pytest.mark.parametrize(("url", "expected"), CLEANED, ids=[url[:40] for url, _ in CLEANED])
def test_a_cleaned_url(url: str, expected: str) -> None:
    """Where it is stays; who asked, what for, and what is in it does not."""
    assert clean_url(url) == expected
    assert clean_url(expected) == expected


def test_a_long_url_is_cut() -> None:
    """It says that it was."""
    long = clean_url("https://example.com/" + "a" * 5_000)
    assert len(long) == MAX_URL_LENGTH
    assert long.startswith("https://example.com/aaa")
    assert long.endswith("a…")
    assert clean_url("https://example.com/" + "a" * 280) == "https://example.com/" + "a" * 280


# ---------------------------------------------------------------------- real browsers


@pytest.fixture
async def engine(root: Path) -> AsyncIterator[LocalEngine]:
    """An engine of its own."""
    engine = LocalEngine(root / "data")
    await engine.open()
    yield engine
    await engine.close()


@pytest.fixture
async def known() -> AsyncIterator[PageUrls]:
    """What the tests look at."""
    known = PageUrls()
    yield known
    await known.close()


async def start(engine: LocalEngine, browser: Browser = Browser.HEADLESS_SHELL) -> BrowserHandle:
    """A browser."""
    return await engine.start(str(uuid.uuid4()), SessionOptions(browser=browser))


async def open_page(browser: CdpConnection, url: str) -> str:
    """A new tab; its target."""
    return str((await browser.send("Target.createTarget", {"url": url}))["targetId"])


@pytest.mark.parametrize("kind", list(Browser))
@pytest.mark.parametrize("how", ["kill", "terminate", "close"])
async def test_the_pages_of_a_browser_that_is_gone(
    engine: LocalEngine, known: PageUrls, site: Site, root: Path, kind: Browser, how: str
) -> None:
    """Killed or told to end, by whatever means: both pages are told, the later one last."""
    site.pages["/second"] = "<title>Second</title>"
    handle = await start(engine, kind)
    known.open(handle.endpoint)
    await until(lambda: known.urls == ("about:blank",))
    async with await CdpConnection.open(handle.endpoint) as browser:
        await open_page(browser, f"{site.url}/?q=sesame#sesame")
        await until(lambda: f"{site.url}/?…" in known.urls)
        await open_page(browser, f"{site.url}/second")
        await until(lambda: f"{site.url}/second" in known.urls)
        if how == "close":
            await browser.send("Browser.close")
        else:
            (process,) = browsers(root)
            os.kill(process.pid, signal.SIGKILL if how == "kill" else signal.SIGTERM)
        await handle.exited
    await until(lambda: len(known.urls) == 3)
    assert known._watching is not None
    await asyncio.wait({known._watching})
    assert known.urls == ("about:blank", f"{site.url}/?…", f"{site.url}/second")
    await engine.stop(handle, grace=0)
    await known.close()
    assert known.urls[1:] == (f"{site.url}/?…", f"{site.url}/second")


async def test_pages_come_and_go(engine: LocalEngine, known: PageUrls, site: Site) -> None:
    """A page that went somewhere comes last; one that was closed is no more; workers are none."""
    site.pages["/second"] = "<script>new Worker('/worker.js')</script><iframe src='/'></iframe>"
    site.scripts["/worker.js"] = "1"
    handle = await start(engine)
    known.open(handle.endpoint)
    await until(lambda: known.urls == ("about:blank",))
    async with await CdpConnection.open(handle.endpoint) as browser:
        first = await open_page(browser, f"{site.url}/")
        await until(lambda: known.urls == ("about:blank", f"{site.url}/"))
        await open_page(browser, f"{site.url}/second")
        await until(lambda: known.urls[2:] == (f"{site.url}/second",))
        attached = await browser.send("Target.attachToTarget", {"targetId": first, "flatten": True})
        await browser.send("Page.navigate", {"url": "data:text/html,sesame"}, attached["sessionId"])
        await until(lambda: known.urls[1:] == (f"{site.url}/second", "data:text/html,…"))
        await browser.send("Target.closeTarget", {"targetId": first})
        await until(lambda: known.urls == ("about:blank", f"{site.url}/second"))


async def test_a_browser_that_closes_its_last_page(
    engine: LocalEngine, known: PageUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a moment it may be about to go, and what it had open counts; then it has none."""
    monkeypatch.setattr(module, "GOODBYE", 60)
    handle = await start(engine)
    known.open(handle.endpoint)
    await until(lambda: known.urls == ("about:blank",))
    async with await CdpConnection.open(handle.endpoint) as browser:
        (first,) = (await browser.send("Target.getTargets"))["targetInfos"]
        second = await open_page(browser, "about:blank?2")
        await until(lambda: known.urls == ("about:blank", "about:blank?…"))
        await browser.send("Target.closeTarget", {"targetId": first["targetId"]})
        await until(lambda: known.urls == ("about:blank?…",))
        await browser.send("Target.closeTarget", {"targetId": second})
        await until(lambda: all(page.closed_at for page in known._pages.values()))
        assert known.urls == ("about:blank", "about:blank?…")
        monkeypatch.setattr(module, "GOODBYE", 0)
        assert known.urls == ()


async def test_only_the_latest_pages_are_told(engine: LocalEngine, known: PageUrls) -> None:
    """At most 20 of them."""
    handle = await start(engine)
    known.open(handle.endpoint)
    async with await CdpConnection.open(handle.endpoint) as browser:
        for number in range(25):
            await open_page(browser, f"about:blank?{number}")
        last = f"data:text/x{number}"
        await open_page(browser, f"{last},a")
        await until(lambda: f"{last},…" in known.urls)
    assert len(known.urls) == MAX_URLS


class Counting(PageUrls):
    """Counts what the browser tells it."""

    told = 0

    def _changed(self, params: Mapping[str, Any], cdp_session_id: str | None) -> None:
        self.told += 1
        super()._changed(params, cdp_session_id)


async def test_what_it_costs(engine: LocalEngine, site: Site) -> None:
    """With a dozen tabs a page loads as fast as unwatched, for a few messages."""
    known = Counting()
    site.pages["/page"] = "<!doctype html><title>A page</title>" + "<p>word " * 200
    watched, plain = await start(engine), await start(engine)
    known.open(watched.endpoint)
    times: dict[str, list[float]] = {"watched": [], "plain": []}
    async with (
        await CdpConnection.open(watched.endpoint) as first,
        await CdpConnection.open(plain.endpoint) as second,
    ):
        loads: dict[str, Callable[[], Awaitable[None]]] = {}
        for name, browser in (("watched", first), ("plain", second)):
            for number in range(12):
                await open_page(browser, f"data:text/html,{number}")
            loads[name] = await loader(browser, f"{site.url}/page")
        before = known.told
        for _ in range(10):
            for name, load in loads.items():
                begun = time.perf_counter()
                await load()
                times[name].append((time.perf_counter() - begun) * 1000)
    messages = (known.told - before) / 10
    best = {name: round(min(found), 1) for name, found in times.items()}
    print(f"a page loads in (best, ms) {best}; {messages:g} messages for each")
    assert len(known.urls) == 14
    assert 1 <= messages <= 6
    assert best["watched"] < 3 * best["plain"]
    await known.close()


async def loader(browser: CdpConnection, url: str) -> Callable[[], Awaitable[None]]:
    """Loads *url* in a tab of its own, each time it is called."""
    target = await open_page(browser, "about:blank")
    attached = await browser.send("Target.attachToTarget", {"targetId": target, "flatten": True})
    page = attached["sessionId"]
    await browser.send("Page.enable", cdp_session_id=page)
    loaded = asyncio.Event()
    browser.on("Page.loadEventFired", lambda _, session: loaded.set() if session == page else None)

    async def load() -> None:
        loaded.clear()
        await browser.send("Page.navigate", {"url": url}, page)
        async with asyncio.timeout(10):
            await loaded.wait()

    return load


# ---------------------------------------------------------------------- browsers that misbehave


async def test_a_browser_that_refuses(known: PageUrls, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is known of it, one line in the debug log says why, and its address is not in it."""
    caplog.set_level(logging.DEBUG, "browsercloud")
    known.open("ws://127.0.0.1:9/sesame")
    known.open("ws://127.0.0.1:9/sesame")
    assert known._watching is not None
    await asyncio.wait({known._watching})
    assert known.urls == ()
    (line,) = [record for record in caplog.records if record.name == "browsercloud.cdp.capture"]
    assert line.levelno == logging.DEBUG
    assert "sesame" not in caplog.text


@pytest.mark.parametrize("behaviour", ["mute", "drop", "error", "nonsense"])
async def test_a_browser_that_misbehaves(known: PageUrls, behaviour: str) -> None:
    """One that says nothing, hangs up, refuses the call, or talks nonsense does no harm."""
    asked = asyncio.Event()

    async def answer(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            asked.set()
            match behaviour:
                case "drop":
                    assert request.transport is not None
                    request.transport.abort()
                case "error":
                    number = message.json()["id"]
                    await ws.send_json({"id": number, "error": {"code": 1, "message": "no"}})
                case "nonsense":
                    await ws.send_str("{")
        return ws

    app = web.Application()
    app.router.add_get("/", answer)
    async with TestServer(app) as server:
        known.open(str(server.make_url("/")).replace("http", "ws", 1))
        async with asyncio.timeout(5):
            await asked.wait()
            if behaviour != "mute":
                assert known._watching is not None
                await asyncio.wait({known._watching})
        assert known.urls == ()
        begun = time.perf_counter()
        await known.close()
        await known.close()
        assert time.perf_counter() - begun < 1.5


async def test_closing_what_was_never_opened() -> None:
    """Is silent, and it knows nothing."""
    known = PageUrls()
    await known.close()
    assert known.urls == ()
