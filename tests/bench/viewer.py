"""`viewer`: how soon a person sees something, what watching costs, and whether the driver feels it.

A session of a server in a process of its own; the viewer is a bare socket, as a page would have it.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import aiohttp

from browsercloud import BrowserCloud
from browsercloud.client.live import LiveSession
from browsercloud.options import Browser
from tests.bench.ground import TITLES, Ground, cpu_of, offspring, quiet
from tests.bench.measure import Contender, Group, Once, Target, at_most, contest, part_of

WATCHED, ALONE = "with a viewer", "without"
SECONDS = 4.0
CALLS = 200
STILL = "<!doctype html><title>still</title><h1>still</h1>"
CLICKED = """<!doctype html><body style="margin:0;height:100vh" onmousedown="
    document.body.style.background = document.body.style.background === 'red' ? 'blue' : 'red'">"""
MOVING = """<!doctype html><div id=box style="position:absolute;width:300px;height:300px;
    background:teal"></div><script>let n = 0; (function step() {
    box.style.left = (n++ % 600) + 'px'; requestAnimationFrame(step); })()</script>"""


@asynccontextmanager
async def session_of(
    ground: Ground, client: BrowserCloud, kind: Browser, html: str
) -> AsyncIterator[LiveSession]:
    """A session that shows this page."""
    ground.site.pages["/watched"] = html
    async with client.session(browser=kind.value) as session:
        await session.page.goto(f"{ground.site.url}/watched")
        await quiet()
        yield session


@asynccontextmanager
async def watching(session: LiveSession) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A viewer's socket, open a moment ago."""
    link = await session.viewer_url(interactive=True)
    address = link.replace("/sessions/", "/v1/sessions/").replace("/viewer?", "/viewer/ws?")
    async with aiohttp.ClientSession() as http:
        async with http.ws_connect(address, max_msg_size=0) as socket:
            yield socket


async def picture(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Return when one comes."""
    while (await socket.receive(timeout=30)).type is not aiohttp.WSMsgType.BINARY:
        continue


@asynccontextmanager
async def looks(ground: Ground, client: BrowserCloud, kind: Browser) -> AsyncIterator[Once]:
    """First pictures, changed pictures, and their number."""

    async def once() -> Mapping[str, float]:
        told = {}
        async with session_of(ground, client, kind, CLICKED) as session:
            async with watching(session) as socket:
                begin = time.perf_counter()
                await picture(socket)
                told["first"] = (time.perf_counter() - begin) * 1000
                told["input"] = await _click(socket)
        async with (
            session_of(ground, client, kind, MOVING) as session,
            watching(session) as socket,
        ):
            await picture(socket)
            told["frames"] = await _frames(socket) / SECONDS
        return told

    yield once


async def _click(socket: aiohttp.ClientWebSocketResponse) -> float:
    """Milliseconds from a click to another picture: the median of ten."""
    took = []
    for _ in range(10):
        while True:  # what was drawn before
            try:
                async with asyncio.timeout(0.3):
                    await picture(socket)
            except TimeoutError:
                break
        begin = time.perf_counter()
        click = {"type": "mouse", "x": 50, "y": 50, "button": "left", "clicks": 1}
        for way in ("mousePressed", "mouseReleased"):
            await socket.send_str(json.dumps({**click, "kind": way}))
        await picture(socket)
        took.append((time.perf_counter() - begin) * 1000)
    return statistics.median(took)


async def _frames(socket: aiohttp.ClientWebSocketResponse) -> int:
    """Pictures within so many seconds."""
    count, end = 0, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        await picture(socket)
        count += 1
    return count


@asynccontextmanager
async def costs(
    ground: Ground, client: BrowserCloud, kind: Browser, *, watched: bool
) -> AsyncIterator[Once]:
    """What a still page takes, and a driver's call."""

    async def measured(session: LiveSession) -> Mapping[str, float]:
        before, begin = _used(), time.perf_counter()
        await asyncio.sleep(SECONDS)
        used = (_used() - before) / (time.perf_counter() - begin) * 100
        took = []
        for _ in range(CALLS):
            begin = time.perf_counter()
            await session.page.evaluate("1")
            took.append((time.perf_counter() - begin) * 1000)
        return {"still": used, "call": statistics.median(took)}

    async def once() -> Mapping[str, float]:
        async with session_of(ground, client, kind, STILL) as session:
            if not watched:
                return await measured(session)
            async with watching(session) as socket:
                await picture(socket)
                reading = asyncio.create_task(_frames_for_ever(socket))
                try:
                    await asyncio.sleep(1)
                    return await measured(session)
                finally:
                    reading.cancel()

    yield once


async def _frames_for_ever(socket: aiohttp.ClientWebSocketResponse) -> None:
    async for _ in socket:
        continue


def _used() -> float:
    return sum(cpu_of(process) for process in offspring())


async def measure(ground: Ground) -> list[Group]:
    """Both kinds, one after the other."""
    groups = []
    for kind in ground.programs:
        async with ground.served(kind, f"viewer-{kind.value}") as client:
            seen = await contest(
                [Contender(WATCHED, partial(looks, ground, client, kind))],
                ground.fewer,
                pause=quiet,
            )
            paid = await contest(
                [
                    Contender(name, partial(costs, ground, client, kind, watched=name == WATCHED))
                    for name in (ALONE, WATCHED)
                ],
                ground.fewer,
                pause=quiet,
            )
        rows: list[tuple[str, str, str, list[Target], bool]] = [
            ("first", "socket → first picture", "ms", [at_most(WATCHED, 150, "ms")], False),
            ("input", "click → changed picture", "ms", [at_most(WATCHED, 100, "ms")], False),
            ("frames", "a moving page", "/s", [_at_least(20)], True),
            ("still", "a still page, of a core", "%", [_more(5)], False),
            ("call", "driver's evaluate", "ms", [part_of(WATCHED, ALONE, 1.15)], False),
        ]
        for name, title, unit, targets, more in rows:
            outcome = seen if name in seen.samples else paid
            groups.append(
                Group(
                    row="viewer",
                    title=f"{title}, {TITLES[kind]}",
                    unit=unit,
                    base=WATCHED if outcome is seen else ALONE,
                    samples=outcome.samples.get(name, {}),
                    failed=outcome.failed,
                    targets=targets,
                    more=more,
                )
            )
    return groups


def _at_least(limit: float) -> Target:
    return Target(WATCHED, lambda found: found[WATCHED], limit, "/s", at_least=True)


def _more(limit: float) -> Target:
    return Target(
        f"{WATCHED}: adds", lambda found: found[WATCHED] - found[ALONE], limit, "% of a core"
    )
