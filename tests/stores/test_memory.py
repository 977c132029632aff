"""What only the store in memory does: it forgets, as its room is bounded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from browsercloud.models import SessionStatus
from browsercloud.stores import memory
from browsercloud.stores.base import Query, SessionRow
from browsercloud.stores.memory import MemoryStore
from tests.stores.test_contract import ended, event, ids, numbers, row


async def test_only_the_latest_ended_rows_are_kept() -> None:
    """Those that live are never dropped, however many have ended; events go with their row."""
    store = MemoryStore(max_ended=2)
    await store.put(row(0))
    for number in range(1, 5):
        await store.put(row(number))
        await store.append(row(number).session.id, [event(1)])
        await store.put(ended(row(number)))
        await store.put(ended(row(number)))
    assert await ids(store) == [4, 3, 0]
    kept = [number for number in range(5) if await numbers(store, row(number).session.id)]
    assert kept == [3, 4]
    assert len(store._events) == 2


async def test_the_oldest_tombstones_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """When there are too many."""
    monkeypatch.setattr(memory, "MAX_TOMBSTONES", 2)
    store = MemoryStore()
    for name in "abc":
        await store.bury("mine", name)
    assert [await store.buried("mine", name) for name in "abc"] == [False, True, True]


class Touched(dict[int, SessionRow]):
    """Rows that count how often one is looked at."""

    count = 0

    def __getitem__(self, number: int) -> SessionRow:
        self.count += 1
        return super().__getitem__(number)

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("all rows are walked")

    values = items = keys = __iter__  # type: ignore[assignment]


@pytest.mark.parametrize(
    "query",
    [
        Query(project="mine", limit=10),
        Query(project="mine", limit=10, cursor_id=row(400).session.id),
        Query(project="mine", limit=10, status=SessionStatus.RELEASED),
        Query(project="mine", limit=10, metadata={"all": "yes"}),
        Query(project="mine", limit=10, metadata={"all": "yes", "rare": "7"}),
    ],
    ids=["all", "cursor", "status", "label", "labels"],
)
async def test_a_page_looks_at_its_own_rows_only(query: Query) -> None:
    """However many there are: the page, its cursor, and what the rarest of several labels has."""
    store = MemoryStore()
    for number in range(500):
        labels = {"all": "yes", "rare": str(number // 20)}
        await store.put(row(number, metadata=labels))
        if number % 2:
            await store.put(ended(row(number, metadata=labels)))
    rows = store._rows = Touched(store._rows)
    page, total = await store.list(query)
    assert len(page) == 10
    assert total == {True: 20, False: 250 if query.status else 500}[len(query.metadata) > 1]
    assert rows.count <= 30


async def test_nothing_is_kept_of_what_is_forgotten() -> None:
    """Neither the rows nor the ways to find them."""
    store = MemoryStore(max_ended=0)
    for number in range(3):
        await store.put(row(number, metadata={"number": str(number)}))
        await store.put(ended(row(number, metadata={"number": str(number)})))
    assert (store._rows, store._numbers, store._shelves._numbers) == ({}, {}, {})
