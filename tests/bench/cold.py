"""`cold`: `python script.py` as a whole process, ours beside the bare Playwright script."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from browsercloud.options import Browser
from tests.bench.ground import TITLES, Ground, quiet, run
from tests.bench.measure import Contender, Group, Once, contest, part_of

OURS = "browsercloud script"
BARE = "bare Playwright script"
SCRIPTS = Path(__file__).parent / "scripts"
NEEDED = {Browser.CHROMIUM: 0.85, Browser.HEADLESS_SHELL: 0.95}


@asynccontextmanager
async def script(ground: Ground, kind: Browser, name: str) -> AsyncIterator[Once]:
    """A process from its start to its end, with one page in between."""

    async def once() -> Mapping[str, float]:
        program = str(ground.programs[kind])
        command = (sys.executable, str(SCRIPTS / name), kind.value, program, ground.site.url)
        seconds, said = await run(*command)
        if said.strip() != "Home":
            raise RuntimeError(f"the page's title is {said.strip()!r}")
        return {"whole": seconds * 1000}

    yield once


async def measure(ground: Ground) -> list[Group]:
    """Both kinds of browser."""
    groups = []
    for kind in ground.programs:
        contenders = [
            Contender(OURS, partial(script, ground, kind, "ours.py")),
            Contender(BARE, partial(script, ground, kind, "bare.py")),
        ]
        outcome = await contest(contenders, ground.fewer, pause=quiet)
        groups.append(
            Group(
                row="cold",
                title=f"a whole script, {TITLES[kind]}",
                unit="ms",
                base=OURS,
                samples=outcome.samples.get("whole", {}),
                failed=outcome.failed,
                targets=[part_of(OURS, BARE, NEEDED[kind])],
            )
        )
    return groups
