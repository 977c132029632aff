"""Records kept in this process: for the embedded cloud, and for tests."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from operator import attrgetter

import attrs

from browsercloud.models import Session, SessionEvent, SessionStatus
from browsercloud.stores.base import KeyRow, Label, Limits, Query, SessionRow, labels_of

MAX_ENDED = 10_000
MAX_TOMBSTONES = 10_000


class MemoryStore:
    """A `Store` in a dict. Keeps the latest 10 000 ended sessions and as many tombstones."""

    def __init__(self, *, max_ended: int = MAX_ENDED) -> None:
        self._numbers: dict[str, int] = {}  # of each session, in the order of creation
        self._next = count()
        self._rows: dict[int, SessionRow] = {}
        self._shelves = _Shelves()
        self._events: dict[str, list[SessionEvent]] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._tombstones: OrderedDict[tuple[str, str], datetime] = OrderedDict()
        self._max_ended = max_ended
        self._keys: dict[str, KeyRow] = {}
        self._limits: dict[str, Limits] = {}
        self._access_version = 0

    async def open(self) -> None:
        """Nothing to do: it is ready when made."""

    async def close(self) -> None:
        """Nothing to let go of."""

    async def put(self, row: SessionRow) -> None:
        """Insert or replace; of too many ended rows the oldest goes, with its events."""
        number = self._numbers.get(row.session.id)
        if number is None:
            number = self._numbers[row.session.id] = next(self._next)
        self._shelves.move(number, self._rows.get(number), row)
        self._rows[number] = row
        if row.session.status.ended:
            self._ended[row.session.id] = None
            if len(self._ended) > self._max_ended:
                oldest, _ = self._ended.popitem(last=False)
                self._forget(oldest)

    async def get(self, session_id: str) -> SessionRow | None:
        """The row, or `None`."""
        number = self._numbers.get(session_id)
        return None if number is None else self._rows[number]

    async def list(self, query: Query) -> tuple[Sequence[SessionRow], int]:
        """One page, newest first, and the count of all matches.

        Costs the same for any number of rows, with a status or without, with one label or none.
        Several labels at once cost as much as the rarest of them has sessions.
        """
        numbers = self._shelves.of(query)
        if len(query.labels) > 1:
            numbers = [number for number in numbers if _labelled(self._rows[number], query)]
        end = len(numbers)
        if query.cursor_id is not None:
            # The cursor need not match the filter: it may have ended since the last page.
            cursor = await self.get(query.cursor_id)
            if cursor is None or cursor.project != query.project:
                raise KeyError(query.cursor_id)
            end = bisect_left(numbers, self._numbers[query.cursor_id])
        page = reversed(numbers[max(0, end - query.limit) : end])
        return [self._rows[number] for number in page], len(numbers)

    async def unended(self) -> Sequence[SessionRow]:
        """Rows not ended, oldest first."""
        return [row for row in self._rows.values() if not row.session.status.ended]

    async def append(self, session_id: str, events: Sequence[SessionEvent]) -> None:
        """Add what is new."""
        if session_id in self._numbers:
            kept = self._events.setdefault(session_id, [])
            last = kept[-1].number if kept else 0
            kept.extend(event for event in events if event.number > last)

    async def events(
        self, session_id: str, *, after: int = 0, limit: int = 100
    ) -> Sequence[SessionEvent]:
        """One page, found by bisection."""
        kept = self._events.get(session_id, [])
        start = bisect_right(kept, after, key=attrgetter("number"))
        return kept[start : start + limit]

    async def bury(self, project: str, session_id: str) -> None:
        """Remember the id; the oldest tombstone goes when there are too many."""
        self._tombstones.setdefault((project, session_id), datetime.now(UTC))
        if len(self._tombstones) > MAX_TOMBSTONES:
            self._tombstones.popitem(last=False)

    async def buried(self, project: str, session_id: str) -> bool:
        """Whether it was buried."""
        return (project, session_id) in self._tombstones

    async def prune(self, before: datetime) -> int:
        """Forget what is older."""
        rows = ((name, self._rows[self._numbers[name]]) for name in self._ended)
        old = [name for name, row in rows if _ended_at(row.session) < before]
        for name in old:
            del self._ended[name]
            self._forget(name)
        for grave in [grave for grave, left in self._tombstones.items() if left < before]:
            del self._tombstones[grave]
        return len(old)

    def _forget(self, session_id: str) -> None:
        number = self._numbers.pop(session_id)
        self._shelves.move(number, self._rows.pop(number), None)
        self._events.pop(session_id, None)

    async def add_key(self, row: KeyRow) -> None:
        """Insert the key."""
        if row.hash not in {known.hash for known in self._keys.values()}:
            self._keys[row.id] = row
            self._access_version += 1

    async def keys(self) -> Sequence[KeyRow]:
        """Every key, oldest first."""
        return sorted(self._keys.values(), key=lambda row: (row.created_at, row.id))

    async def revoke_key(self, key_id: str, at: datetime) -> KeyRow | None:
        """Revoke the key."""
        row = self._keys.get(key_id)
        if row is not None and row.revoked_at is None:
            row = self._keys[key_id] = attrs.evolve(row, revoked_at=at)
            self._access_version += 1
        return row

    async def note_use(self, used: Mapping[str, datetime]) -> None:
        """Keep the last uses."""
        for key_id in used.keys() & self._keys.keys():
            self._keys[key_id] = attrs.evolve(self._keys[key_id], used_at=used[key_id])

    async def set_limits(self, project: str, limits: Limits) -> None:
        """Replace the project's limits."""
        self._limits[project] = limits
        self._access_version += 1

    async def limits(self) -> Mapping[str, Limits]:
        """Every project's limits."""
        return dict(self._limits)

    async def access_version(self) -> int:
        """The number of changes so far."""
        return self._access_version


def _ended_at(session: Session) -> datetime:
    return session.ended_at or session.created_at


def _labelled(row: SessionRow, query: Query) -> bool:
    return query.labels <= labels_of(row.session)


_Shelf = tuple[str, Label | None, SessionStatus | None]
"""A project's rows, of those the ones with a label, of those the ones in a status."""


class _Shelves:
    """The numbers of the rows that can be listed together, in their order."""

    def __init__(self) -> None:
        self._numbers: dict[_Shelf, list[int]] = {}

    def of(self, query: Query) -> Sequence[int]:
        """Those that the query asks for; of several labels only the rarest is heeded."""
        labels = query.labels or (None,)
        shelves = (self._numbers.get((query.project, label, query.status), []) for label in labels)
        return min(shelves, key=len)

    def move(self, number: int, before: SessionRow | None, after: SessionRow | None) -> None:
        """Put what stood where *before* says to where *after* says; `None` is nowhere."""
        old, new = _shelves_of(before), _shelves_of(after)
        for shelf in old - new:
            numbers = self._numbers[shelf]
            del numbers[bisect_left(numbers, number)]
            if not numbers:
                del self._numbers[shelf]
        for shelf in new - old:
            insort(self._numbers.setdefault(shelf, []), number)


def _shelves_of(row: SessionRow | None) -> set[_Shelf]:
    if row is None:
        return set()
    labels = (None, *labels_of(row.session))
    statuses = (None, row.session.status)
    return {(row.project, label, status) for label in labels for status in statuses}
