"""`options`: what an option adds to a warm create, from asking to a page that has answered.

All sessions come from the pool of one open client; stealth has a pool of its own, as its browsers
are started for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Any

from browsercloud import BrowserCloud
from browsercloud.context import Cookie, SessionContext
from browsercloud.options import Browser
from tests.bench.ground import TITLES, Ground, quiet
from tests.bench.measure import Contender, Group, Once, Target, contest, side_by_side
from tests.bench.warm import Watch

PLAIN = "no option"
NEEDED = 15.0
"""Milliseconds that options may add at most."""

AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/150.0.0.0 Safari/537.36"
)
LOOK: Mapping[str, Any] = {
    "dimensions": (1000, 600),
    "user_agent": AGENT,
    "locale": "de-DE",
    "timezone": "Europe/Berlin",
    "geo_location": "IN",
    "extra_headers": {"X-Key": "x"},
    "permissions": ("camera",),
}
COOKIES = SessionContext(
    cookies=tuple(
        Cookie(name=f"n{number}", value="v", domain="example.com", path="/") for number in range(20)
    )
)
STORED = SessionContext(local_storage={"https://example.com": {"key": "value"}})
STEALTH = "stealth"
SETS: Mapping[str, Mapping[str, Any]] = {
    **{name: {name: value} for name, value in LOOK.items()},
    "all of these": LOOK,
    "device mobile": {"device": "mobile"},
    STEALTH: {"stealth": True},
    "20 cookies": {"session_context": COOKIES},
    "localStorage of an origin": {"session_context": STORED},
}
UNBOUND = ("localStorage of an origin",)
"""Takes a page of the origin, of which Chromium makes a process."""


@asynccontextmanager
async def turn(
    opened: AbstractAsyncContextManager[BrowserCloud], kind: Browser, options: Mapping[str, Any]
) -> AsyncIterator[Once]:
    """A session with these options."""
    async with opened as client:

        async def once() -> Mapping[str, float]:
            watch = Watch()
            async with client.session(browser=kind.value, **options) as session:
                await session.page.evaluate("1")
                watch.is_usable()
                watch.leaves()
            return watch.read()

        yield once


def added(name: str) -> Target:
    """What it adds, at most."""
    return Target(f"{name}: adds", lambda found: found[name] - found[PLAIN], NEEDED, "ms")


async def measure(ground: Ground) -> list[Group]:
    """Both kinds, one after the other; all options of a kind in turn."""
    kinds = []
    for kind in ground.programs:
        async with ground.embedded(kind) as client:
            contenders = [Contender(PLAIN, partial(turn, nullcontext(client), kind, {}))]
            for name, options in SETS.items():
                own = ground.embedded(kind) if name == STEALTH else nullcontext(client)
                contenders.append(Contender(name, partial(turn, own, kind, options)))
            outcome = await contest(contenders, ground.rounds, pause=quiet)
        group = Group(
            row="options",
            title=f"ask → usable page, {TITLES[kind]}",
            unit="ms",
            base=PLAIN,
            samples=outcome.samples.get("create", {}),
            failed=outcome.failed,
            targets=[added(name) for name in SETS if name not in UNBOUND],
        )
        kinds.append([group])
    return side_by_side(kinds)
