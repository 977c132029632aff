"""`memory`: what an idle session takes, each of ten, and what the server takes without any.

PSS: what several processes share is counted once. Only browsers count for a session; neither our
server nor Playwright's driver.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import psutil

from browsercloud import BrowserCloud
from browsercloud.options import Browser
from tests.bench.ground import (
    MB,
    TITLES,
    WITHOUT_POOL,
    Ground,
    chromium_processes,
    offspring,
    pss,
    quiet,
    serve_arguments,
)
from tests.bench.measure import Contender, Group, Once, at_most, contest, part_of, side_by_side
from tests.serving import KEY

OURS = "browsercloud session"
LAUNCH = "Playwright launch()"
SERVER = "browsercloud serve, PSS with its guard"
SERVER_RSS = "browsercloud serve, RSS of the server alone"
NEEDED = {Browser.CHROMIUM: 0.75, Browser.HEADLESS_SHELL: 1.0}
EACH_OF = 10


async def each(ground: Ground, kind: Browser) -> Mapping[str, float]:
    """The browsers that run now, one session's part of them; once they have nothing to do."""
    await quiet()
    processes = chromium_processes(ground.programs[kind], offspring())
    return {
        "memory": pss(processes) / EACH_OF,
        "processes": len(processes) / EACH_OF,
    }


@asynccontextmanager
async def ours(ground: Ground, kind: Browser) -> AsyncIterator[Once]:
    """Ten sessions on a server that has room for no more: none can wait in a pool beside them."""

    async def once() -> Mapping[str, float]:
        arguments = serve_arguments(kind, sessions=EACH_OF)
        with ground.serve(f"memory-{kind.value}", *arguments) as server:
            async with BrowserCloud(server.url, api_key=KEY) as client, AsyncExitStack() as stack:
                for _ in range(EACH_OF):
                    session = client.session(browser=kind.value)
                    live = await stack.enter_async_context(session)
                    await live.page.goto(ground.site.url)
                return await each(ground, kind)

    yield once


@asynccontextmanager
async def launch(ground: Ground, kind: Browser) -> AsyncIterator[Once]:
    """Ten browsers of Playwright."""

    async def once() -> Mapping[str, float]:
        async with ground.driver() as chromium, AsyncExitStack() as stack:
            for _ in range(EACH_OF):
                browser = await chromium.launch(**ground.launch_args(kind))
                stack.push_async_callback(browser.close)
                page = await browser.new_page()
                await page.goto(ground.site.url)
            return await each(ground, kind)

    yield once


@asynccontextmanager
async def server_alone(ground: Ground) -> AsyncIterator[Once]:
    """`browsercloud serve` that has served nobody yet."""

    async def once() -> Mapping[str, float]:
        with ground.serve("memory-none", *WITHOUT_POOL) as server:
            await quiet()
            process = psutil.Process(server.process.pid)
            tree = [process, *process.children(recursive=True)]
            return {SERVER: pss(tree), SERVER_RSS: process.memory_info().rss / MB}

    yield once


async def measure(ground: Ground) -> list[Group]:
    """Both kinds, and the server."""
    rounds = 1 if ground.quick else max(1, ground.rounds // 5)
    kinds = []
    for kind in ground.programs:
        contenders = [
            Contender(OURS, partial(ours, ground, kind)),
            Contender(LAUNCH, partial(launch, ground, kind)),
        ]
        outcome = await contest(contenders, rounds, pause=quiet, warm_up=0)
        kinds.append(
            [
                Group(
                    row="memory",
                    title=f"{title}, {TITLES[kind]}",
                    unit=unit,
                    base=OURS,
                    samples=outcome.samples.get(name, {}),
                    failed=outcome.failed,
                    targets=[part_of(OURS, LAUNCH, NEEDED[kind])] if name == "memory" else [],
                )
                for name, title, unit in (
                    ("memory", "each of ten, idle", "MB"),
                    ("processes", "processes, each of ten", "processes"),
                )
            ]
        )
    return [*side_by_side(kinds), await alone(ground, rounds)]


async def alone(ground: Ground, rounds: int) -> Group:
    """The server without any session."""
    found = await contest(
        [Contender(SERVER, partial(server_alone, ground))], rounds, pause=quiet, warm_up=0
    )
    return Group(
        row="memory",
        title="the server without sessions",
        unit="MB",
        base=SERVER,
        samples={
            name: found.samples.get(name, {}).get(SERVER, []) for name in (SERVER, SERVER_RSS)
        },
        failed=found.failed,
        targets=[at_most(SERVER, 60.0, "MB")],
    )
