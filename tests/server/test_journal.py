"""The journal: cheap to write to, in order, whole; and bounded when the store is not well."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest

from browsercloud.models import SessionEvent, SessionStatus
from browsercloud.options import Seconds
from browsercloud.server import journal as module
from browsercloud.server.journal import EventType, Journal
from browsercloud.stores.base import Store
from browsercloud.stores.memory import MemoryStore
from browsercloud.stores.sqlite import FILE_NAME, SqliteStore
from tests.cancelling import at_every_await
from tests.stores.test_contract import row

A, B = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))


class SickStore(MemoryStore):
    """Refuses to append while `sick`; `well` is what an append waits for. Counts the tries."""

    def __init__(self) -> None:
        super().__init__()
        self.sick = False
        self.well = asyncio.Event()
        self.well.set()
        self.tries = 0
        self.batches: list[int] = []

    async def append(self, session_id: str, events: Sequence[SessionEvent]) -> None:
        """Add, or fail."""
        self.tries += 1
        await self.well.wait()
        if self.sick:
            raise OSError("no space left on device")
        self.batches.append(len(events))
        await super().append(session_id, events)


@pytest.fixture
async def store() -> SickStore:
    """A store that knows two sessions."""
    store = SickStore()
    await store.put(row(1))
    await store.put(row(2))
    return store


@pytest.fixture
async def journal(store: SickStore) -> AsyncIterator[Journal]:
    """An open journal."""
    journal = Journal(store)
    await journal.open()
    yield journal
    await journal.close()


async def told(store: Store, session_id: str = A, **page: int) -> list[tuple[int, str]]:
    """Number and type of what the store has."""
    return [(event.number, event.type) for event in await store.events(session_id, **page)]


async def test_events_are_numbered_in_their_order(journal: Journal, store: SickStore) -> None:
    """Each session counts by itself from 1; what comes in one go is written in one go."""
    before = datetime.now(UTC)
    journal.note(A, EventType.STARTING)
    journal.note(B, EventType.STARTING)
    journal.note(A, EventType.LIVE)
    assert (journal.count(A), journal.count(B), journal.count("nobody")) == (2, 1, 0)
    assert await told(store) == []
    await journal.flush()
    assert await told(store) == [(1, "session.starting"), (2, "session.live")]
    assert await told(store, B) == [(1, "session.starting")]
    assert store.batches == [2, 1]
    assert before <= (await store.events(A))[0].at <= datetime.now(UTC)


async def test_details_are_json(journal: Journal, store: SickStore) -> None:
    """As on the wire, and as they were at that moment, whatever becomes of the object."""
    mutable = ["first"]
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    journal.note(A, "test", exit_code=9, at_last=moment, status=SessionStatus.LIVE, list_of=mutable)
    mutable.append("second")
    await journal.flush(A)
    (event,) = await store.events(A)
    assert event.details == {
        "exitCode": 9,
        "atLast": "2030-01-01T00:00:00.000Z",
        "status": "live",
        "listOf": ["first"],
    }


class Unwilling(dict[str, object]):
    """Cannot be read."""

    def items(self) -> NoReturn:
        """Fails in a way of its own."""
        raise SystemError("no")


def looped() -> list[object]:
    """A list that is in itself."""
    loop: list[object] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "odd",
    [object(), float("nan"), {1, 2}, b"bytes", looped(), "x" * 20_000, {(1, 2): 3}, Unwilling()],
    ids=["object", "nan", "set", "bytes", "loop", "huge", "key", "unwilling"],
)
async def test_a_note_never_fails(
    journal: Journal, store: SickStore, odd: object, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be written as JSON is left out; the event is there, and the log says so."""
    journal.note(A, "test", odd=odd)
    await journal.flush()
    (event,) = await store.events(A)
    assert (event.number, event.type) == (1, "test")
    left_out = event.details == {}
    assert left_out == ("kept without its details" in caplog.text)
    assert left_out or event.details == {"odd": [1, 2]}  # cattrs makes lists of sets
    assert "xxx" not in caplog.text


async def test_too_many_events(store: SickStore) -> None:
    """The last one that is kept says so; nothing comes after it, and other sessions go on."""
    journal = Journal(store, max_events=3)
    await journal.open()
    for _ in range(9):
        journal.note(A, "test")
    journal.note(B, "test")
    await journal.close()
    assert journal.count(A) == 3
    assert await told(store) == [(1, "test"), (2, "test"), (3, "session.events_dropped")]
    assert (await store.events(A))[2].details == {"kept": 3}
    assert await told(store, B) == [(1, "test")]


async def test_a_note_is_cheap(journal: Journal) -> None:
    """10 000 of them in well under a second, and nothing is waited for."""
    start = time.perf_counter()
    for _ in range(9_000):
        journal.note(A, EventType.EXTENDED, timeout=300_000, by="somebody")
    each = (time.perf_counter() - start) / 9_000
    print(f"a note takes {each * 1e6:.1f} µs")
    assert each < 200e-6
    await journal.flush()


async def test_numbers_go_on_after_a_restart(root: Path) -> None:
    """The store tells the last one, also one beyond the first page, and what was not closed."""
    store = SqliteStore(root / FILE_NAME)
    await store.open()
    await store.put(row(1))
    first = Journal(store)
    await first.open()
    for _ in range(2_500):
        first.note(A, "test")
    await first.flush()
    second = Journal(store)
    await second.open()
    assert await second.resume(A) == second.count(A) == 2_500
    assert await second.resume(B) == 0
    second.note(A, EventType.RESTORED)
    await second.close()
    await first.close()
    assert await told(store, after=2_499) == [(2_500, "test"), (2_501, "session.restored")]
    await store.close()


async def test_a_store_that_fails_for_a_moment_loses_nothing(
    journal: Journal, store: SickStore
) -> None:
    """It is tried again, and the order is kept."""
    store.sick = True
    journal.note(A, "one")
    while store.tries < 2:
        await asyncio.sleep(0)
    journal.note(A, "two")
    store.sick = False
    await journal.flush()
    assert await told(store) == [(1, "one"), (2, "two")]


async def test_a_store_that_goes_on_failing_is_given_up(
    journal: Journal,
    store: SickStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After five tries what it refused is lost, and said to be; what comes later is kept again."""
    monkeypatch.setattr(module, "RETRY_PAUSES", (0.001,) * 4)
    store.sick = True
    journal.note(A, "one")
    journal.note(B, "one")
    await journal.flush()
    assert store.tries == 6  # once it is known to fail, the next ones are tried once
    assert caplog.text.count("1 events lost: no space left on device") == 2
    store.sick = False
    journal.note(A, "two")
    await journal.flush()
    assert await told(store) == [(2, "two")]


async def test_a_store_that_hangs_costs_bounded_memory(
    store: SickStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond the bound events are dropped; one line says so when it begins, one when it is over."""
    journal = Journal(store, max_unsaved=5)
    await journal.open()
    store.well.clear()
    for _ in range(9):
        journal.note(A, "test")
    assert len(journal._unsaved) == 5
    assert caplog.text.count("5 events behind") == 1
    store.well.set()
    await journal.flush()
    journal.note(A, "test")
    await journal.close()
    assert "4 events were dropped" in caplog.text
    assert [number for number, _ in await told(store)] == [1, 2, 3, 4, 5, 10]


async def test_closing_writes_what_is_left(store: SickStore, journal: Journal) -> None:
    """Twice is silent; what is noted later is dropped, and nothing is written any more."""
    journal.note(A, "one")
    await journal.close()
    await journal.close()
    journal.note(A, "two")
    await journal.flush()
    assert await told(store) == [(1, "one")]


async def test_closing_does_not_wait_for_ever(
    store: SickStore, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that hangs is left behind."""
    monkeypatch.setattr(module, "CLOSE_PATIENCE", 0.05)
    store.well.clear()
    journal.note(A, "one")
    with pytest.raises(TimeoutError, match="writing the last events"):
        await journal.close()
    await journal.close()


async def test_what_is_noted_before_it_opens_is_kept(store: SickStore) -> None:
    """It is written then; a flush before that waits for nothing."""
    journal = Journal(store)
    journal.note(A, "one")
    await journal.flush()
    assert await told(store) == []
    await journal.open()
    await journal.open()
    await journal.flush()
    assert await told(store) == [(1, "one")]
    await journal.close()


async def test_flush_waits_for_no_other_session(journal: Journal, store: SickStore) -> None:
    """And for none that has nothing to be written."""
    store.well.clear()
    journal.note(A, "one")
    async with asyncio.timeout(1):
        await journal.flush(B)
        await journal.flush("nobody")
    waiting = asyncio.create_task(journal.flush(A))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    store.well.set()
    await waiting
    assert await told(store) == [(1, "one")]


async def test_cancelled_at_every_await(root: Path) -> None:
    """A flush, a read or a reader that is cancelled loses nothing and leaves nothing behind."""
    store = SqliteStore(root / FILE_NAME)
    await store.open()
    await store.put(row(1))
    journal = Journal(store)
    await journal.open()
    names = (f"n{number}" for number in itertools.count(1))

    async def everything() -> None:
        journal.note(A, next(names))
        await journal.flush(A)
        await journal.read(A)
        later = journal.count(A) + 1
        asyncio.get_running_loop().call_later(0.005, lambda: journal.note(A, next(names)))
        async for event in journal.follow(A):
            if event.number == later:
                break

    async def sound() -> None:
        await asyncio.sleep(0.01)  # until the later note has come, with or without its reader
        await journal.flush()
        found = await told(store, limit=1_000)
        assert found == [(n, f"n{n}") for n in range(1, journal.count(A) + 1)]
        assert (journal._listeners, journal._progress) == ({}, set())

    assert await at_every_await(everything, sound) >= 4
    await journal.close()
    await store.close()


async def test_the_writer_may_be_cancelled(journal: Journal, store: SickStore) -> None:
    """As `asyncio.run` does with every task at its end: closing still writes what is left."""
    store.well.clear()
    journal.note(A, "one")
    while not store.tries:
        await asyncio.sleep(0)
    assert journal._writer is not None
    journal._writer.cancel()
    store.well.set()
    await journal.close()
    assert await told(store) == [(1, "one")]


async def test_following_a_session(journal: Journal, store: SickStore) -> None:
    """What was, then what comes, each once and in order; it ends when the session is forgotten."""
    for number in range(250):
        journal.note(A, f"n{number + 1}")
    found: list[int] = []

    async def follow() -> None:
        async for event in journal.follow(A, after=3):
            assert event.type == f"n{event.number}"
            found.append(event.number)

    following = asyncio.create_task(follow())
    for number in range(250, 400):
        await asyncio.sleep(0)
        journal.note(A, f"n{number + 1}")
    while len(found) < 397:
        await asyncio.sleep(0.001)
    assert not following.done()
    journal.note(B, "other")
    journal.note(A, "n401")
    journal.forget(A)
    await following
    assert found == list(range(4, 402))
    assert journal._listeners == {}


async def test_a_slow_reader_loses_nothing_and_holds_nothing_up(journal: Journal) -> None:
    """However far it is behind, and although the session is over long before it is done."""
    journal.note(A, "test")
    reader = journal.follow(A)
    assert (await anext(reader)).number == 1
    for _ in range(3_000):
        journal.note(A, "test")
    await journal.flush()
    journal.forget(A)
    assert [event.number async for event in reader] == list(range(2, 3_002))


async def test_following_what_is_over(journal: Journal) -> None:
    """An ended session's events are told and that is all; a stranger has none."""
    journal.note(A, "one")
    journal.forget(A)
    assert [event.number async for event in journal.follow(A)] == [1]
    assert [event.number async for event in journal.follow("nobody")] == []


async def test_closing_ends_who_follows(journal: Journal) -> None:
    """With everything told."""
    journal.note(A, "one")
    following = asyncio.create_task(collect(journal.follow(A)))
    await journal.flush()
    await asyncio.sleep(0.01)
    journal.note(A, "two")
    await journal.close()
    assert [event.type for event in await following] == ["one", "two"]


async def collect(events: AsyncIterator[SessionEvent]) -> list[SessionEvent]:
    """All of them."""
    return [event async for event in events]


async def test_a_forgotten_session_stays_forgotten(
    journal: Journal, store: SickStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A note that comes too late begins nothing anew, unless it is resumed, or long ago."""
    journal.note(A, "one")
    assert journal.knows(A)
    journal.forget(A)
    journal.forget(A)
    assert not journal.knows(A)
    journal.note(A, "late")
    assert journal.count(A) == 0
    await journal.flush()
    assert await told(store) == [(1, "one")]
    assert await journal.resume(A) == 1
    journal.note(A, "two")
    await journal.flush()
    assert await told(store) == [(1, "one"), (2, "two")]
    journal.forget(A)
    monkeypatch.setattr(module, "LATE_WITHIN", 0)
    journal.note(A, "anew")
    assert journal.count(A) == 1


async def test_it_keeps_nothing_of_sessions_that_are_over(journal: Journal) -> None:
    """Whatever their number."""
    for number in range(3_000):
        name = str(uuid.UUID(int=number))
        journal.note(name, "test", duration=Seconds(1))
        journal.forget(name)
    await journal.flush()
    assert (len(journal._counts), len(journal._places), len(journal._unsaved)) == (0, 0, 0)
    assert len(journal._forgotten) <= 1_000
