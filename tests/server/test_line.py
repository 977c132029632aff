"""Waiting for a turn: who keeps a place, who loses it, and what it costs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from browsercloud.errors import Conflict, NoCapacity, ServiceError
from browsercloud.models import CreateRequest
from browsercloud.options import Seconds, SessionOptions
from browsercloud.server.sessions import Sessions
from browsercloud.stores.memory import MemoryStore
from browsercloud.testing import IdleEngine
from tests.server.conftest import KEY, OTHER_KEY, StartCloud, sessions_on, until

MINE, THEIRS = "mine", "theirs"


@asynccontextmanager
async def one_slot(**settings: Any) -> AsyncIterator[tuple[Sessions, str]]:
    """Sessions with room for one, which is taken; its id."""
    sessions = sessions_on(IdleEngine(), MemoryStore(), max_sessions=1, stop_grace=0, **settings)
    await sessions.open()
    try:
        holder, _ = await sessions.create(MINE, request())
        yield sessions, holder.id
    finally:
        await sessions.close_down()


def request(**options: Any) -> CreateRequest:
    """A create request."""
    return CreateRequest(session_id=str(uuid.uuid4()), options=SessionOptions(**options))


async def test_life_begins_when_the_browser_is_there() -> None:
    """Waiting is not counted."""
    async with one_slot() as (sessions, holder):
        waiting = asyncio.create_task(sessions.create(MINE, wanted := request(timeout=Seconds(1))))
        await until(lambda: sessions.admission.length == 1)
        queued = await sessions.get(MINE, wanted.session_id)
        assert (queued.status, queued.queue_position) == ("queued", 1)
        assert (queued.started_at, queued.expires_at) == (None, None)
        await asyncio.sleep(0.05)
        await sessions.release(MINE, holder)
        session, _ = await waiting
        assert session.queue_position is None
        assert session.started_at is not None
        assert session.expires_at is not None
        assert (session.expires_at - session.started_at).total_seconds() == 1
        assert (session.started_at - session.created_at).total_seconds() >= 0.05


async def test_retries_with_the_same_id_keep_the_order() -> None:
    """Whoever asks again is not put behind those that came later."""
    async with one_slot(create_wait=0.02) as (sessions, holder):
        first, second = request(), request()
        for wanted in (first, second, first, second):
            with pytest.raises(NoCapacity, match="has place"):
                await sessions.create(MINE, wanted)
        places = [(await sessions.get(MINE, r.session_id)).queue_position for r in (first, second)]
        assert places == [1, 2]
        await sessions.release(MINE, holder)
        assert (await sessions.create(MINE, first))[0].status == "live"
        assert (await sessions.get(MINE, second.session_id)).queue_position == 1


async def test_a_place_is_lost_when_nobody_asks_any_more() -> None:
    """After `attendance` seconds; the record says why, and the id is used up."""
    async with one_slot(create_wait=0.02, attendance=0.1) as (sessions, _):
        wanted = request()
        with pytest.raises(NoCapacity):
            await sessions.create(MINE, wanted)
        await until(lambda: sessions.admission.length == 0)
        record = await sessions.get(MINE, wanted.session_id)
        assert (record.status, record.release_reason) == ("failed", "creation_timeout")
        with pytest.raises(Conflict, match="creation_timeout"):
            await sessions.create(MINE, wanted)


async def test_a_place_is_kept_while_somebody_asks() -> None:
    """By creating again, or by looking at the record."""
    async with one_slot(create_wait=0.02, attendance=0.3) as (sessions, _):
        wanted, other = request(), request()
        for _ in range(12):
            for one in (wanted, other):
                if one is wanted or not sessions.known(other.session_id):
                    with pytest.raises(NoCapacity):
                        await sessions.create(MINE, one)
                else:
                    await sessions.get(MINE, other.session_id)
            await asyncio.sleep(0.03)
        assert sessions.admission.length == 2


async def test_nobody_comes_for_it_when_its_turn_has_come() -> None:
    """The browser that was started for a client that has gone is not kept for its whole life."""
    async with one_slot(create_wait=0.02, attendance=0.15) as (sessions, holder):
        wanted = request()
        with pytest.raises(NoCapacity):
            await sessions.create(MINE, wanted)
        await sessions.release(MINE, holder)
        await until(
            lambda: (
                (active := sessions.live(wanted.session_id)) is not None
                and active.session.status == "live"
            )
        )
        await until(lambda: not sessions.known(wanted.session_id))
        record = await sessions.get(MINE, wanted.session_id)
        assert (record.status, record.release_reason) == ("failed", "creation_timeout")
        assert sessions.admission.in_use == 0


async def test_waiting_is_bounded_in_time() -> None:
    """After `queue_timeout` the create is refused for good, and so is its id."""
    async with one_slot(queue_timeout=0.05) as (sessions, _):
        wanted = request()
        with pytest.raises(NoCapacity, match="no turn came") as caught:
            await sessions.create(MINE, wanted)
        assert caught.value.details[0]["retryable"] is False
        record = await sessions.get(MINE, wanted.session_id)
        assert (record.status, record.release_reason) == ("failed", "creation_timeout")
        assert sessions.admission.length == 0


async def test_a_release_leaves_the_line() -> None:
    """Those behind move up; nothing was started."""
    async with one_slot() as (sessions, _):
        wanted, behind = request(), request()
        calls = [asyncio.create_task(sessions.create(MINE, one)) for one in (wanted, behind)]
        await until(lambda: sessions.admission.length == 2)
        released = await sessions.release(MINE, wanted.session_id)
        assert released.release_reason == "user_requested"
        assert (await sessions.get(MINE, behind.session_id)).queue_position == 1
        with pytest.raises(Conflict, match="was released"):
            await calls[0]
        await sessions.close_down()
        with pytest.raises(ServiceError, match="shutting down"):
            await calls[1]


async def test_a_slot_is_free_when_all_of_it_is_gone() -> None:
    """A browser that is still being stopped counts: it uses memory."""
    stopping, go_on = asyncio.Event(), asyncio.Event()

    class PatientEngine(IdleEngine):
        """Stops when told."""

        async def stop(self, handle: Any, *, grace: float) -> None:
            """Wait, then stop."""
            stopping.set()
            await go_on.wait()
            await super().stop(handle, grace=grace)

    sessions = sessions_on(PatientEngine(), MemoryStore(), max_sessions=1)
    await sessions.open()
    holder, _ = await sessions.create(MINE, request())
    releasing = asyncio.create_task(sessions.release(MINE, holder.id))
    await stopping.wait()
    waiting = asyncio.create_task(sessions.create(MINE, request()))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    go_on.set()
    await releasing
    assert (await waiting)[0].status == "live"
    await sessions.close_down()


async def test_draining() -> None:
    """No new session and none from the line; the running ones end by themselves."""
    async with one_slot() as (sessions, holder):
        waiting = asyncio.create_task(sessions.create(MINE, request()))
        await until(lambda: sessions.admission.length == 1)
        draining = asyncio.create_task(sessions.drain())
        for call in (waiting, sessions.create(MINE, request())):
            with pytest.raises(ServiceError) as caught:
                await call
            assert (caught.value.status, caught.value.code) == (503, "shutting_down")
        assert sessions.refusal() is not None
        assert not draining.done()
        assert (await sessions.extend(MINE, holder, 60)).status == "live"
        await sessions.release(MINE, holder)
        await asyncio.wait_for(draining, 5)


# ---------------------------------------------------------------------- over HTTP


@pytest.fixture(params=[False, True], ids=["handlers-go-on", "handlers-are-cancelled"])
def cancellation(request: pytest.FixtureRequest) -> bool:
    """Whether handlers are cancelled when their client hangs up."""
    return bool(request.param)


async def test_a_client_that_went_away_leaves_the_line(
    start_cloud: StartCloud, cancellation: bool
) -> None:
    """Its connection is gone, and it does not come back."""
    cloud = await start_cloud(max_sessions=1, handler_cancellation=cancellation, attendance=0.2)
    await cloud.create()
    sessions = cloud.parts.sessions
    async with aiohttp.ClientSession() as other:
        headers = {"x-api-key": KEY}
        call = asyncio.create_task(
            other.post(f"{cloud.url}/v1/sessions", json={}, headers=headers).__aenter__()
        )
        await until(lambda: sessions.admission.length == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await until(lambda: sessions.admission.length == 0)
    (_, listed) = await cloud.call("GET", "/v1/sessions?status=failed")
    assert [record["releaseReason"] for record in listed["sessions"]] == ["creation_timeout"]


async def test_without_waiting_the_place_is_in_the_answer(start_cloud: StartCloud) -> None:
    """202 and `queued`; its turn comes all the same."""
    cloud = await start_cloud(max_sessions=1, attendance=0.05)
    holder = await cloud.create()
    status, record = await cloud.call("POST", "/v1/sessions?wait=false", json={})
    assert (status, record["status"], record["queuePosition"]) == (202, "queued", 1)
    await asyncio.sleep(0.2)
    await cloud.call("DELETE", f"/v1/sessions/{holder['id']}")
    await until(lambda: cloud.engine.starts[-1] == record["id"])
    assert (await cloud.call("GET", f"/v1/sessions/{record['id']}"))[1]["status"] == "live"


async def test_capacity_tells_the_callers_own_part(start_cloud: StartCloud) -> None:
    """The whole, and of what is in use only the project's own."""
    cloud = await start_cloud(IdleEngine(room=3))
    await cloud.create()
    status, seen = await cloud.call("GET", "/v1/capacity")
    assert (status, seen) == (
        200,
        {
            "sessions": 3,
            "reason": "as told",
            "available": 2,
            "inUse": 1,
            "queued": 0,
            "limit": None,
        },
    )
    assert (await cloud.call("GET", "/v1/capacity", key=OTHER_KEY))[1]["inUse"] == 0
    assert (await cloud.call("GET", "/v1/capacity", key=None))[0] == 401
