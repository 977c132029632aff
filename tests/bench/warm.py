"""`warm`: from asking for a browser to a page that has answered, and letting go of it again.

Everything that can be open already is open: our client, Playwright's driver, its running browser.
A page is usable when it has evaluated `1`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from playwright._impl._driver import compute_driver_executable

from browsercloud import BrowserCloud
from browsercloud.options import Browser
from tests.bench.ground import TITLES, Ground, check_program, quiet
from tests.bench.measure import (
    Contender,
    Group,
    Once,
    Target,
    at_most,
    contest,
    faster,
    side_by_side,
)

EMBEDDED = "browsercloud, embedded"
SERVED = "browsercloud, serve"
LAUNCH = "Playwright launch() + new_page()"
CONTEXT = "Playwright new_context() + new_page()"
CONNECT = "Playwright launch_server + connect()"

NEEDED = {Browser.CHROMIUM: (30.0, 12.0, 4.5), Browser.HEADLESS_SHELL: (27.0, 5.0, 1.8)}
"""Milliseconds at most; times faster than `launch()`; than `new_context()`."""

RELEASE = 10.0
"""Milliseconds at most."""


class Checked:
    """Looks once whether the right program runs."""

    def __init__(self, ground: Ground, kind: Browser) -> None:
        self._program = ground.programs[kind]
        self._done = False

    def __call__(self) -> None:
        """Raises if it is another one."""
        if not self._done:
            check_program(self._program)
            self._done = True


class Watch:
    """The three moments that count."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.usable = self.leaving = self.begin

    def is_usable(self) -> None:
        """The page has answered."""
        self.usable = time.perf_counter()

    def leaves(self) -> None:
        """From now on it is the release."""
        self.leaving = time.perf_counter()

    def read(self) -> Mapping[str, float]:
        """In milliseconds; the release ends now."""
        end = time.perf_counter()
        return {
            "create": (self.usable - self.begin) * 1000,
            "release": (end - self.leaving) * 1000,
        }


@asynccontextmanager
async def ours(
    opened: Callable[[], AbstractAsyncContextManager[BrowserCloud]], ground: Ground, kind: Browser
) -> AsyncIterator[Once]:
    """A session of a client that is open."""
    checked = Checked(ground, kind)
    async with opened() as client:

        async def once() -> Mapping[str, float]:
            watch = Watch()
            async with client.session(browser=kind.value) as session:
                await session.page.evaluate("1")
                watch.is_usable()
                checked()
                watch.leaves()
            return watch.read()

        yield once


@asynccontextmanager
async def launch(ground: Ground, kind: Browser) -> AsyncIterator[Once]:
    """A browser of one's own."""
    checked = Checked(ground, kind)
    async with ground.driver() as chromium:

        async def once() -> Mapping[str, float]:
            watch = Watch()
            browser = await chromium.launch(**ground.launch_args(kind))
            try:
                page = await browser.new_page()
                await page.evaluate("1")
                watch.is_usable()
                checked()
            finally:
                watch.leaves()
                await browser.close()
            return watch.read()

        yield once


@asynccontextmanager
async def context(ground: Ground, kind: Browser) -> AsyncIterator[Once]:
    """A context in a browser that all share."""
    checked = Checked(ground, kind)
    async with ground.driver() as chromium:
        browser = await chromium.launch(**ground.launch_args(kind))

        async def once() -> Mapping[str, float]:
            watch = Watch()
            found = await browser.new_context()
            try:
                page = await found.new_page()
                await page.evaluate("1")
                watch.is_usable()
                checked()
            finally:
                watch.leaves()
                await found.close()
            return watch.read()

        try:
            yield once
        finally:
            await browser.close()


@asynccontextmanager
async def connect(ground: Ground, kind: Browser) -> AsyncIterator[Once]:
    """A connection of one's own to a browser that Playwright's server runs."""
    checked = Checked(ground, kind)
    async with launched_server(ground, kind) as endpoint, ground.driver() as chromium:

        async def once() -> Mapping[str, float]:
            watch = Watch()
            browser = await chromium.connect(endpoint)
            try:
                page = await browser.new_page()
                await page.evaluate("1")
                watch.is_usable()
                checked()
            finally:
                watch.leaves()
                await browser.close()
            return watch.read()

        yield once


@asynccontextmanager
async def launched_server(ground: Ground, kind: Browser) -> AsyncIterator[str]:
    """Playwright's `launch-server`: where it listens."""
    import asyncio

    arguments = ground.launch_args(kind)
    config = ground.root / f"launch-server-{kind.value}.json"
    config.write_text(
        json.dumps(
            {
                "executablePath": arguments["executable_path"],
                "headless": True,
                "args": arguments["args"],
            }
        )
    )
    # The driver itself: Python's command would leave it behind when it is told to end.
    node, script = compute_driver_executable()
    process = await asyncio.create_subprocess_exec(
        *(node, script, "launch-server", "--browser", "chromium", "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=sys.stderr,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            line = (await process.stdout.readline()).decode().strip()
        if not line.startswith("ws://"):
            raise RuntimeError(f"launch-server said {line!r}")
        yield line
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def contenders(ground: Ground, kind: Browser) -> list[Contender]:
    """In the order of their turns."""
    embedded = partial(ground.embedded, kind)
    served = partial(ground.served, kind, f"warm-{kind.value}")
    return [
        Contender(EMBEDDED, partial(ours, embedded, ground, kind)),
        Contender(SERVED, partial(ours, served, ground, kind)),
        Contender(LAUNCH, partial(launch, ground, kind)),
        Contender(CONTEXT, partial(context, ground, kind)),
        Contender(CONNECT, partial(connect, ground, kind)),
    ]


def targets(kind: Browser) -> list[Target]:
    """The issue's, for both forms of ours."""
    most, launched, shared = NEEDED[kind]
    return [
        target
        for one in (EMBEDDED, SERVED)
        for target in (
            at_most(one, most, "ms"),
            faster(one, LAUNCH, launched),
            faster(one, CONTEXT, shared),
        )
    ]


async def measure(ground: Ground) -> list[Group]:
    """Both kinds, one after the other; all contenders of a kind in turn."""
    kinds = []
    for kind in ground.programs:
        outcome = await contest(contenders(ground, kind), ground.rounds, pause=quiet)
        release = [at_most(one, RELEASE, "ms") for one in (EMBEDDED, SERVED)]
        kinds.append(
            [
                Group(
                    row=row,
                    title=f"{title}, {TITLES[kind]}",
                    unit="ms",
                    base=EMBEDDED,
                    samples=outcome.samples.get(name, {}),
                    failed=outcome.failed,
                    targets=needed,
                )
                for row, name, title, needed in (
                    ("warm", "create", "ask → usable page", targets(kind)),
                    ("release", "release", "as the caller sees it", release),
                )
            ]
        )
    return side_by_side(kinds)
