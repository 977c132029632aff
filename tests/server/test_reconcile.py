"""After a kill: what a successor finds in the store, and what it makes of it."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import attrs
import pytest

from browsercloud.engines.base import BrowserHandle
from browsercloud.errors import Conflict, NoCapacity
from browsercloud.models import CreateRequest, SessionStatus
from browsercloud.options import Seconds, SessionOptions
from browsercloud.server.records import now
from browsercloud.server.sessions import Sessions
from browsercloud.stores.base import Store
from browsercloud.stores.memory import MemoryStore
from browsercloud.testing import IdleEngine, NeverEngine
from tests.server.conftest import sessions_on, until

MINE = "mine"


def request(lease_id: str | None = None, **options: Any) -> CreateRequest:
    """A create request."""
    chosen = SessionOptions(**options)
    return CreateRequest(session_id=str(uuid.uuid4()), lease_id=lease_id, options=chosen)


async def killed(
    store: Store, *wanted: CreateRequest, engine: IdleEngine | None = None, **settings: Any
) -> Sessions:
    """A predecessor with these sessions, as far as they came, at the moment of its SIGKILL."""
    sessions = sessions_on(engine or IdleEngine(), store, stop_grace=0, **settings)
    await sessions.open()
    for one in wanted:
        await sessions.create(MINE, one, wait=False)
    await asyncio.sleep(0.02)
    return sessions


async def bury(predecessor: Sessions) -> None:
    """Take away what of the predecessor is left in this process; its store is not touched."""
    predecessor._store = predecessor.life._store = MemoryStore()
    await predecessor.close_down()


async def test_a_live_session_goes_on() -> None:
    """With its record and its times; it is the same one for whoever creates it again."""
    store, wanted = MemoryStore(), request(timeout=Seconds(100))
    old = await killed(store, wanted)
    before = await old.get(MINE, wanted.session_id)
    engine = IdleEngine(survivors=[wanted.session_id])
    new = sessions_on(engine, store)
    await new.open()
    after = await new.get(MINE, wanted.session_id)
    assert after.status == "live"
    assert (after.started_at, after.expires_at) == (before.started_at, before.expires_at)
    again, made = await new.create(MINE, wanted)
    assert (again.id, made) == (wanted.session_id, False)
    assert (engine.starts, engine.stops) == ([], [])
    assert new.admission.in_use == 1
    assert (await new.release(MINE, wanted.session_id)).success
    assert engine.stops == [wanted.session_id]
    assert new.admission.in_use == 0
    await new.close_down()
    await bury(old)


async def test_its_timeout_is_the_old_one() -> None:
    """Time goes on while there is no server; what is over already ends at once."""
    store = MemoryStore()
    soon, past = request(timeout=Seconds(0.4)), request(timeout=Seconds(100))
    old = await killed(store, soon, past)
    row = await store.get(past.session_id)
    assert row is not None
    expired = attrs.evolve(row.session, expires_at=now() - timedelta(seconds=1))
    await store.put(attrs.evolve(row, session=expired))
    new = sessions_on(IdleEngine(survivors=[soon.session_id, past.session_id]), store)
    await new.open()
    await until(lambda: not new.known(past.session_id), within=0.3)
    await until(lambda: not new.known(soon.session_id), within=1)
    for one in (soon, past):
        record = await new.get(MINE, one.session_id)
        assert (record.status, record.release_reason) == ("released", "timeout")
    await new.close_down()
    await bury(old)


async def test_its_lease_has_the_grace_to_come_back() -> None:
    """A client that connects again in time keeps its sessions; one that does not loses them."""
    store, kept, lost = MemoryStore(), str(uuid.uuid4()), str(uuid.uuid4())
    mine, theirs = request(lease_id=kept), request(lease_id=lost)
    old = await killed(store, mine, theirs)
    engine = IdleEngine(survivors=[mine.session_id, theirs.session_id])
    new = sessions_on(engine, store, lease_grace=0.1)
    await new.open()
    new.leases.connected(MINE, kept)
    await until(lambda: not new.known(theirs.session_id))
    assert (await new.get(MINE, theirs.session_id)).release_reason == "lease_lost"
    assert (await new.get(MINE, mine.session_id)).status == "live"
    await new.close_down()
    await bury(old)


async def test_its_idle_clock_begins_anew() -> None:
    """Nobody could say anything while there was no server."""
    store, wanted = MemoryStore(), request(idle_timeout=Seconds(0.1))
    old = await killed(store, wanted)
    old._reaper.forget(wanted.session_id)
    new = sessions_on(IdleEngine(survivors=[wanted.session_id]), store)
    await new.open()
    assert (await new.get(MINE, wanted.session_id)).status == "live"
    await until(lambda: not new.known(wanted.session_id))
    assert (await new.get(MINE, wanted.session_id)).release_reason == "inactivity_timeout"
    await new.close_down()
    await bury(old)


async def test_a_browser_that_is_gone_is_a_lost_session() -> None:
    """The record says so, and whose fault it was."""
    store, wanted = MemoryStore(), request()
    old = await killed(store, wanted)
    new = sessions_on(IdleEngine(), store)
    await new.open()
    record = await new.get(MINE, wanted.session_id)
    assert (record.status, record.release_reason) == ("failed", "shutdown")
    assert record.error is not None
    assert record.error.code == "server_lost"
    assert new.admission.in_use == 0
    await new.close_down()
    await bury(old)


async def test_who_waited_waits_in_the_old_order() -> None:
    """A session that had no browser yet goes back into the line, also one that was starting."""
    store, engine = MemoryStore(), NeverEngine()
    starting, first, second = request(), request(), request()
    old = await killed(store, starting, first, second, engine=engine, max_sessions=1)
    statuses = [(await old.get(MINE, one.session_id)).status for one in (starting, first, second)]
    assert statuses == ["starting", "queued", "queued"]
    engine = IdleEngine()
    new = sessions_on(engine, store, max_sessions=1, create_wait=0.05)
    await new.open()
    session, made = await new.create(MINE, starting)
    assert (session.status, made) == ("live", False)
    assert (await new.get(MINE, second.session_id)).queue_position == 2
    await new.release(MINE, starting.session_id)
    assert (await new.create(MINE, first))[0].status == "live"
    with pytest.raises(NoCapacity):
        await new.create(MINE, second)
    await new.close_down()
    await bury(old)


async def test_who_does_not_come_back_leaves_the_line() -> None:
    """A client that went away together with the server."""
    store, wanted = MemoryStore(), request()
    old = await killed(store, wanted, engine=NeverEngine())
    new = sessions_on(NeverEngine(), store, attendance=0.05)
    await new.open()
    await until(lambda: not new.known(wanted.session_id))
    assert (await new.get(MINE, wanted.session_id)).release_reason == "creation_timeout"
    await new.close_down()
    await bury(old)


async def test_an_end_that_was_under_way_keeps_its_reason() -> None:
    """A server killed while it stopped a browser: the record ends as it was meant to."""
    store, wanted = MemoryStore(), request()

    class Stuck(IdleEngine):
        """Never finishes a stop."""

        async def stop(self, handle: BrowserHandle, *, grace: float) -> None:
            """Wait for ever."""
            await asyncio.get_running_loop().create_future()

    old = await killed(store, wanted, engine=Stuck())
    releasing = asyncio.create_task(old.release(MINE, wanted.session_id))
    await asyncio.sleep(0.05)
    row = await store.get(wanted.session_id)
    assert row is not None
    assert row.session.status is SessionStatus.RELEASING
    new = sessions_on(IdleEngine(survivors=[wanted.session_id]), store)
    await new.open()
    record = await new.get(MINE, wanted.session_id)
    assert (record.status, record.release_reason) == ("released", "user_requested")
    with pytest.raises(Conflict, match="already ended"):
        await new.create(MINE, wanted)
    releasing.cancel()
    for active in list(old._closing.values()):
        active.end.cancel()
    await new.close_down()
    await asyncio.wait([releasing])
    await old._reaper.close()


async def test_browsers_that_nobody_wants_are_swept() -> None:
    """After every session had its chance, and before anything new starts."""
    store, wanted = MemoryStore(), request()
    old = await killed(store, wanted)
    engine = IdleEngine(survivors=[wanted.session_id, "stray"])
    new = sessions_on(engine, store)
    await new.open()
    assert engine.stops == ["stray"]
    await new.close_down()
    await bury(old)


async def test_running_ones_come_before_waiting_ones() -> None:
    """A successor with less room starts nothing until there is some."""
    store = MemoryStore()
    running, waiting = [request() for _ in range(2)], request()
    old = await killed(store, *running, waiting, max_sessions=2)
    engine = IdleEngine(survivors=[one.session_id for one in running])
    new = sessions_on(engine, store, max_sessions=1)
    await new.open()
    assert (new.admission.in_use, new.admission.length) == (2, 1)
    await new.release(MINE, running[0].session_id)
    assert new.admission.length == 1
    await new.release(MINE, running[1].session_id)
    await until(lambda: engine.starts == [waiting.session_id])
    await new.close_down()
    await bury(old)
