"""One SQLite file and the thread that uses it: how it is opened, checked, migrated and closed."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TypeVar

from browsercloud._aio import join, settle
from browsercloud.errors import UsageError

T = TypeVar("T")

APPLICATION_ID = 0x62637374
"""Marks the file as ours (`bcst`), in the place that SQLite has for that."""

PRIVATE = 0o600
BUSY_PATIENCE = 5.0
"""How long to wait while another process writes, in seconds; its writes take milliseconds."""

CLOSE_PATIENCE = 10.0


class Database:
    """A connection in WAL mode on a thread of its own.

    Every call is one function on that thread, and one transaction. (Not aiosqlite, which awaits
    each statement: a cancellation, or another task, could come between those of one transaction.)
    A call that is cancelled has happened as a whole or not at all; calls happen in their order.
    Before `open` and after `close` they raise `RuntimeError`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._thread: ThreadPoolExecutor | None = None
        self._db: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the file; make it if there is none, bring it up to date if it is older.

        Raises `UsageError` that names the file and the remedy when it is damaged, cannot be
        written, is newer than this program, or is not a store at all. It is left as it is then.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="browsercloud store")
            await self._call(self._open)

    async def close(self) -> None:
        """Finish what has been asked for and close the file, also when cancelled."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        closing = asyncio.get_running_loop().run_in_executor(thread, self._close)
        try:
            await settle(lambda: join(closing), patience=CLOSE_PATIENCE, what="closing the store")
        finally:
            thread.shutdown(wait=False)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What *work* returns."""
        return await self._call(lambda: work(self._connection()))

    async def write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """What *work* returns; nothing of it is kept when it raises.

        With *durable* it is on the disk when this returns, else at the next checkpoint.
        """
        return await self._call(lambda: _transaction(self._connection(), work, durable=durable))

    async def _call(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise RuntimeError(f"the store {self._path} is not open")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise RuntimeError(f"the store {self._path} is not open")
        return self._db

    def _open(self) -> None:
        # Kept here and not by the caller: a cancelled caller would lose an open connection.
        self._db = _connect(self._path)

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _transaction(
    db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T], *, durable: bool = True
) -> T:
    db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    db.execute("BEGIN IMMEDIATE")
    try:
        result = work(db)
        db.execute("COMMIT")
    except BaseException:
        db.rollback()
        raise
    return result


def _connect(path: Path) -> sqlite3.Connection:
    try:
        if not path.exists():
            _create(path)
        _refuse_unwritable(path)
        db = _open_file(path)
        try:
            _prepare(db, path)
        except BaseException:
            db.close()
            raise
    except sqlite3.DatabaseError as error:
        raise _refused(path, error) from error
    except OSError as error:
        raise UsageError(
            f"{path} cannot be used as the store ({error.strerror}); "
            "make it readable and writable, or choose another --data-dir"
        ) from error
    return db


def _open_file(path: Path) -> sqlite3.Connection:
    # mode=rw never makes a file, and without isolation_level no transaction begins by itself.
    return sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=BUSY_PATIENCE
    )


def _create(path: Path) -> None:
    """Make a store, whole or not at all: one that is there but empty has lost its records."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".new", dir=path.parent)
    os.close(descriptor)  # readable by its owner only, from the first byte
    draft = Path(name)
    try:
        db = _open_file(draft)
        try:
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            _migrate(db, 0)
        finally:
            db.close()
        os.link(draft, path)
    except FileExistsError:
        return  # another process has just made it
    finally:
        draft.unlink()


def _refuse_unwritable(path: Path) -> None:
    mode = path.stat().st_mode
    # The mode is asked for as well: root may write everything, also what was locked on purpose.
    if not (mode & stat.S_IWUSR and os.access(path, os.R_OK | os.W_OK)):
        raise UsageError(
            f"{path} is read-only; allow writing (chmod u+w), or choose another --data-dir"
        )
    if stat.S_ISREG(mode) and stat.S_IMODE(mode) != PRIVATE:
        path.chmod(PRIVATE)  # it tells what was browsed


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Make sure that the file is a sound store of this version; change nothing before that."""
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise UsageError(
            f"{path} is not a store of browsercloud; move it away, or choose another --data-dir"
        )
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found > len(schema()):
        raise UsageError(
            f"{path} was written by a newer browsercloud (schema {found}, this one knows "
            f"{len(schema())}); update browsercloud, or choose another --data-dir"
        )
    damage = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise sqlite3.DatabaseError(damage)
    db.execute("PRAGMA journal_mode = WAL")
    if found < len(schema()):
        _transaction(db, lambda db: _migrate(db, db.execute("PRAGMA user_version").fetchone()[0]))


def _migrate(db: sqlite3.Connection, found: int) -> None:
    for version, statements in enumerate(schema()[found:], start=found + 1):
        for statement in statements:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {version}")


@cache
def schema() -> tuple[tuple[str, ...], ...]:
    """The statements of each version, the first one first."""
    text = resources.files("browsercloud.stores").joinpath("schema.sql").read_text("utf-8")
    return tuple(tuple(_statements(part)) for part in text.split("\n-- version ")[1:])


def _statements(part: str) -> Iterator[str]:
    _, _, rest = part.partition("\n")
    statement = ""
    for line in rest.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _refused(path: Path, error: sqlite3.DatabaseError) -> UsageError:
    what = str(error)
    if "not a database" in what:
        return UsageError(f"{path} is not a database; move it away, or choose another --data-dir")
    if isinstance(error, sqlite3.OperationalError):
        return UsageError(
            f"{path} cannot be used as the store ({what}); make it readable and writable, "
            "or choose another --data-dir"
        )
    return UsageError(
        f"{path} is damaged ({what}); put a copy of it in its place, or move it away, "
        "with its -wal and -shm files, to begin with an empty store"
    )
