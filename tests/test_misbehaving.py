"""Pages that misbehave hurt neither the session beside them nor the server that runs both."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from browsercloud.cdp.connection import CdpClosed, CdpConnection
from browsercloud.engines.base import BrowserHandle
from browsercloud.engines.local import LocalEngine
from browsercloud.options import Browser, SessionOptions

MEGABYTE = 1024 * 1024
CAPS = {Browser.CHROMIUM: 600 * MEGABYTE, Browser.HEADLESS_SHELL: 300 * MEGABYTE}
"""A full Chromium takes up to 300 MB for a moment while it starts."""

WORST = 3.0
"""Seconds that one round trip of the neighbour may take, on a machine that is busy with tests."""

USUAL = 0.3
"""Seconds that half of its round trips have to beat."""

STOP_WITHIN = 10.0
TABS = 500
DOWNLOADS = 300

Misdeed = Callable[["Driver"], Awaitable[None]]


class Driver:
    """A CDP client on the first page of a session."""

    def __init__(self, cdp: CdpConnection, page: str) -> None:
        self.cdp = cdp
        self.page = page

    async def evaluate(self, expression: str, *, gesture: bool = False) -> object:
        """The value of *expression* in the page."""
        asked = {"expression": expression, "userGesture": gesture, "awaitPromise": True}
        answer = await self.cdp.send("Runtime.evaluate", asked, self.page)
        return answer["result"].get("value")

    async def begin(self, expression: str) -> None:
        """Have it run; it need not end, not even begin to answer."""
        await self.evaluate(f"setTimeout(() => {{ {expression} }}, 0)")


@asynccontextmanager
async def _driving(handle: BrowserHandle) -> AsyncIterator[Driver]:
    async with await CdpConnection.open(handle.endpoint) as cdp:
        targets = (await cdp.send("Target.getTargets"))["targetInfos"]
        page = next(one["targetId"] for one in targets if one["type"] == "page")
        attached = await cdp.send("Target.attachToTarget", {"targetId": page, "flatten": True})
        yield Driver(cdp, attached["sessionId"])


@asynccontextmanager
async def _unhurt(neighbour: Driver) -> AsyncIterator[None]:
    """Drive the neighbour all the while, and look afterwards how long its answers took."""
    times: list[float] = []
    over = asyncio.Event()

    async def drive() -> None:
        while not over.is_set():
            begun = time.monotonic()
            assert await neighbour.evaluate("6 * 7") == 42
            times.append(time.monotonic() - begun)
            await asyncio.sleep(0.02)

    driving = asyncio.create_task(drive())
    try:
        yield
    finally:
        over.set()
        await driving
    assert max(times) < WORST, f"one of {len(times)} round trips took {max(times):.2f} s"
    assert statistics.median(times) < USUAL


@asynccontextmanager
async def _two(
    root: Path, browser: Browser, cap: int = 0
) -> AsyncIterator[tuple[LocalEngine, BrowserHandle, BrowserHandle]]:
    """An engine with two sessions, a bad one and a good one."""
    engine = LocalEngine(root / "data", memory_cap=cap)
    await engine.open()
    try:
        options = SessionOptions(browser=browser)
        bad, good = await asyncio.gather(
            engine.start("bad", options),
            engine.start("good", SessionOptions(browser=Browser.HEADLESS_SHELL)),
        )
        yield engine, bad, good
    finally:
        await engine.close()


async def _runs_forever(driver: Driver) -> None:
    await driver.begin("while (true) {}")
    await asyncio.sleep(1)
    # The page does not answer any more; its browser does.
    answering = asyncio.create_task(driver.evaluate("1"))
    await driver.cdp.send("Browser.getVersion")
    await asyncio.sleep(0.2)
    assert not answering.done()
    answering.cancel()


async def _shows_boxes(driver: Driver) -> None:
    opened = asyncio.Event()
    driver.cdp.on("Page.javascriptDialogOpening", lambda params, _: opened.set())
    await driver.cdp.send("Page.enable", {}, driver.page)
    await driver.begin("while (true) alert('look at me')")
    await asyncio.wait_for(opened.wait(), 10)
    await driver.cdp.send("Browser.getVersion")


async def _opens_tabs(driver: Driver) -> None:
    opens = f"for (let n = 0; n < {TABS}; n++) open('about:blank')"
    await driver.evaluate(opens, gesture=True)
    targets = (await driver.cdp.send("Target.getTargets"))["targetInfos"]
    assert len([one for one in targets if one["type"] == "page"]) > TABS


@pytest.mark.parametrize(
    ("browser", "misdeed"),
    [
        (Browser.CHROMIUM, _runs_forever),
        (Browser.HEADLESS_SHELL, _runs_forever),
        (Browser.CHROMIUM, _shows_boxes),
        (Browser.HEADLESS_SHELL, _opens_tabs),
    ],
)
async def test_a_neighbour_is_not_hurt(root: Path, browser: Browser, misdeed: Misdeed) -> None:
    """Its round trips stay short, and the bad one is stopped in the usual time."""
    async with _two(root, browser) as (engine, bad, good):
        async with _driving(good) as neighbour, _unhurt(neighbour):
            async with _driving(bad) as driver:
                await misdeed(driver)
            begun = time.monotonic()
            await engine.stop(bad, grace=2)
            assert time.monotonic() - begun < STOP_WITHIN
        assert {"good": good} == engine.running()
        assert await engine.poll(good) is None


SAVES = """
    (async () => {
        const url = URL.createObjectURL(new Blob([new Uint8Array(1 << 20)]));
        for (let n = 0; n < COUNT; n++) {
            const link = document.createElement('a');
            link.href = url;
            link.download = `file${n}.bin`;
            link.click();
            await new Promise(done => setTimeout(done, 2));
        }
    })()
""".replace("COUNT", str(DOWNLOADS))


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # the browser is at work in there
            total += path.lstat().st_size
    return total


@pytest.mark.parametrize("browser", list(Browser))
async def test_a_storm_of_downloads_does_not_fill_the_disk(root: Path, browser: Browser) -> None:
    """Chromium lets a page save one file without a click of its own, the headless shell none."""
    async with _two(root, browser) as (engine, bad, good):
        async with _driving(good) as neighbour, _unhurt(neighbour), _driving(bad) as driver:
            await driver.evaluate(SAVES, gesture=True)
            await asyncio.sleep(0.5)
        folder = root / "data" / "sessions" / "bad"
        saved = [path for path in folder.rglob("*") if path.name.startswith("file")]
        assert len(saved) <= 1
        assert _size(folder) < 50 * MEGABYTE
        await engine.stop(bad, grace=2)
        assert not folder.exists()


@pytest.mark.parametrize("browser", list(Browser))
async def test_a_page_that_eats_memory_ends_alone(root: Path, browser: Browser) -> None:
    """Above the cap its session is ended, says why and how much it had; the neighbour runs on."""
    cap = CAPS[browser]
    async with _two(root, browser, cap) as (engine, bad, good):
        async with _driving(good) as neighbour, _unhurt(neighbour):
            async with _driving(bad) as driver:
                eats = "setInterval(() => kept.push(new Uint8Array(5 << 20).fill(1)), 20)"
                try:
                    await driver.evaluate(f"window.kept = []; {eats}")
                except CdpClosed:  # it may be ended before it has answered
                    assert bad.exited.done()
                end = await asyncio.wait_for(asyncio.shield(bad.exited), 20)
        assert end.out_of_memory
        assert end.memory is not None
        assert end.memory > cap
        assert end == await engine.poll(bad)
        await engine.stop(bad, grace=0)
        assert await engine.poll(good) is None
        usage = await engine.usage()
        assert ["good"] == list(usage)
        assert 0 < usage["good"].memory < cap
