"""`control`: the control plane alone, over HTTP, with an engine that starts nothing.

A server for each number of live sessions, each a process of its own, all there at once; what
one more session costs must not depend on how many there are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp

from browsercloud.server.app import Server
from browsercloud.server.config import ServerConfig
from browsercloud.stores.base import Store
from browsercloud.stores.memory import MemoryStore
from browsercloud.stores.sqlite import FILE_NAME, SqliteStore
from browsercloud.testing import NO_ENDPOINT, IdleEngine
from tests.bench.ground import Ground, child, quiet
from tests.bench.measure import Contender, Group, Once, contest, part_of, side_by_side

KEY = "a-key-for-benchmarks"
HEADERS = {"x-api-key": KEY}
LEVELS = (1, 100, 1_000, 5_000)
QUICK_LEVELS = (1, 100, 1_000)
STORES = ("memory", "sqlite")
NEEDED = 1.2
CALLS = 20
"""Of each sort in one turn; the turn counts as their median."""

FILL_AT_ONCE = 16
OPERATIONS = ("create", "retrieve", "list", "release")
HELD = ("create", "release")
"""Those that have a target."""


# ---------------------------------------------------------------- the server's process


async def serve(endpoint: str, store: Store, fill: int) -> None:
    """A server with *fill* sessions that all lead to *endpoint*, until standard input ends."""
    config = ServerConfig(port=0, api_key=KEY)
    running = Server(config, IdleEngine(endpoint=endpoint), store)
    await running.start()
    try:
        urls = await filled(running.url, fill)
        print(json.dumps({"url": running.url, "urls": urls[:1]}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await running.stop()


async def filled(url: str, count: int) -> list[str]:
    """Make so many sessions: their CDP addresses."""
    urls: list[str] = []
    numbers = iter(range(count))

    async def work(http: aiohttp.ClientSession) -> None:
        for _ in numbers:
            body = {"timeout": 12 * 3_600_000}
            async with http.post(url + "/v1/sessions", json=body) as reply:
                reply.raise_for_status()
                urls.append((await reply.json())["websocketUrl"])

    async with aiohttp.ClientSession(headers=HEADERS) as http:
        await asyncio.gather(*(work(http) for _ in range(FILL_AT_ONCE)))
    return urls


# ---------------------------------------------------------------- the measuring process


@asynccontextmanager
async def calling(folder: Path, store: str, live: int, calls: int = CALLS) -> AsyncIterator[Once]:
    """A client of a server of its own that has *live* sessions."""
    arguments = ["--fill", str(live)]
    if store == "sqlite":
        place = folder / f"control-{live}"
        place.mkdir()
        arguments += ["--data", str(place)]
    with child("tests.bench.control", *arguments) as (_, told):
        async with aiohttp.ClientSession(told["url"], headers=HEADERS) as http:

            async def once() -> Mapping[str, float]:
                return await one_more(http, calls)

            yield once


async def one_more(http: aiohttp.ClientSession, calls: int) -> dict[str, float]:
    """Create, retrieve, list a page, release: the median of each, in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in OPERATIONS}

    async def timed(name: str, method: str, path: str, **more: object) -> None:
        begin = time.perf_counter()
        async with http.request(method, path, **more) as reply:  # type: ignore[arg-type]
            await reply.read()
            reply.raise_for_status()
        times[name].append((time.perf_counter() - begin) * 1000)

    for _ in range(calls):
        session_id = str(uuid.uuid4())
        body = {"sessionId": session_id, "timeout": 3_600_000}
        await timed("create", "POST", "/v1/sessions", json=body)
        await timed("retrieve", "GET", f"/v1/sessions/{session_id}")
        await timed("list", "GET", "/v1/sessions")
        await timed("release", "DELETE", f"/v1/sessions/{session_id}")
    return {name: statistics.median(found) for name, found in times.items()}


def name_of(live: int) -> str:
    """A level as a contender."""
    return f"browsercloud, {live} live"


async def measure(
    ground: Ground,
    *,
    levels: Sequence[int] | None = None,
    pause: Callable[[], Awaitable[object]] = quiet,
) -> list[Group]:
    """Each store; the levels in turn. The target is for the highest, beside the lowest."""
    levels = levels or (QUICK_LEVELS if ground.quick else LEVELS)
    few, many = name_of(levels[0]), name_of(levels[-1])
    stores = []
    for store in STORES:
        contenders = [
            Contender(name_of(live), partial(calling, ground.root, store, live)) for live in levels
        ]
        outcome = await contest(contenders, ground.rounds, pause=pause)
        stores.append(
            [
                Group(
                    row="control",
                    title=f"{operation}, {store} store",
                    unit="ms",
                    base=few,
                    samples=outcome.samples.get(operation, {}),
                    failed=outcome.failed,
                    targets=[part_of(many, few, NEEDED)] if operation in HELD else [],
                )
                for operation in OPERATIONS
            ]
        )
    return side_by_side(stores)


def main() -> None:
    """The server's process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", default=NO_ENDPOINT)
    parser.add_argument("--fill", type=int, default=0)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    store = MemoryStore() if given.data is None else SqliteStore(given.data / FILE_NAME)
    asyncio.run(serve(given.endpoint, store, given.fill))


if __name__ == "__main__":
    main()
