"""Records kept in an SQLite file: for a server whose sessions' records outlive it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from browsercloud.models import CreateRequest, Session, SessionEvent
from browsercloud.stores.base import KeyRow, Limits, Query, SessionRow, labels_of
from browsercloud.stores.database import Database
from browsercloud.stores.seal import Seal
from browsercloud.wire import dump, load

FILE_NAME = "browsercloud.db"
PRUNED_AT_ONCE = 500
"""Sessions that one transaction of `prune` removes, so that others are not kept waiting."""

PRUNED_ROWS = 5_000
"""Rows, events among them, after which it takes no further session."""

_EVERY = ("", "")
_LAST = 2**63 - 1
_ROW = "s.project, s.record, s.request, s.engine_state"
_KEY = "id, hash, prefix, project, created_at, used_at, revoked_at"


class SqliteStore:
    """A `Store` in one SQLite file. What `Database` says of its calls holds for these.

    A killed process loses nothing. A power cut may lose the latest records, as the file is synced
    at checkpoints only; the browsers they tell of are gone then too.

    URLs that may hold a password are written under a seal, which *secret* opens again; without one
    they are not kept.

    Whoever opens it must be the only one that writes sessions; the engine's lock on the data
    folder sees to that.
    """

    def __init__(self, path: Path, secret: bytes | None = None) -> None:
        self._database = Database(path)
        self._seal = Seal(secret)

    async def open(self) -> None:
        """Open the file, or make it. Raises `UsageError` if it is not a store to work with."""
        await self._database.open()

    async def close(self) -> None:
        """Finish what has been asked for and close the file, also when cancelled."""
        await self._database.close()

    async def put(self, row: SessionRow) -> None:
        """Insert or replace."""
        await self._database.write(partial(_put, row=row, seal=self._seal))

    async def get(self, session_id: str) -> SessionRow | None:
        """The row, or `None`."""
        return await self._database.read(partial(_get, session_id=session_id, seal=self._seal))

    async def list(self, query: Query) -> tuple[Sequence[SessionRow], int]:
        """One page, newest first, and the count of all matches.

        Costs the same for each page and any number of rows, with a status or without, with one
        label or none. Several labels at once cost as much as the rarest of them has sessions.
        """
        return await self._database.read(partial(_list, query=query, seal=self._seal))

    async def unended(self) -> Sequence[SessionRow]:
        """Rows not ended, oldest first."""
        return await self._database.read(partial(_unended, seal=self._seal))

    async def append(self, session_id: str, events: Sequence[SessionEvent]) -> None:
        """Add what is new, all of it or nothing."""
        await self._database.write(partial(_append, session_id=session_id, events=events))

    async def events(
        self, session_id: str, *, after: int = 0, limit: int = 100
    ) -> Sequence[SessionEvent]:
        """One page; costs the same wherever it is and however many there are."""
        found = (EVENTS, (session_id, after, limit))
        return await self._database.read(lambda db: [_event(*row) for row in db.execute(*found)])

    async def bury(self, project: str, session_id: str) -> None:
        """Leave a tombstone."""
        sql = "INSERT OR IGNORE INTO tombstones VALUES (?, ?, ?)"
        grave = (project, session_id, datetime.now(UTC).timestamp())
        await self._database.write(lambda db: db.execute(sql, grave).rowcount)

    async def buried(self, project: str, session_id: str) -> bool:
        """Whether it was buried."""
        sql = "SELECT 1 FROM tombstones WHERE project = ? AND id = ?"
        grave = (project, session_id)
        return await self._database.read(lambda db: db.execute(sql, grave).fetchone() is not None)

    async def prune(self, before: datetime) -> int:
        """Forget what is older, in small transactions; other calls come in between."""
        total, pruned = 0, -1
        while pruned:
            pruned = await self._database.write(partial(_prune, before=before.timestamp()))
            total += pruned
        return total

    async def add_key(self, row: KeyRow) -> None:
        """Insert the key."""
        await self._database.write(partial(_add_key, row=row), durable=True)

    async def keys(self) -> Sequence[KeyRow]:
        """Every key, oldest first."""
        sql = f"SELECT {_KEY} FROM keys ORDER BY created_at, id"  # noqa: S608  a constant
        return await self._database.read(lambda db: [_key(*row) for row in db.execute(sql)])

    async def revoke_key(self, key_id: str, at: datetime) -> KeyRow | None:
        """Revoke the key; it stays revoked after a power cut, too."""
        return await self._database.write(
            partial(_revoke_key, key_id=key_id, at=at.timestamp()), durable=True
        )

    async def note_use(self, used: Mapping[str, datetime]) -> None:
        """Keep the last uses."""
        sql = "UPDATE keys SET used_at = ? WHERE id = ?"
        values = [(at.timestamp(), key_id) for key_id, at in used.items()]
        await self._database.write(lambda db: db.executemany(sql, values).rowcount)

    async def set_limits(self, project: str, limits: Limits) -> None:
        """Replace the project's limits."""
        sql = (
            "INSERT INTO limits VALUES (?, ?, ?) ON CONFLICT (project)"
            " DO UPDATE SET max_sessions = excluded.max_sessions, rate = excluded.rate"
        )
        values = (project, limits.max_sessions, limits.rate)
        await self._database.write(lambda db: db.execute(sql, values).rowcount, durable=True)

    async def limits(self) -> Mapping[str, Limits]:
        """Every project's limits."""
        rows = await self._database.read(
            lambda db: db.execute("SELECT project, max_sessions, rate FROM limits").fetchall()
        )
        return {
            project: Limits(max_sessions=max_sessions, rate=rate)
            for project, max_sessions, rate in rows
        }

    async def access_version(self) -> int:
        """The number that the schema's triggers count up, in whatever process the change was."""
        sql = "SELECT version FROM access"
        return await self._database.read(lambda db: int(db.execute(sql).fetchone()[0]))


# ---------------------------------------------------------------------- rows


def _put(db: sqlite3.Connection, row: SessionRow, seal: Seal) -> None:
    session = row.session
    ended_at = (session.ended_at or session.created_at) if session.status.ended else None
    plain = attrs.evolve(session, websocket_url="", debug_url="", session_viewer_url="")
    found = db.execute(
        "INSERT INTO sessions (id, project, status, ended_at, record, request, engine_state)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET project = excluded.project, status = excluded.status,"
        " ended_at = excluded.ended_at, record = excluded.record, request = excluded.request,"
        " engine_state = excluded.engine_state RETURNING number",
        (
            session.id,
            row.project,
            session.status,
            ended_at.timestamp() if ended_at else None,
            json.dumps(dump(plain)),
            json.dumps(seal.close(dump(row.request))),
            json.dumps(dict(row.engine_state)) if row.engine_state is not None else None,
        ),
    ).fetchall()
    _label(db, found[0][0], row)


def _label(db: sqlite3.Connection, number: int, row: SessionRow) -> None:
    """Let the row be found by its labels. They hardly ever change after the first time."""
    wanted = {(row.project, *label) for label in (_EVERY, *labels_of(row.session))}
    sql = "SELECT project, name, value FROM labels WHERE number = ?"
    if wanted != set(db.execute(sql, (number,))):
        db.execute("DELETE FROM labels WHERE number = ?", (number,))
        db.executemany(
            "INSERT INTO labels (number, project, name, value, status) VALUES (?, ?, ?, ?, ?)",
            [(number, *label, row.session.status) for label in sorted(wanted)],
        )


def _get(db: sqlite3.Connection, session_id: str, seal: Seal) -> SessionRow | None:
    sql = f"SELECT {_ROW} FROM sessions AS s WHERE id = ?"  # noqa: S608  a constant
    rows = _rows(db.execute(sql, (session_id,)), seal)
    return rows[0] if rows else None


def _list(db: sqlite3.Connection, query: Query, seal: Seal) -> tuple[Sequence[SessionRow], int]:
    before = _LAST
    if query.cursor_id is not None:
        sql = "SELECT number FROM sessions WHERE id = ? AND project = ?"
        cursor = db.execute(sql, (query.cursor_id, query.project)).fetchone()
        if cursor is None:
            raise KeyError(query.cursor_id)
        before = cursor[0]
    filters = [*query.labels] or [_EVERY]
    # The rarest label leads, and the others are looked up for each session that it finds.
    counted = sorted((_count(db, query, name, value), name, value) for name, value in filters)
    filters = [(name, value) for _, name, value in counted]
    rows = _rows(db.execute(*page_sql(query, filters, before)), seal)
    if len(filters) == 1:
        return rows, counted[0][0]
    return rows, db.execute(*count_sql(query, filters)).fetchone()[0]


def page_sql(
    query: Query, filters: Sequence[tuple[str, str]], before: int = _LAST
) -> tuple[str, tuple[Any, ...]]:
    """The statement, with its values, for one page of what has all labels of *filters*."""
    where, values = _found_by(query, filters)
    # CROSS JOIN keeps the order: the label's index first, then the page's rows and no others.
    statement = (
        f"SELECT {_ROW} FROM labels AS l"  # noqa: S608  see _found_by
        f" CROSS JOIN sessions AS s ON s.number = l.number WHERE {where}"
        " AND l.number < ? ORDER BY l.number DESC LIMIT ?"
    )
    return statement, (*values, before, query.limit)


def count_sql(query: Query, filters: Sequence[tuple[str, str]]) -> tuple[str, tuple[Any, ...]]:
    """The statement, with its values, that counts what has all labels of *filters*."""
    where, values = _found_by(query, filters)
    return f"SELECT count(*) FROM labels AS l WHERE {where}", values  # noqa: S608  see _found_by


def _found_by(query: Query, filters: Sequence[tuple[str, str]]) -> tuple[str, tuple[Any, ...]]:
    """The condition, made of nothing but the texts below, and the values for it."""
    (name, value), *others = filters
    where = "l.project = ? AND l.name = ? AND l.value = ?"
    values = [query.project, name, value]
    if query.status is not None:
        where += " AND l.status = ?"
        values.append(query.status)
    for other in others:
        where += (
            " AND EXISTS (SELECT 1 FROM labels AS o"
            " WHERE o.number = l.number AND o.name = ? AND o.value = ?)"
        )
        values.extend(other)
    return where, tuple(values)


def _count(db: sqlite3.Connection, query: Query, name: str, value: str) -> int:
    sql = "SELECT total(n) FROM counts WHERE project = ? AND name = ? AND value = ?"
    values = [query.project, name, value]
    if query.status is not None:
        sql += " AND status = ?"
        values.append(query.status)
    return int(db.execute(sql, values).fetchone()[0])


def _unended(db: sqlite3.Connection, seal: Seal) -> Sequence[SessionRow]:
    where = "ended_at IS NULL ORDER BY number"
    return _rows(db.execute(f"SELECT {_ROW} FROM sessions AS s WHERE {where}"), seal)  # noqa: S608


def _prune(db: sqlite3.Connection, before: float) -> int:
    """Forget some of it, and say how many sessions; 0 when there is nothing left to forget."""
    pruned, begun = 0, db.total_changes  # counts what the triggers remove, too
    sql = "SELECT number FROM sessions WHERE ended_at < ? ORDER BY ended_at LIMIT ?"
    for number in db.execute(sql, (before, PRUNED_AT_ONCE)).fetchall():
        pruned += db.execute("DELETE FROM sessions WHERE number = ?", number).rowcount
        if db.total_changes - begun >= PRUNED_ROWS:
            break
    db.execute("DELETE FROM tombstones WHERE buried_at < ?", (before,))
    return pruned


def _rows(found: sqlite3.Cursor, seal: Seal) -> list[SessionRow]:
    return [
        SessionRow(
            project=project,
            session=load(json.loads(record), Session),
            request=load(seal.open(json.loads(request)), CreateRequest),
            engine_state=json.loads(engine_state) if engine_state is not None else None,
        )
        for project, record, request, engine_state in found
    ]


# ---------------------------------------------------------------------- events

EVENTS = (
    "SELECT number, at, type, details FROM events"
    " WHERE session = (SELECT number FROM sessions WHERE id = ?) AND number > ?"
    " ORDER BY number LIMIT ?"
)
"""The statement for one page of a session's events."""


def _append(db: sqlite3.Connection, session_id: str, events: Sequence[SessionEvent]) -> None:
    found = db.execute("SELECT number FROM sessions WHERE id = ?", (session_id,)).fetchone()
    if found is None:
        return
    sql = "SELECT ifnull(max(number), 0) FROM events WHERE session = ?"
    last = db.execute(sql, found).fetchone()[0]
    db.executemany(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
        [
            (
                *found,
                event.number,
                event.at.timestamp(),
                event.type,
                json.dumps(dict(event.details)),
            )
            for event in events
            if event.number > last
        ],
    )


def _event(number: int, at: float, kind: str, details: str) -> SessionEvent:
    return SessionEvent(
        number=number, at=datetime.fromtimestamp(at, UTC), type=kind, details=json.loads(details)
    )


# ---------------------------------------------------------------------- keys


def _add_key(db: sqlite3.Connection, row: KeyRow) -> None:
    times = (_seconds(at) for at in (row.created_at, row.used_at, row.revoked_at))
    db.execute(
        "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (hash) DO NOTHING",
        (row.id, row.hash, row.prefix, row.project, *times),
    )


def _revoke_key(db: sqlite3.Connection, key_id: str, at: float) -> KeyRow | None:
    db.execute("UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (at, key_id))
    sql = f"SELECT {_KEY} FROM keys WHERE id = ?"  # noqa: S608  a constant
    found = db.execute(sql, (key_id,)).fetchone()
    return _key(*found) if found is not None else None


def _key(key_id: str, key_hash: str, prefix: str, project: str, *times: float | None) -> KeyRow:
    created_at, used_at, revoked_at = times
    return KeyRow(
        id=key_id,
        hash=key_hash,
        prefix=prefix,
        project=project,
        created_at=datetime.fromtimestamp(created_at or 0, UTC),
        used_at=_time(used_at),
        revoked_at=_time(revoked_at),
    )


def _seconds(at: datetime | None) -> float | None:
    return at.timestamp() if at is not None else None


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
