"""Every way in which a session ends: what the record says of it, and its events."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from browsercloud.errors import BrowserCloudError
from browsercloud.models import BrowserExit, CreateRequest
from browsercloud.options import Seconds, SessionOptions
from browsercloud.server.journal import Journal
from browsercloud.server.sessions import Sessions
from browsercloud.stores.memory import MemoryStore
from browsercloud.testing import DyingEngine, FailingEngine, IdleEngine
from tests.server.conftest import sessions_on, until

MINE = "mine"
MEGABYTE = 2**20
DRIVEN = {"timeout": Seconds(60), "idle_timeout": Seconds(0.1)}


def request(lease_id: str | None = None, **options: Any) -> CreateRequest:
    """A create request."""
    chosen = SessionOptions(**options)
    return CreateRequest(session_id=str(uuid.uuid4()), lease_id=lease_id, options=chosen)


async def wait(sessions: Sessions, engine: DyingEngine, session_id: str) -> None:
    """Do nothing: it ends by itself."""


async def release(sessions: Sessions, engine: DyingEngine, session_id: str) -> None:
    """Ask for it."""
    await sessions.release(MINE, session_id)


def dies(how: BrowserExit) -> Callable[[Sessions, DyingEngine, str], Awaitable[None]]:
    """The browser's main process ends like that."""

    async def die(sessions: Sessions, engine: DyingEngine, session_id: str) -> None:
        engine.die(session_id, how)

    return die


async def shut_down(sessions: Sessions, engine: DyingEngine, session_id: str) -> None:
    """Stop the server."""
    await sessions.close_down()


ENDINGS = {
    "user_requested": (request(), release, "released", None),
    "timeout": (request(timeout=Seconds(0.05)), wait, "released", "0.05 s was over"),
    "inactivity_timeout": (request(**DRIVEN), wait, "released", "said nothing for 0.1 s"),
    "lease_lost": (request(lease_id=str(uuid.uuid4())), wait, "released", "connection"),
    "browser_closed": (request(), dies(BrowserExit(exit_code=0)), "released", None),
    "browser_crashed": (
        request(),
        dies(BrowserExit(signal="SIGSEGV", stderr=("last words",), memory=7)),
        "failed",
        "signal SIGSEGV",
    ),
    "out_of_memory": (
        request(),
        dies(BrowserExit(signal="SIGKILL", out_of_memory=True, memory=300 * MEGABYTE)),
        "failed",
        "300 MB",
    ),
    "shutdown": (request(), shut_down, "released", "stopped"),
}


@pytest.mark.parametrize("reason", ENDINGS)
async def test_an_ending(reason: str) -> None:
    """Its reason, its status, its words, what the browser used, and its last events."""
    wanted, end, status, words = ENDINGS[reason]
    engine, store = DyingEngine(), MemoryStore()
    journal = Journal(store)
    await journal.open()
    sessions = sessions_on(engine, store, journal=journal, lease_grace=0.05, stop_grace=0)
    await sessions.open()
    await sessions.create(MINE, wanted)
    await end(sessions, engine, wanted.session_id)
    await until(lambda: not sessions.known(wanted.session_id))
    record = await sessions.get(MINE, wanted.session_id)
    assert (record.status, record.release_reason) == (status, reason)
    assert record.ended_at is not None
    told = await store.events(wanted.session_id)
    assert [event.type for event in told[:2]] == ["session.starting", "session.live"]
    assert [event.type for event in told[-2:]] == ["session.releasing", f"session.{status}"]
    assert record.event_count == len(told) == told[-1].number
    assert told[-1].details["reason"] == reason
    if words is None:
        assert record.error is None
    else:
        assert record.error is not None
        assert words in record.error.message
        assert told[-1].details["message"] == record.error.message
        died = reason in ("browser_crashed", "out_of_memory")
        assert record.error.memory == (
            7 if reason == "browser_crashed" else 300 * MEGABYTE if died else MEGABYTE
        )
    await sessions.close_down()
    await journal.close()


async def test_a_driver_that_speaks_is_not_idle() -> None:
    """Each command puts the end off; the session ends that long after the last one."""
    sessions = sessions_on(IdleEngine(), MemoryStore())
    await sessions.open()
    wanted = request(**DRIVEN)
    await sessions.create(MINE, wanted)
    active = sessions.live(wanted.session_id)
    assert active is not None
    loop = asyncio.get_running_loop()
    for _ in range(15):
        await asyncio.sleep(0.02)
        active.traffic.last = loop.time()
    assert sessions.live(wanted.session_id) is not None
    last = loop.time()
    await until(lambda: sessions.live(wanted.session_id) is None)
    assert 0.05 < loop.time() - last < 0.5
    await sessions.close_down()


async def test_a_timeout_is_told_before_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, 30 s before; `extend` puts it off, a shorter life is warned of at once."""
    monkeypatch.setattr("browsercloud.server.reaper.WARN_BEFORE", 0.5)
    store = MemoryStore()
    journal = Journal(store)
    await journal.open()
    sessions = sessions_on(IdleEngine(), store, journal=journal)
    await sessions.open()

    async def warnings(session_id: str) -> list[str]:
        events = await journal.read(session_id)
        return [e.details["expiresAt"] for e in events if e.type == "session.timeout_soon"]

    long, short = request(timeout=Seconds(0.8)), request(timeout=Seconds(0.4))
    for one in (long, short):
        await sessions.create(MINE, one)
    await asyncio.sleep(0.1)
    assert (len(await warnings(long.session_id)), len(await warnings(short.session_id))) == (0, 1)
    await sessions.extend(MINE, long.session_id, 0.8)
    await asyncio.sleep(0.25)
    assert await warnings(long.session_id) == []
    await until(lambda: not sessions.known(long.session_id))
    assert len(await warnings(long.session_id)) == 1
    await sessions.close_down()
    await journal.close()


async def test_a_failed_start_is_an_ending_too() -> None:
    """With its reason and its event."""
    store = MemoryStore()
    journal = Journal(store)
    await journal.open()
    sessions = sessions_on(FailingEngine(), store, journal=journal)
    await sessions.open()
    wanted = request()
    with pytest.raises(BrowserCloudError):
        await sessions.create(MINE, wanted)
    record = await sessions.get(MINE, wanted.session_id)
    assert (record.status, record.release_reason) == ("failed", "startup_failed")
    told = await store.events(wanted.session_id)
    assert told[-1].details["code"] == "launch_failed"
    await sessions.close_down()
    await journal.close()
