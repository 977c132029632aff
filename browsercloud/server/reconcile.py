"""Agreement between registry, engine and store: at the start after a kill, and now and then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from browsercloud.engines.base import BrowserHandle, Engine
from browsercloud.models import ReleaseReason, SessionFailure, SessionStatus
from browsercloud.server.active import ActiveSession
from browsercloud.server.records import browser_gone
from browsercloud.stores.base import SessionRow, Store

log = logging.getLogger(__name__)


class Registry(Protocol):
    """What is asked of `Sessions`."""

    def known(self, session_id: str) -> bool:
        """Whether it is in the registry or about to end."""

    def running(self) -> Sequence[ActiveSession]:
        """Those that are live."""

    async def close(
        self, session_id: str, reason: ReleaseReason, failure: SessionFailure | None = None
    ) -> None:
        """The one way out."""

    async def adopt(self, row: SessionRow, handle: BrowserHandle) -> None:
        """Go on with it."""

    async def wait_again(self, row: SessionRow) -> None:
        """Back into the line."""

    async def give_up(self, row: SessionRow) -> None:
        """Record that it is lost."""


async def take_over(registry: Registry, engine: Engine, store: Store) -> None:
    """Go on with what a killed predecessor had, and clear away the rest of it.

    A session whose browser still runs goes on as it was; one that waited or was starting goes back
    into the line, in the old order; any other is lost, and its record says so.
    """
    rows = await store.unended()
    handles = await asyncio.gather(*(_restore(engine, row) for row in rows))
    await engine.sweep()
    for row, handle in zip(rows, handles, strict=True):
        if handle is not None:
            await registry.adopt(row, handle)
        elif row.session.status in (SessionStatus.QUEUED, SessionStatus.STARTING):
            await registry.wait_again(row)
        else:
            await registry.give_up(row)


async def _restore(engine: Engine, row: SessionRow) -> BrowserHandle | None:
    session, state = row.session, row.engine_state
    if session.status is not SessionStatus.LIVE or state is None:
        return None
    return await engine.restore(session.id, row.request.options, state)


async def repair(registry: Registry, engine: Engine, store: Store) -> None:
    """End what lost its browser, stop browsers that nobody owns, give up rows that nobody runs."""
    for active in registry.running():
        ended = await engine.poll(active.handle) if active.handle is not None else None
        if ended is not None:
            await registry.close(active.id, *browser_gone(ended))
    for session_id, handle in list(engine.running().items()):
        if not registry.known(session_id):
            log.warning("session %s: stopping a browser that nobody owns", session_id)
            try:
                await engine.stop(handle, grace=0)
            except OSError as error:
                log.error("session %s: %s; trying again later", session_id, error)
    for row in await store.unended():
        if registry.known(row.session.id):
            continue
        # Looked at again: it may have ended in order while the list was read.
        now_stored = await store.get(row.session.id)
        if now_stored is not None and not now_stored.session.status.ended:
            await registry.give_up(now_stored)
