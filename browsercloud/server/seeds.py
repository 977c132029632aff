"""The session storage that tabs are given when they come to an origin first."""

from __future__ import annotations

import asyncio

from browsercloud.cdp.connection import CdpConnection
from browsercloud.cdp.context import PageOverrides
from browsercloud.cdp.look import Look
from browsercloud.cdp.storage import seed_script
from browsercloud.context import Items


class Seeds:
    """What a session's new tabs are given: *first* by its engine, from the start on.

    A change holds for as long as a connection of its own is open.
    """

    def __init__(self, first: Items) -> None:
        self._first = first
        self._overrides: PageOverrides | None = None
        self._closed = False
        self.items = first
        self.origins: tuple[str, ...] = ()
        """Those that were given storage while the session lives."""

        self.one_at_a_time = asyncio.Lock()
        """Held by whoever reads or changes the session's context."""

    async def change(self, endpoint: str, items: Items) -> None:
        """Give *items* from now on, and what was given before no more. Raises `CdpError`."""
        await self._let_go()
        if items != self._first:
            cdp = await CdpConnection.open(endpoint)
            self._overrides = PageOverrides(cdp, Look(seed=seed_script(items, self._first)))
            if self._closed:
                await self._let_go()
                return
            await self._overrides.apply()
        self.items = items

    async def close(self) -> None:
        """Let go of the browser. Safe to call twice."""
        self._closed = True
        await self._let_go()

    async def _let_go(self) -> None:
        overrides, self._overrides = self._overrides, None
        if overrides is not None:
            await overrides.close()
