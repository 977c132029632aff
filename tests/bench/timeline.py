"""`timeline`: how much longer a page takes to load when what happens in it is kept."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

from browsercloud import BrowserCloud
from browsercloud.options import Browser
from tests.bench.ground import TITLES, Ground, quiet
from tests.bench.measure import Contender, Group, Once, contest, part_of, side_by_side

KEPT, NOT_KEPT = "record events", "record none"
REQUESTS = 40
LOADS = 10
PAGE = "".join(
    (
        "<!doctype html><title>busy</title>",
        *(f"<script src=/busy{number}.js></script>" for number in range(REQUESTS)),
        "<ul id=list></ul><script>for (let n = 0; n < 2000; n++) {",
        "list.append(Object.assign(document.createElement('li'), {textContent: n})); }",
        "for (let n = 0; n < 20; n++) console.log('line', n);</script>",
    )
)
SCRIPT = "/* as long as a small script */" + "let a = 1; a += 1;" * 300


@asynccontextmanager
async def loads(
    ground: Ground, client: BrowserCloud, kind: Browser, record: str
) -> AsyncIterator[Once]:
    """The same page again and again, in a session of its own."""

    async def once() -> Mapping[str, float]:
        ground.site.pages["/busy"] = PAGE
        for number in range(REQUESTS):
            ground.site.scripts[f"/busy{number}.js"] = SCRIPT
        async with client.session(browser=kind.value, record=record) as session:
            await session.page.goto(f"{ground.site.url}/busy")
            begin = time.perf_counter()
            for _ in range(LOADS):
                await session.page.goto(f"{ground.site.url}/busy")
            return {"load": (time.perf_counter() - begin) * 1000 / LOADS}

    yield once


async def measure(ground: Ground) -> list[Group]:
    """Both kinds, one after the other."""
    kinds = []
    for kind in ground.programs:
        async with ground.served(kind, f"timeline-{kind.value}") as client:
            outcome = await contest(
                [
                    Contender(name, partial(loads, ground, client, kind, name.split()[1]))
                    for name in (NOT_KEPT, KEPT)
                ],
                ground.rounds,
                pause=quiet,
            )
        group = Group(
            row="timeline",
            title=f"a page of {REQUESTS} requests, {TITLES[kind]}",
            unit="ms",
            base=NOT_KEPT,
            samples=outcome.samples.get("load", {}),
            failed=outcome.failed,
            targets=[part_of(KEPT, NOT_KEPT, 1.03)],
        )
        kinds.append([group])
    return side_by_side(kinds)
