"""Stealth as a program with Playwright has it: its pace, its pages, its record, bad input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
from playwright.async_api import Error, Page, async_playwright

from browsercloud import BrowserCloud
from browsercloud.errors import InvalidRequest
from browsercloud.stealth import Stealth
from tests.conftest import Site

FORM = """<!doctype html><title>Form</title><form onsubmit="return false">
<input id=name><textarea id=words></textarea><input id=when type=date><input id=short maxlength=3>
<input id=many type=number>
<label>Label <input id=labelled></label><p id=free contenteditable>old</p>
<button id=go onclick="times.push(['click', performance.now()])">Go</button></form>
<iframe src=/inner></iframe>
<script>
const times = [];
const note = event => times.push([event.type + (event.data ?? ''), performance.now()]);
document.addEventListener('input', note);
document.addEventListener('keydown', event => times.push(['down ' + event.key, performance.now()]));
</script>"""
HUMAN = Stealth(humanize_interactions=True, skip_fingerprint_injection=True)


@pytest.fixture
def form(site: Site) -> Iterator[str]:
    """A page that notes when it is touched."""
    site.pages["/form"] = FORM
    site.pages["/inner"] = "<!doctype html><input id=inside>"
    return iter([f"{site.url}/form"])


async def noted(page: Page) -> list[tuple[str, float]]:
    """What happened since the last time, in seconds from a moment before."""
    found = await page.evaluate("times.splice(0)")
    return [(name, at / 1000) for name, at in found]


def gaps(seen: list[tuple[str, float]]) -> list[float]:
    """Seconds from key to key."""
    keys = [at for name, at in seen if name.startswith("down ") and len(name) == 6]
    return [after - before for before, after in pairwise(keys)]


async def test_it_acts_as_a_person_does(form: Iterator[str]) -> None:
    """Pause, then key by key: pages, locators and frames; the result is Playwright's own."""
    async with BrowserCloud() as client, client.session(stealth=HUMAN) as session:
        page = session.page
        await page.goto(next(form))
        now = "performance.now() / 1000"
        for act in (page.click("#go"), page.locator("#go").click(), page.get_by_text("Go").click()):
            begun = await page.evaluate(now)
            await act
            assert 0.05 <= (await noted(page))[0][1] - begun < 0.6
        for typed in (
            page.fill("#name", "abc"),
            page.locator("#name").fill("abc"),
            page.get_by_label("Label").fill("abc"),
            page.locator("#words").press_sequentially("abc"),
            page.type("#words", "abc"),
        ):
            await typed
            seen = gaps(await noted(page))
            assert 2 == len(seen)
            assert min(seen) >= 0.025
            assert max(seen) < 0.6
        assert "abc" == await page.input_value("#labelled")
        assert "abcabc" == await page.input_value("#words")
        await page.frames[1].fill("#inside", "in")
        assert "in" == await page.frames[1].input_value("#inside")
        for field, value in (("#words", "1\n2"), ("#when", "2030-01-31")):
            await page.fill(field, value)
            assert value == await page.input_value(field)
        await page.fill("#short", "long")
        assert "lon" == await page.input_value("#short")
        await page.fill("#free", "new")
        assert "new" == await page.inner_text("#free")
        await page.fill("#name", "")
        assert not await page.input_value("#name")
        with pytest.raises(Error, match=r"Timeout 300ms|strict mode"):
            await page.locator("input").fill("x", timeout=300)
        with pytest.raises(Error, match="Timeout 300ms"):
            await page.click("#nothing", timeout=300)
        with pytest.raises(Error, match="Cannot type text"):
            await page.fill("#many", "soon")
        await _others_are_as_before(session.websocket_url, next(iter([page.url])))
        more = await session.context.new_page()
        await more.goto(page.url)
        await more.fill("#name", "abc")
        assert min(gaps(await noted(more))) >= 0.025
        again = await session.reconnect()
        await again.fill("#name", "abc")
        assert min(gaps(await noted(again))) >= 0.025


async def _others_are_as_before(endpoint: str, url: str) -> None:
    """Another Playwright of the same program types at once."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(endpoint)
        page = await browser.contexts[0].new_page()
        await page.goto(url)
        await page.type("#name", "abc")
        assert max(gaps(await noted(page))) < 0.03
        await page.close()
        await browser.close()


async def test_bad_stealth_is_refused() -> None:
    """By the path of what is wrong; Steel's CAPTCHAs by their name."""
    for value, words in (
        ({"humanise": True}, "stealth.humanise: unknown field"),
        ({"humanize_interactions": 1}, r"stealth\.humanizeInteractions: must be true or false"),
        ({"auto_captcha_solving": True}, r"stealth\.autoCaptchaSolving: this server does not"),
        ("yes", "stealth: must be an object"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            BrowserCloud().session(stealth=value)  # type: ignore[arg-type]


async def test_a_page_with_playwright_attached_gives_nothing_away(site: Site) -> None:
    """The detector is content, and the record tells what was picked for the session."""
    site.pages["/"] = "<!doctype html><body><script src=/detector.js></script>"
    source = Path(__file__).parents[1] / "browser" / "detector.js"
    site.scripts["/detector.js"] = source.read_text()
    async with BrowserCloud(pool=0) as client:
        async with client.session(stealth={"humanize_interactions": False}) as session:
            await session.page.goto(f"{site.url}/")
            found = await session.page.evaluate("detect()")
            assert [] == [name for name, so in found.items() if so is not True and name != "told"]
            width, height = await session.page.evaluate("[innerWidth, innerHeight]")
            assert (width, height) == attrs.astuple(session.info.dimensions)
            assert json.loads(found["told"])["userAgent"] == session.info.user_agent
            assert Stealth() == session.info.stealth
            other = await session.context.new_page()
            await other.goto(f"{site.url}/")
            assert found["told"] == (await other.evaluate("detect()"))["told"]
