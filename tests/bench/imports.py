"""`import`: what the first line of a program costs, in a process that has imported nothing yet."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

from tests.bench.ground import Ground, quiet, run
from tests.bench.measure import Contender, Group, Once, at_most, contest

OURS = "import browsercloud"
LINES = (
    OURS,
    "from browsercloud import BrowserCloud",
    "import aiohttp",
    "import playwright.async_api",
)
TIMED = """\
import time
begin = time.perf_counter()
{line}
print(time.perf_counter() - begin)
"""


@asynccontextmanager
async def importing(line: str) -> AsyncIterator[Once]:
    """One line in a fresh process; the start of Python does not count."""

    async def once() -> Mapping[str, float]:
        _, said = await run(sys.executable, "-c", TIMED.format(line=line))
        return {"import": float(said) * 1000}

    yield once


async def measure(ground: Ground) -> list[Group]:
    """All lines in turn."""
    contenders = [Contender(line, partial(importing, line)) for line in LINES]
    outcome = await contest(contenders, ground.fewer, pause=quiet)
    return [
        Group(
            row="import",
            title="the first line, in a fresh process",
            unit="ms",
            base=OURS,
            samples=outcome.samples.get("import", {}),
            failed=outcome.failed,
            targets=[at_most(OURS, 60.0, "ms")],
        )
    ]
