"""Records kept in memory."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from browsercloud.models import CreateRequest, Session, SessionStatus
from browsercloud.stores import memory
from browsercloud.stores.base import Query, SessionRow
from browsercloud.stores.memory import MemoryStore

START = datetime(2030, 1, 1, tzinfo=UTC)


def row(number: int = 0, *, project: str = "mine", **more: object) -> SessionRow:
    """A row of a live session."""
    session_id = str(uuid.UUID(int=number))
    session = Session(
        id=session_id, status=SessionStatus.LIVE, created_at=START + timedelta(seconds=number)
    )
    return SessionRow(
        project=project,
        session=attrs.evolve(session, **more),
        request=CreateRequest(session_id=session_id),
    )


def ended(found: SessionRow) -> SessionRow:
    """The row after its end."""
    session = attrs.evolve(found.session, status=SessionStatus.RELEASED)
    return attrs.evolve(found, session=session)


async def ids(store: MemoryStore, **query: object) -> list[int]:
    """The numbers of the rows that a query finds."""
    rows, _ = await store.list(Query(project="mine", **query))
    return [uuid.UUID(found.session.id).int for found in rows]


async def test_a_row_is_found_until_it_is_replaced() -> None:
    """`put` inserts, and replaces by id; what was never put is `None`."""
    store = MemoryStore()
    await store.put(row(1))
    await store.put(row(1, name="new"))
    found = await store.get(row(1).session.id)
    assert found is not None
    assert found.session.name == "new"
    assert await store.get(row(2).session.id) is None
    assert await ids(store) == [1]


async def test_a_list_is_newest_first_and_counts_all_matches() -> None:
    """The limit cuts the page, not the count; other projects are not there."""
    store = MemoryStore()
    for number in range(5):
        await store.put(row(number))
    await store.put(row(9, project="theirs"))
    rows, total = await store.list(Query(project="mine", limit=2))
    assert [found.session.created_at.second for found in rows] == [4, 3]
    assert total == 5


async def test_a_replaced_row_keeps_its_place() -> None:
    """The order is that of creation, whatever changes later."""
    store = MemoryStore()
    for number in range(3):
        await store.put(row(number))
    await store.put(ended(row(0)))
    assert await ids(store) == [2, 1, 0]


async def test_a_cursor_goes_on_after_an_id_that_no_longer_matches() -> None:
    """It may have ended since the last page was read: nothing is repeated and nothing left out."""
    store = MemoryStore()
    for number in range(5):
        await store.put(row(number))
    await store.put(ended(row(3)))
    after_three = row(3).session.id
    assert await ids(store, status=SessionStatus.LIVE, cursor_id=after_three) == [2, 1, 0]
    assert await ids(store, cursor_id=row(0).session.id) == []


async def test_a_cursor_of_another_project_is_unknown() -> None:
    """As is one of nobody."""
    store = MemoryStore()
    await store.put(row(1, project="theirs"))
    for number in (1, 2):
        with pytest.raises(KeyError):
            await ids(store, cursor_id=row(number).session.id)


async def test_filters_must_all_match() -> None:
    """Status and every label."""
    store = MemoryStore()
    await store.put(row(1, metadata={"a": "1", "b": "2"}))
    await store.put(row(2, metadata={"a": "1"}))
    await store.put(ended(row(3, metadata={"a": "1", "b": "2"})))
    both = {"a": "1", "b": "2"}
    assert await ids(store, metadata=both) == [3, 1]
    assert await ids(store, metadata=both, status=SessionStatus.LIVE) == [1]
    assert await ids(store, metadata={"a": ""}) == []


async def test_unended_rows_are_of_all_projects_oldest_first() -> None:
    """What reconciling looks at."""
    store = MemoryStore()
    await store.put(row(1))
    await store.put(row(2, project="theirs"))
    await store.put(ended(row(3)))
    assert [uuid.UUID(found.session.id).int for found in await store.unended()] == [1, 2]


async def test_only_the_latest_ended_rows_are_kept() -> None:
    """Those that live are never dropped, however many have ended."""
    store = MemoryStore(max_ended=2)
    await store.put(row(0))
    for number in range(1, 5):
        await store.put(row(number))
        await store.put(ended(row(number)))
        await store.put(ended(row(number)))
    assert await ids(store) == [4, 3, 0]


async def test_a_tombstone_is_the_projects_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another project may use the id; the oldest tombstones go when there are too many."""
    monkeypatch.setattr(memory, "MAX_TOMBSTONES", 2)
    store = MemoryStore()
    await store.bury("mine", "a")
    assert await store.buried("mine", "a")
    assert not await store.buried("theirs", "a")
    await store.bury("mine", "b")
    await store.bury("mine", "c")
    assert [await store.buried("mine", name) for name in "abc"] == [False, True, True]
