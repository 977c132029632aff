"""`flags`: what each switch that Chromium is started with changes, by leaving it out.

Not among the rows that run unless told: it takes a start for each switch and round.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from browsercloud.browser import flags
from browsercloud.browser.find import Found
from browsercloud.browser.process import BrowserProcess
from browsercloud.cdp.connection import CdpConnection
from browsercloud.cdp.window import wait_for_page
from browsercloud.options import Browser, SessionOptions
from tests.bench.ground import TITLES, Ground, chromium_processes, offspring, pss, quiet
from tests.bench.measure import Contender, Group, Once, contest, side_by_side

ALL = "all switches"
FEATURES = "--disable-features="
NEEDED = (
    "--headless",
    "--no-sandbox",
    "--remote-debugging-port",
    "--user-data-dir",
    "--window-size",
    "--screen-info",
)
"""Without them there is no session, or another one."""

MEASURES = (
    ("start", "start → first page", "ms"),
    ("processes", "processes", "processes"),
    ("memory", "memory, one page", "MB"),
)


def program(ground: Ground, kind: Browser) -> Found:
    """What is started."""
    return Found(path=ground.programs[kind], kind=kind, source="the benchmark")


def command(found: Found, folder: Path) -> tuple[str, ...]:
    """What a session of this kind is started with."""
    options = SessionOptions(browser=found.kind)
    return flags.argv(found, options, profile=folder / "profile", sandbox=os.geteuid() != 0)


def left_out(found: Found) -> Sequence[str]:
    """Everything that can be left out, by name: switches, and features one by one."""
    names: list[str] = [ALL]
    for word in command(found, Path("/"))[1:-1]:
        if word.startswith(FEATURES):
            names += [FEATURES + one for one in word.removeprefix(FEATURES).split(",")]
        elif not word.startswith(NEEDED):
            names.append(word)
    return names


def without(words: Sequence[str], name: str) -> tuple[str, ...]:
    """The command line less one switch, or less one feature."""
    if not name.startswith(FEATURES):
        return tuple(word for word in words if word != name)
    feature = name.removeprefix(FEATURES)
    return tuple(
        FEATURES + ",".join(one for one in word.removeprefix(FEATURES).split(",") if one != feature)
        if word.startswith(FEATURES)
        else word
        for word in words
    )


@asynccontextmanager
async def started(ground: Ground, kind: Browser, name: str) -> AsyncIterator[Once]:
    """One start after the other, each in a new folder."""
    found = program(ground, kind)

    async def once() -> Mapping[str, float]:
        with tempfile.TemporaryDirectory(dir=ground.root, ignore_cleanup_errors=True) as place:
            folder = Path(place)
            for below in ("profile", "tmp"):
                (folder / below).mkdir()
            words = without(command(found, folder), name)
            begin = time.perf_counter()
            process = BrowserProcess.begin(
                words, env=flags.environment(folder, headless=True), folder=folder
            )
            try:
                async with await CdpConnection.open(await process.endpoint()) as cdp:
                    await wait_for_page(cdp)
                taken = (time.perf_counter() - begin) * 1000
                await quiet()
                running = chromium_processes(found.path, offspring())
                return {"start": taken, "processes": len(running), "memory": pss(running)}
            finally:
                await process.stop(grace=0)

    yield once


async def measure(ground: Ground) -> list[Group]:
    """Both kinds; every switch in turn."""
    kinds = []
    for kind in ground.programs:
        names = left_out(program(ground, kind))
        contenders = [Contender(name, partial(started, ground, kind, name)) for name in names]
        outcome = await contest(contenders, max(1, ground.rounds // 5), pause=quiet)
        kinds.append(
            [
                Group(
                    row="flags",
                    title=f"{title} without, {TITLES[kind]}",
                    unit=unit,
                    base=ALL,
                    samples=outcome.samples.get(name, {}),
                    failed=outcome.failed,
                )
                for name, title, unit in MEASURES
            ]
        )
    return side_by_side(kinds)
