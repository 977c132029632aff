"""`churn`: how many sessions a second: create, go to a page, read its title, release."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from playwright.async_api import Page

from browsercloud import BrowserCloud
from browsercloud.options import Browser
from tests.bench.ground import TITLES, Ground, quiet
from tests.bench.measure import Contender, Group, Once, contest, side_by_side, times_of

EMBEDDED = "browsercloud, embedded"
SERVED = "browsercloud, serve"
LAUNCH = "Playwright launch() for each"
CONTEXT = "Playwright new_context() for each"
NEEDED = {Browser.CHROMIUM: 1.5, Browser.HEADLESS_SHELL: 1.1}
COMPARED_AT = 4

Session = Callable[[], Awaitable[None]]


async def visit(page: Page, url: str) -> None:
    """What a session does."""
    await page.goto(url)
    if (title := await page.title()) != "Home":
        raise RuntimeError(f"the page's title is {title!r}")


@asynccontextmanager
async def ours(
    opened: Callable[[], AbstractAsyncContextManager[BrowserCloud]], ground: Ground, kind: Browser
) -> AsyncIterator[Session]:
    """A session each."""
    async with opened() as client:

        async def session() -> None:
            async with client.session(browser=kind.value) as live:
                await visit(live.page, ground.site.url)

        yield session


@asynccontextmanager
async def launch(ground: Ground, kind: Browser) -> AsyncIterator[Session]:
    """A browser each."""
    async with ground.driver() as chromium:

        async def session() -> None:
            async with await chromium.launch(**ground.launch_args(kind)) as browser:
                await visit(await browser.new_page(), ground.site.url)

        yield session


@asynccontextmanager
async def context(ground: Ground, kind: Browser) -> AsyncIterator[Session]:
    """A context each, in one browser."""
    async with (
        ground.driver() as chromium,
        await chromium.launch(**ground.launch_args(kind)) as browser,
    ):

        async def session() -> None:
            async with await browser.new_context() as found:
                await visit(await found.new_page(), ground.site.url)

        yield session


@asynccontextmanager
async def churning(
    make: Callable[[], AbstractAsyncContextManager[Session]], levels: Mapping[int, int]
) -> AsyncIterator[Once]:
    """So many sessions at each level, so many at a time."""
    async with make() as session:

        async def once() -> Mapping[str, float]:
            found = {}
            for at_once, count in levels.items():
                found[str(at_once)] = await rate(session, at_once, count)
                await quiet()
            return found

        yield once


async def rate(session: Session, at_once: int, count: int) -> float:
    """Sessions a second."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await session()

    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
    return count / (time.perf_counter() - begin)


def contenders(ground: Ground, kind: Browser, levels: Mapping[int, int]) -> list[Contender]:
    """In the order of their turns."""
    embedded = partial(ground.embedded, kind)
    served = partial(ground.served, kind, f"churn-{kind.value}")
    makers: dict[str, Callable[[], AbstractAsyncContextManager[Session]]] = {
        EMBEDDED: partial(ours, embedded, ground, kind),
        SERVED: partial(ours, served, ground, kind),
        LAUNCH: partial(launch, ground, kind),
        CONTEXT: partial(context, ground, kind),
    }
    return [Contender(name, partial(churning, make, levels)) for name, make in makers.items()]


async def measure(ground: Ground) -> list[Group]:
    """Both kinds at each level."""
    levels = {COMPARED_AT: 6} if ground.quick else {1: 8, COMPARED_AT: 24, 8: 32}
    rounds = 1 if ground.quick else max(3, ground.rounds // 5)
    kinds = []
    for kind in ground.programs:
        warm_up = 0 if ground.quick else 1
        found = contenders(ground, kind, levels)
        outcome = await contest(found, rounds, pause=quiet, warm_up=warm_up)
        needed = [times_of(one, LAUNCH, NEEDED[kind]) for one in (EMBEDDED, SERVED)]
        kinds.append(
            [
                Group(
                    row="churn",
                    title=f"{at_once} at a time, {TITLES[kind]}",
                    unit="sessions/s",
                    base=SERVED,
                    samples=outcome.samples.get(str(at_once), {}),
                    failed=outcome.failed,
                    more=True,
                    targets=needed if at_once == COMPARED_AT else [],
                )
                for at_once in levels
            ]
        )
    return side_by_side(kinds)
