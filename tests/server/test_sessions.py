"""`Sessions`: one status, one way out, whatever comes in between. No browser is needed for that."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from browsercloud.engines.base import BrowserHandle
from browsercloud.errors import (
    Conflict,
    LaunchFailed,
    NoCapacity,
    ServiceError,
    SessionEnded,
    SessionNotFound,
)
from browsercloud.models import BrowserExit, CreateRequest, Session
from browsercloud.options import SessionOptions
from browsercloud.server.sessions import Sessions
from browsercloud.stores.base import Query, SessionRow
from browsercloud.stores.memory import MemoryStore
from browsercloud.testing import DyingEngine, FailingEngine, IdleEngine, NeverEngine, SlowEngine
from tests.cancelling import at_every_await
from tests.server.conftest import sessions_on

MINE, THEIRS = "mine", "theirs"


class SlowStore(MemoryStore):
    """A store whose every call lets other tasks run, as one on a disk does."""

    async def put(self, row: SessionRow) -> None:
        """Put, after a turn of the loop."""
        await asyncio.sleep(0)
        await super().put(row)

    async def get(self, session_id: str) -> SessionRow | None:
        """Get, after a turn of the loop."""
        await asyncio.sleep(0)
        return await super().get(session_id)

    async def bury(self, project: str, session_id: str) -> None:
        """Bury, after a turn of the loop."""
        await asyncio.sleep(0)
        await super().bury(project, session_id)


class StickyEngine(IdleEngine):
    """The first stop of each browser fails."""

    async def stop(self, handle: BrowserHandle, *, grace: float) -> None:
        """Fail once, then stop."""
        if handle.session_id not in self.stops:
            self.stops.append(handle.session_id)
            raise OSError("a folder cannot be removed")
        await super().stop(handle, grace=grace)


@asynccontextmanager
async def running(
    engine: IdleEngine, *, lease_grace: float = 10, create_wait: float = 50
) -> AsyncIterator[Sessions]:
    """Sessions on a fake engine and a store that yields."""
    sessions = sessions_on(
        engine, SlowStore(), lease_grace=lease_grace, create_wait=create_wait, stop_grace=0
    )
    await sessions.open()
    try:
        yield sessions
    finally:
        await sessions.close_down()
        assert engine.running() == {}


def request(session_id: str | None = None, lease_id: str | None = None, **options: object):  # type: ignore[no-untyped-def]
    """A create request."""
    return CreateRequest(
        session_id=session_id or str(uuid.uuid4()),
        lease_id=lease_id,
        options=SessionOptions(**options),  # type: ignore[arg-type]
    )


async def ended(sessions: Sessions, session_id: str) -> Session:
    """The record, once the session has ended by itself."""
    async with asyncio.timeout(5):
        while not (record := await sessions.get(MINE, session_id)).status.ended:
            await asyncio.sleep(0.005)
    return record


async def test_a_life() -> None:
    """Create, find, extend, release: each step shows in the record."""
    async with running(IdleEngine()) as sessions:
        made, new = await sessions.create(MINE, request(timeout=60, name="n"))
        assert (made.status, new, made.name) == ("live", True, "n")
        assert made.started_at is not None
        assert made.expires_at is not None
        assert (made.expires_at - made.started_at).total_seconds() == 60
        longer = await sessions.extend(MINE, made.id, 600)
        assert longer.expires_at is not None
        assert longer.expires_at > made.expires_at
        released = await sessions.release(MINE, made.id)
        assert (released.success, released.already_ended) == (True, False)
        record = await sessions.get(MINE, made.id)
        assert (record.status, record.release_reason) == ("released", "user_requested")
        assert record.ended_at is not None
        again = await sessions.release(MINE, made.id)
        assert (again.success, again.already_ended) == (True, True)


async def test_create_and_release_cancelled_at_every_await() -> None:
    """A cancelled create leaves a session that its id releases; a cancelled release goes on."""
    engine = SlowEngine(0.005)
    async with running(engine) as sessions:
        chosen = ""

        async def whole() -> None:
            nonlocal chosen
            chosen = str(uuid.uuid4())
            await sessions.create(MINE, request(chosen))
            await sessions.release(MINE, chosen)

        async def released() -> None:
            try:
                await sessions.release(MINE, chosen)
            except SessionNotFound:
                with pytest.raises(Conflict):
                    await sessions.create(MINE, request(chosen))
            assert engine.running() == {}
            _, total = await sessions.list(Query(project=MINE, status=None))
            rows, _ = await sessions.list(Query(project=MINE, limit=total + 1))
            assert all(row.status.ended for row in rows)

        assert await at_every_await(whole, released) >= 2


@pytest.mark.parametrize("turns", range(12))
async def test_release_at_any_moment_of_a_start(turns: int) -> None:
    """However far a create has come when the release arrives, nothing runs afterwards."""
    engine = SlowEngine(0.001)
    async with running(engine) as sessions:
        wanted = request()
        creating = asyncio.create_task(sessions.create(MINE, wanted))
        for _ in range(turns):
            await asyncio.sleep(0)
        try:
            await sessions.release(MINE, wanted.session_id)
        except SessionNotFound:
            assert turns == 0
        await asyncio.wait({creating})
        if not isinstance(creating.exception(), Conflict):
            assert creating.result()[0].id == wanted.session_id
        assert engine.running() == {}
        with pytest.raises(Conflict):
            await sessions.create(MINE, wanted)


async def test_same_create_joins() -> None:
    """Creates at the same moment, and one later, are one session; only one of them made it."""
    engine = SlowEngine(0.01)
    async with running(engine) as sessions:
        wanted = request()
        results = await asyncio.gather(*(sessions.create(MINE, wanted) for _ in range(10)))
        assert sum(new for _, new in results) == 1
        assert (await sessions.create(MINE, wanted))[1] is False
        assert engine.starts == [wanted.session_id]


@pytest.mark.parametrize("project", [MINE, THEIRS])
async def test_other_options_conflict(project: str) -> None:
    """The same id with other options, or from another project, is refused; the first is safe."""
    async with running(IdleEngine()) as sessions:
        made, _ = await sessions.create(MINE, request(name="a"))
        with pytest.raises(Conflict):
            await sessions.create(project, request(made.id, name="b"))
        assert (await sessions.get(MINE, made.id)).status == "live"


async def test_another_project_sees_nothing() -> None:
    """Its answer is the one for an id that never was."""
    async with running(IdleEngine()) as sessions:
        made, _ = await sessions.create(MINE, request())
        for call in (
            sessions.get(THEIRS, made.id),
            sessions.release(THEIRS, made.id),
            sessions.extend(THEIRS, made.id, 60),
        ):
            with pytest.raises(SessionNotFound):
                await call
        assert await sessions.list(Query(project=THEIRS)) == ([], 0)
        assert await sessions.release_all(THEIRS) == 0
        assert (await sessions.get(MINE, made.id)).status == "live"


async def test_failed_start() -> None:
    """It is told to everyone who waits, and to whoever asks later."""
    async with running(FailingEngine()) as sessions:
        wanted = request()
        outcomes = await asyncio.gather(
            *(sessions.create(MINE, wanted) for _ in range(3)), return_exceptions=True
        )
        assert [LaunchFailed] * 3 == [type(outcome) for outcome in outcomes]
        record = await sessions.get(MINE, wanted.session_id)
        assert (record.status, record.release_reason) == ("failed", "startup_failed")
        assert record.error is not None
        assert record.error.code == "launch_failed"


async def test_slow_start_can_be_asked_for_again() -> None:
    """When the wait is over the start goes on, and the same id finds it."""
    async with running(SlowEngine(0.2), create_wait=0.02) as sessions:
        wanted = request()
        with pytest.raises(NoCapacity) as caught:
            await sessions.create(MINE, wanted)
        assert caught.value.retry_after == 1
        without, new = await sessions.create(MINE, wanted, wait=False)
        assert (without.status, new) == ("starting", False)
        async with asyncio.timeout(5):
            while (await sessions.get(MINE, wanted.session_id)).status != "live":
                await asyncio.sleep(0.01)


async def test_release_of_a_start_that_never_ends() -> None:
    """The start is given up, and its engine cleans up."""
    engine = NeverEngine()
    async with running(engine) as sessions:
        starting, _ = await sessions.create(MINE, request(), wait=False)
        while not engine.starts:
            await asyncio.sleep(0)
        with pytest.raises(Conflict, match="still starting"):
            await sessions.extend(MINE, starting.id, 60)
        assert (await sessions.release(MINE, starting.id)).success
        assert engine.cancelled == [starting.id]


async def test_timeout_counts_from_live() -> None:
    """A slow start costs no life; the end says why."""
    async with running(SlowEngine(0.2)) as sessions:
        made, _ = await sessions.create(MINE, request(timeout=0.1))
        assert made.status == "live"
        record = await ended(sessions, made.id)
        assert (record.status, record.release_reason) == ("released", "timeout")
        with pytest.raises(SessionEnded):
            await sessions.extend(MINE, made.id, 60)


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        (BrowserExit(exit_code=0), "released", "browser_closed"),
        (BrowserExit(exit_code=1, stderr=("boom",)), "failed", "browser_crashed"),
        (BrowserExit(signal="SIGSEGV"), "failed", "browser_crashed"),
        (BrowserExit(), "failed", "browser_crashed"),
    ],
)
async def test_dead_browser(how: BrowserExit, status: str, reason: str) -> None:
    """It ends its session at once; how it ended is the evidence."""
    engine = DyingEngine()
    async with running(engine) as sessions:
        made, _ = await sessions.create(MINE, request())
        engine.die(made.id, how)
        record = await ended(sessions, made.id)
        assert (record.status, record.release_reason) == (status, reason)
        if record.error is not None:
            assert (record.error.signal, record.error.stderr) == (how.signal, how.stderr)
        assert engine.stops == [made.id]


async def test_lost_lease() -> None:
    """Its sessions end after the grace, those of other leases and of none do not."""
    async with running(IdleEngine(), lease_grace=0.05) as sessions:
        lease = str(uuid.uuid4())
        sessions.leases.connected(MINE, lease)
        tied, _ = await sessions.create(MINE, request(lease_id=lease))
        free, _ = await sessions.create(MINE, request())
        other, _ = await sessions.create(THEIRS, request(lease_id=lease))
        sessions.leases.connected(THEIRS, lease)
        sessions.leases.disconnected(MINE, lease)
        assert (await ended(sessions, tied.id)).release_reason == "lease_lost"
        assert (await sessions.get(MINE, free.id)).status == "live"
        assert (await sessions.get(THEIRS, other.id)).status == "live"


async def test_lease_that_comes_back() -> None:
    """A reconnect within the grace saves its sessions, also when it overlaps the old socket."""
    async with running(IdleEngine(), lease_grace=0.1) as sessions:
        lease = str(uuid.uuid4())
        sessions.leases.connected(MINE, lease)
        made, _ = await sessions.create(MINE, request(lease_id=lease))
        sessions.leases.disconnected(MINE, lease)
        sessions.leases.connected(MINE, lease)
        sessions.leases.connected(MINE, lease)
        sessions.leases.disconnected(MINE, lease)
        await asyncio.sleep(0.2)  # twice the grace: what must not happen has had its time
        assert (await sessions.get(MINE, made.id)).status == "live"


async def test_lease_that_never_came() -> None:
    """A session may be created before its lease is connected; then the grace begins at live."""
    async with running(IdleEngine(), lease_grace=0.05) as sessions:
        made, _ = await sessions.create(MINE, request(lease_id=str(uuid.uuid4())))
        assert (await ended(sessions, made.id)).release_reason == "lease_lost"


async def test_close_goes_on_after_a_failure() -> None:
    """What could not be removed is told, recorded, and tried again by the reconciliation."""
    engine = StickyEngine()
    async with running(engine) as sessions:
        made, _ = await sessions.create(MINE, request())
        released = await sessions.release(MINE, made.id)
        assert (released.success, "cannot be removed" in released.message) == (False, True)
        record = await sessions.get(MINE, made.id)
        assert record.error is not None
        assert (record.status, record.error.code) == ("failed", "cleanup_failed")
        assert list(engine.running()) == [made.id]
        await sessions.reconcile()
        assert engine.running() == {}


async def test_reconcile_finds_unreported_deaths() -> None:
    """A death that the engine did not report is found by asking it."""

    class SilentEngine(IdleEngine):
        """Its browsers are dead and nobody says so."""

        async def poll(self, handle: BrowserHandle) -> BrowserExit | None:
            """Dead."""
            return BrowserExit(signal="SIGKILL")

    async with running(SilentEngine()) as sessions:
        made, _ = await sessions.create(MINE, request())
        await sessions.reconcile()
        assert (await sessions.get(MINE, made.id)).release_reason == "browser_crashed"


async def test_reconcile_repairs_the_store_and_the_engine() -> None:
    """A row of a session that nobody runs is ended; a browser that nobody owns is stopped."""
    engine, store = IdleEngine(), MemoryStore()
    first = sessions_on(engine, store)
    await first.open()
    made, _ = await first.create(MINE, request())
    second = sessions_on(engine, store)  # as after a restart: the first one's memory is lost
    await second.reconcile()
    record = await second.get(MINE, made.id)
    assert (record.status, record.release_reason) == ("failed", "shutdown")
    assert record.error is not None
    assert record.error.code == "server_lost"
    assert engine.stops == [made.id]
    await second.close_down()
    await first.close_down()


async def test_an_id_that_is_ending_is_refused() -> None:
    """A create in the middle of a release is refused, and does not disturb it."""
    stopping, go_on = asyncio.Event(), asyncio.Event()

    class PatientEngine(IdleEngine):
        """Stops when told."""

        async def stop(self, handle: BrowserHandle, *, grace: float) -> None:
            """Wait, then stop."""
            stopping.set()
            await go_on.wait()
            await super().stop(handle, grace=grace)

    async with running(PatientEngine()) as sessions:
        wanted = request()
        await sessions.create(MINE, wanted)
        first = asyncio.create_task(sessions.release(MINE, wanted.session_id))
        await stopping.wait()
        with pytest.raises(Conflict, match="is ending"):
            await sessions.create(MINE, wanted)
        second = asyncio.create_task(sessions.release(MINE, wanted.session_id))
        await asyncio.sleep(0.02)
        assert not second.done()
        go_on.set()
        assert (await first).already_ended is False
        assert (await second).already_ended is True


async def test_without_waiting_a_used_id_is_refused_too() -> None:
    """`wait=False` answers when the id is known to be free, not before."""
    async with running(IdleEngine()) as sessions:
        ended_one, _ = await sessions.create(MINE, request())
        await sessions.release(MINE, ended_one.id)
        with pytest.raises(SessionNotFound):
            await sessions.release(MINE, buried := str(uuid.uuid4()))
        for used in (ended_one.id, buried):
            with pytest.raises(Conflict):
                await sessions.create(MINE, request(used), wait=False)


async def test_ended_sessions_are_pruned_in_time() -> None:
    """By the regular task, after `keep_ended`; what lives stays."""
    sessions = sessions_on(IdleEngine(), MemoryStore(), keep_ended=0.05, regularly=0.01)
    await sessions.open()
    old, _ = await sessions.create(MINE, request())
    await sessions.release(MINE, old.id)
    young, _ = await sessions.create(MINE, request())
    async with asyncio.timeout(5):
        while (await sessions.list(Query(project=MINE)))[1] > 1:
            await asyncio.sleep(0.005)
    assert (await sessions.get(MINE, young.id)).status == "live"
    await sessions.close_down()


async def test_shutdown() -> None:
    """It ends every session, started or starting, and refuses new ones."""
    engine = SlowEngine(0.05)
    async with running(engine) as sessions:
        made, _ = await sessions.create(MINE, request())
        starting = asyncio.create_task(sessions.create(MINE, request()))
        while len(engine.starts) < 2:
            await asyncio.sleep(0)
        await sessions.close_down()
        assert (await sessions.get(MINE, made.id)).release_reason == "shutdown"
        for call in (starting, sessions.create(MINE, request())):
            with pytest.raises(ServiceError) as caught:
                await call
            assert (caught.value.status, caught.value.code) == (503, "shutting_down")
        await sessions.close_down()
