"""What is told of what happens in the pages of a browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright

from browsercloud.cdp import timeline as timeline_of
from browsercloud.cdp.connection import CdpConnection
from browsercloud.cdp.timeline import MAX_TEXT, PageEvent, Timeline
from browsercloud.engines.local import LocalEngine
from browsercloud.options import Browser, SessionOptions
from tests.conftest import Site
from tests.killing import evaluate, go, nothing_is_left
from tests.processes import until

Told = list[tuple[str, Mapping[str, Any]]]
SHOP = """<!doctype html><title>Shop</title><img src=/nothing.png><script>
console.warn('look', 7, {a: 1}); console.log('x'.repeat(5000));
setTimeout(() => { throw new Error('boom'); });
fetch('/two?token=secret', {headers: {Authorization: 'secret'}}).then(one => one.text());
new Worker('/worker.js');
</script><iframe src=/frame></iframe><a id=file href=/two download=report.csv>get</a>"""


@pytest_asyncio.fixture
async def endpoint(root: Path) -> AsyncIterator[str]:
    """A headless shell's."""
    engine = LocalEngine(root / "data")
    await engine.open()
    handle = await engine.start("one", SessionOptions(browser=Browser.HEADLESS_SHELL))
    yield handle.endpoint
    await engine.close()
    nothing_is_left(root / "data")


def listener(told: Told, **more: Any) -> Timeline:
    """A timeline that writes into the list."""
    return Timeline(lambda kind, details: told.append((kind, details)), **more)


def of(told: Told, kind: PageEvent, /, **wanted: Any) -> list[Mapping[str, Any]]:
    """The details of those events."""
    found = (details for name, details in told if name == kind)
    return [each for each in found if wanted.items() <= each.items()]


def happened(told: Told, kind: PageEvent, /, **wanted: Any) -> Callable[[], bool]:
    """Whether one has been told."""
    return lambda: bool(of(told, kind, **wanted))


async def test_all_that_happens_is_told(endpoint: str, site: Site) -> None:
    """Each with what one looks for, and nothing that is secret, long, or a frame's."""
    site.pages |= {"/": SHOP, "/two": "two", "/frame": "<script>console.log('framed')</script>"}
    site.scripts["/worker.js"] = "console.log('worked')"
    told: Told = []
    async with await CdpConnection.open(endpoint) as cdp:
        timeline = listener(told)
        await timeline.begin(cdp)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.connect_over_cdp(endpoint)
            page = browser.contexts[0].pages[0]
            await page.goto(f"{site.url}/?password=secret")
            await until(happened(told, PageEvent.REQUEST, url=f"{site.url}/two?…"), "a request")
            await until(happened(told, PageEvent.CONSOLE, text="worked"), "a worker's words")
            await page.evaluate("history.pushState('', '', '/pushed?secret#secret')")
            await _asks(page)
            async with page.expect_download() as coming:
                await page.click("#file")
            await coming.value
            await until(happened(told, PageEvent.DOWNLOADED, state="completed"), "a download")
            tab = await page.context.new_page()
            await tab.close()
            await until(happened(told, PageEvent.CLOSED), "a closed page")
            await browser.close()
        timeline.close()
    assert "secret" not in repr(told)
    went = [each["url"] for each in of(told, PageEvent.NAVIGATED)]
    assert [f"{site.url}/?…", f"{site.url}/pushed?…"] == went[:2]
    assert of(told, PageEvent.LOADED)
    warned = of(told, PageEvent.CONSOLE, level="warning")[0]
    assert ("look 7 Object", 2) == (warned["text"], warned["line"])
    assert MAX_TEXT == max(len(each["text"]) for each in of(told, PageEvent.CONSOLE))
    assert of(told, PageEvent.CONSOLE, text="framed")
    assert "Error: boom" == of(told, PageEvent.ERROR)[0]["text"]
    missing = of(told, PageEvent.REQUEST, url=f"{site.url}/nothing.png")[0]
    assert ("GET", "image", 404) == (missing["method"], missing["kind"], missing["status"])
    assert missing["size"] > 0
    assert missing["duration"] >= 0
    assert "sure?" == of(told, PageEvent.DIALOG, kind="confirm")[0]["text"]
    assert "report.csv" == of(told, PageEvent.DOWNLOAD)[0]["name"]
    assert 1 == len({each["page"] for each in of(told, PageEvent.REQUEST)})


async def _asks(page: Page) -> None:
    """A question that the driver answers."""
    page.once("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
    assert await page.evaluate("confirm('sure?')")


async def test_it_ends_when_there_is_too_much(endpoint: str) -> None:
    """The last that is told says so, and nothing is listened to any more."""
    told: Told = []
    async with await CdpConnection.open(endpoint) as cdp:
        timeline = listener(told, most=5)
        await timeline.begin(cdp)
        await until(happened(told, PageEvent.OPENED), "the page")
        await evaluate(endpoint, "for (let n = 0; n < 100; n++) console.log(n)")
        await until(lambda: len(told) == 5, "the end")
        await evaluate(endpoint, "console.log('more')")
        assert 5 == len(told)
        assert PageEvent.FULL == told[-1][0]
        timeline.close()


async def test_without_the_console_a_page_sees_nothing(endpoint: str) -> None:
    """No getter of what it writes there is called, which tells a page that somebody listens."""
    bait = """(() => { let read = 0; const one = new Error();
        Object.defineProperty(one, 'stack', {get() { read += 1; return ''; }});
        console.debug(one); return read; })()"""
    told: Told = []
    async with await CdpConnection.open(endpoint) as cdp:
        timeline = listener(told, console=False)
        await timeline.begin(cdp)
        await until(happened(told, PageEvent.OPENED), "the page")
        assert 0 == await evaluate(endpoint, bait)
        assert not of(told, PageEvent.CONSOLE)
        timeline.close()


async def test_a_dialog_that_nobody_answers_is_dismissed(
    endpoint: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that does not listen to pages waits a while, and not for ever."""
    monkeypatch.setattr(timeline_of, "ALONE", 0.2)
    site.pages["/"] = "here"
    told: Told = []
    await go(endpoint, f"{site.url}/")
    async with await CdpConnection.open(endpoint) as cdp:
        timeline = listener(told)
        await timeline.begin(cdp)
        await until(happened(told, PageEvent.OPENED), "the page")
        await until(lambda: not timeline._saying, "listening")
        assert not await evaluate(endpoint, "confirm('sure?')")
        assert of(told, PageEvent.DIALOG)
        timeline.close()
