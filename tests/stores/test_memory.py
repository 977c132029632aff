"""What only the store in memory does: it forgets, as its room is bounded."""

from __future__ import annotations

import pytest

from browsercloud.stores import memory
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
