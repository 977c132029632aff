"""The screencasts that run, shared by everybody who looks at the same thing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define, field

from browsercloud._aio import settle
from browsercloud.cdp.screencast import Screencast

CLOSE_PATIENCE = 2.0


@define(eq=False)
class _Shared:
    """One screencast, and how many look at it."""

    cast: Screencast | None = None
    watchers: int = 0
    lock: asyncio.Lock = field(factory=asyncio.Lock)


class Screencasts:
    """The screencasts that run: at most one for each session and page, none that nobody watches."""

    def __init__(self) -> None:
        self._shared: dict[tuple[str, str | None], _Shared] = {}

    def __len__(self) -> int:
        return len(self._shared)

    @asynccontextmanager
    async def of(
        self, session_id: str, endpoint: str, page_id: str | None = None
    ) -> AsyncIterator[Screencast]:
        """The session's screencast while in the block. Raises `CdpError`."""
        key = session_id, page_id
        shared = self._shared.setdefault(key, _Shared())
        shared.watchers += 1
        try:
            async with shared.lock:
                if shared.cast is None or shared.cast.closed.done():
                    if shared.cast is not None:
                        await shared.cast.close()
                    shared.cast = await Screencast.open(endpoint, page_id)
            yield shared.cast
        finally:
            shared.watchers -= 1
            if not shared.watchers:
                # Whoever comes now begins another one.
                if self._shared.get(key) is shared:
                    del self._shared[key]
                if shared.cast is not None:
                    await settle(shared.cast.close, patience=CLOSE_PATIENCE)
