"""Records kept in this process: for the embedded cloud, and for tests."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter

import attrs

from browsercloud.models import Session, SessionEvent
from browsercloud.stores.base import KeyRow, Limits, Query, SessionRow

MAX_ENDED = 10_000
MAX_TOMBSTONES = 10_000


class MemoryStore:
    """A `Store` in a dict. Keeps the latest 10 000 ended sessions and as many tombstones."""

    def __init__(self, *, max_ended: int = MAX_ENDED) -> None:
        self._rows: dict[str, SessionRow] = {}  # in the order of creation
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
        self._rows[row.session.id] = row
        if row.session.status.ended:
            self._ended[row.session.id] = None
            if len(self._ended) > self._max_ended:
                oldest, _ = self._ended.popitem(last=False)
                self._forget(oldest)

    async def get(self, session_id: str) -> SessionRow | None:
        """The row, or `None`."""
        return self._rows.get(session_id)

    async def list(self, query: Query) -> tuple[Sequence[SessionRow], int]:
        """One page, newest first, and the count of all matches."""
        rows = [row for row in reversed(self._rows.values()) if _matches(row, query)]
        start = 0
        if query.cursor_id is not None:
            # The cursor need not match the filter: it may have ended since the last page.
            mine = (row for row in reversed(self._rows.values()) if row.project == query.project)
            ids = [row.session.id for row in mine]
            if query.cursor_id not in ids:
                raise KeyError(query.cursor_id)
            passed = set(ids[: ids.index(query.cursor_id) + 1])
            start = sum(1 for row in rows if row.session.id in passed)
        return rows[start : start + query.limit], len(rows)

    async def unended(self) -> Sequence[SessionRow]:
        """Rows not ended, oldest first."""
        return [row for row in self._rows.values() if not row.session.status.ended]

    async def append(self, session_id: str, events: Sequence[SessionEvent]) -> None:
        """Add what is new."""
        if session_id in self._rows:
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
        old = [name for name in self._ended if _ended_at(self._rows[name].session) < before]
        for name in old:
            del self._ended[name]
            self._forget(name)
        for grave in [grave for grave, left in self._tombstones.items() if left < before]:
            del self._tombstones[grave]
        return len(old)

    def _forget(self, session_id: str) -> None:
        del self._rows[session_id]
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


def _matches(row: SessionRow, query: Query) -> bool:
    session: Session = row.session
    return (
        row.project == query.project
        and (query.status is None or session.status is query.status)
        and all(session.metadata.get(key) == value for key, value in query.metadata.items())
    )
