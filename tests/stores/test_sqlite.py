"""What only the store on disk does: the file, its versions, and its cost with 100 000 rows."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from browsercloud.errors import UsageError
from browsercloud.models import SessionStatus
from browsercloud.stores import database
from browsercloud.stores.base import Limits, Query
from browsercloud.stores.sqlite import EVENTS, FILE_NAME, SqliteStore, count_sql, page_sql
from browsercloud.wire import dump
from tests.cancelling import at_every_await
from tests.leaks import stray_threads
from tests.stores.test_contract import START, ended, event, ids, numbers, row

FEW, MANY = 3_000, 100_000


@pytest.fixture
def file(root: Path) -> Path:
    """Where the store is, in a folder that is not there yet."""
    return root / "data" / FILE_NAME


@asynccontextmanager
async def opened(file: Path) -> AsyncIterator[SqliteStore]:
    """The store, closed afterwards even if it could not be opened."""
    store = SqliteStore(file)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


async def refusal(file: Path) -> str:
    """Why the file is refused. Neither its content nor its neighbours may change by that."""
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(UsageError) as caught:
        async with opened(file):
            pass
    assert before == (file.read_bytes() if file.is_file() else None)
    assert str(file) in str(caught.value)
    return str(caught.value)


async def test_records_outlive_the_store(file: Path) -> None:
    """In the order of creation, tombstones too; whether it was closed or not."""
    async with opened(file) as first:
        await first.put(row(1))
        await first.put(row(2))
        await first.bury("mine", "a")
        async with opened(file) as second:
            assert await ids(second) == [2, 1]
    async with opened(file) as third:
        await third.put(row(3))
        assert await ids(third) == [3, 2, 1]
        assert await third.buried("mine", "a")


async def test_nobody_else_may_read_it(file: Path) -> None:
    """The file and its companions, also one whose mode was changed: it tells what was browsed."""
    async with opened(file) as store:
        await store.put(row(1))
        found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
        assert found == {FILE_NAME + end: 0o600 for end in ("", "-wal", "-shm")}
    file.chmod(0o644)
    async with opened(file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [FILE_NAME]


async def test_a_row_holds_no_url_and_no_token(file: Path) -> None:
    """Even if the record that is put has them."""
    async with opened(file) as store:
        await store.put(row(1, websocket_url="ws://h/?token=sesame", debug_url="sesame"))
    assert b"sesame" not in file.read_bytes()


async def test_what_is_no_store_is_refused(file: Path) -> None:
    """Text, nothing at all, a folder, another program's database: named, with what to do."""
    file.parent.mkdir()
    file.write_text("hello " * 1000)
    assert "is not a database; move it away" in await refusal(file)
    file.write_text("")
    assert "is not a store of browsercloud; move it away" in await refusal(file)
    file.unlink()
    with closing(sqlite3.connect(file)) as theirs:
        theirs.execute("CREATE TABLE sessions (id)")
    assert "is not a store of browsercloud; move it away" in await refusal(file)
    file.unlink()
    file.mkdir()
    assert "make it readable and writable" in await refusal(file)


async def test_a_newer_store_is_refused(file: Path) -> None:
    """It names both versions."""
    async with opened(file):
        pass
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA user_version = 99")
    assert "newer browsercloud (schema 99" in await refusal(file)


async def test_a_damaged_store_is_refused(file: Path) -> None:
    """Cut off, or overwritten in the middle; it is not replaced by an empty one."""
    async with opened(file) as store:
        for number in range(200):
            await store.put(row(number, name="x" * 500))
    whole = file.read_bytes()
    for spoilt in (
        whole[: len(whole) // 2],
        whole[:8192] + b"\xff" * 40_000 + whole[48_192:],
        whole[:4096],
    ):
        file.write_bytes(spoilt)
        assert "is damaged" in await refusal(file)


async def test_a_read_only_store_is_refused(file: Path) -> None:
    """Also to root, who could write it all the same."""
    async with opened(file):
        pass
    file.chmod(0o400)
    assert "is read-only; allow writing" in await refusal(file)


async def test_a_folder_that_cannot_be_made_is_told(root: Path) -> None:
    """A file stands where the folder should be."""
    (root / "data").write_text("")
    assert "make it readable and writable" in await refusal(root / "data" / FILE_NAME)


async def test_two_that_make_it_at_once_make_one(file: Path) -> None:
    """The server's first start and a command beside it."""
    stores = [SqliteStore(file) for _ in range(5)]
    await asyncio.gather(*(store.open() for store in stores))
    await asyncio.gather(*(store.put(row(n)) for n, store in enumerate(stores)))
    assert sorted(await ids(stores[0])) == [0, 1, 2, 3, 4]
    for store in stores:
        await store.close()
    assert [path.name for path in file.parent.iterdir()] == [FILE_NAME]


async def test_opening_and_closing_cancelled_at_every_await(file: Path) -> None:
    """No thread, no connection and no draft is left, and the next one can open it."""

    async def life() -> None:
        async with opened(file) as store:
            await store.put(row(1))

    async def nothing_left() -> None:
        while stray_threads():
            await asyncio.sleep(0.005)
        left = {path.name for path in file.parent.iterdir()} if file.parent.exists() else set()
        assert left <= {FILE_NAME}
        async with opened(file) as store:
            await store.put(row(2))

    assert await at_every_await(life, nothing_left) == 3


async def test_a_closed_store_refuses_calls(file: Path) -> None:
    """Rather than wait for ever, or open itself again."""
    store = SqliteStore(file)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="is not open"):
            await store.get("a")
        await store.open()
        await store.close()


async def test_a_write_that_fails_leaves_nothing(file: Path) -> None:
    """The transaction is undone and the next one begins anew."""
    async with opened(file) as store:
        await store.put(row(1))
        with pytest.raises(UnicodeEncodeError):
            await store.put(row(2, metadata={"a": "1", "b": "\ud800"}))
        assert await ids(store) == [1]
        await store.put(row(2))
        assert await ids(store) == [2, 1]


async def test_a_full_disk_costs_one_call(file: Path) -> None:
    """The call fails, the records are as before, and with room again it goes on."""
    async with opened(file) as store:
        await store.put(row(1))
        pages = await store._database.read(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
        await limit_pages(store, pages)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            await store.put(row(2, name="x" * 100_000))
        assert await ids(store) == [1]
        await limit_pages(store, 1_000_000)
        await store.put(row(2, name="x" * 100_000))
        assert (await store.list(Query(project="mine")))[1] == 2


async def limit_pages(store: SqliteStore, count: int) -> None:
    """Let the file grow so far and no further."""
    await store._database.read(lambda db: db.execute(f"PRAGMA max_page_count = {count}").fetchone())


WRITE_ON = """
import asyncio, sys
from pathlib import Path
from browsercloud.stores.sqlite import SqliteStore
from tests.stores.test_contract import ended, row

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    for number in range(100_000):
        await store.put(row(number, metadata={"a": "1"}))
        await store.put(ended(row(number, metadata={"a": "1"})))
        print(number, flush=True)

asyncio.run(main())
"""


async def test_a_killed_writer_loses_nothing(file: Path) -> None:
    """What was put before SIGKILL is there, and the counts are those of the rows."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_ON, str(file)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as writer:
        assert writer.stdout is not None
        told = [writer.stdout.readline() for _ in range(50)]
        writer.kill()
        last = int([*told, *writer.stdout][-1])
    async with opened(file) as store:
        filters: list[dict[str, Any]] = [{}, {"metadata": {"a": "1"}}]
        for more in filters:
            rows, total = await store.list(Query(project="mine", limit=200_000, **more))
            assert len(rows) == total
            assert total in (last + 1, last + 2)
        over = {uuid.UUID(found.session.id).int for found in rows if found.session.status.ended}
        assert over >= set(range(last + 1))


# ---------------------------------------------------------------------- 100 000 rows


def fill(file: Path, count: int) -> None:
    """So many sessions of two projects, one in ten of them alive."""
    one = row(1, project="mine")
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute(
            """WITH RECURSIVE
                number(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < :count),
                one(n, id, project, status) AS (
                    SELECT n, format('00000000-0000-0000-0000-%012x', n),
                        iif(n % 100 = 0, 'theirs', 'mine'), iif(n % 10 = 1, 'live', 'released')
                    FROM number
                )
            INSERT INTO sessions
            SELECT n + 1, id, project, status, iif(status = 'live', NULL, n),
                replace(:record, :id, id), :request, NULL
            FROM one""",
            {
                "count": count,
                "id": one.session.id,
                "record": json.dumps(dump(one.session)),
                "request": json.dumps(dump(one.request)),
            },
        )
        for name, value in (("", "''"), (".seven", "(number - 1) % 7"), (".half", "number % 2")):
            db.execute(
                "INSERT INTO labels "
                f"SELECT number, ?, CAST({value} AS TEXT), project, status FROM sessions",
                [name],
            )


QUERIES = {
    "all": {},
    "by status": {"status": SessionStatus.LIVE},
    "by label": {"metadata": {"seven": "3"}},
    "by label and status": {"metadata": {"seven": "3"}, "status": SessionStatus.LIVE},
}


async def costs(pages: dict[str, tuple[SqliteStore, Query]]) -> dict[str, float]:
    """Milliseconds for each page: the best of some, taken in turns, as others use the machine."""
    found: dict[str, list[float]] = {name: [] for name in pages}
    for _ in range(25):
        for name, (store, query) in pages.items():
            start = time.perf_counter()
            rows, _ = await store.list(query)
            found[name].append((time.perf_counter() - start) * 1000)
            assert len(rows) == query.limit
    return {name: min(times) for name, times in found.items()}


async def test_a_page_costs_the_same_wherever_it_is(file: Path) -> None:
    """First, middle and last page of 100 000 rows, against the first page of 3 000."""
    other = file.with_name("few.db")
    async with opened(file), opened(other):
        fill(file, MANY)
        fill(other, FEW)
    async with opened(file) as store, opened(other) as few:
        for name, filters in QUERIES.items():

            def page(after: int | None, filters: dict[str, Any] = filters) -> Query:
                cursor = None if after is None else row(after).session.id
                return Query(project="mine", limit=20, cursor_id=cursor, **filters)

            found = await costs(
                {
                    "few": (few, page(None)),
                    "first": (store, page(None)),
                    "middle": (store, page(MANY // 2 + 1)),
                    "last": (store, page(FEW + 1)),
                }
            )
            ratios = {place: round(cost / found["few"], 2) for place, cost in found.items()}
            print(f"{name}: {found['few']:.2f} ms with {FEW} rows; with {MANY}: {ratios}")
            assert max(ratios.values()) < 3, (name, ratios)


async def test_many_events_slow_no_other_call(file: Path) -> None:
    """100 000 of them: every call costs what it costs without any, wherever the page is."""
    other = file.with_name("none.db")
    async with opened(file) as store, opened(other) as none:
        for each in (store, none):
            for number in range(20):
                await each.put(row(number))
            await each.append(row(0).session.id, [event(n) for n in range(1, 101)])
        for number in range(1, 11):
            for first in range(1, 10_001, 500):
                many = [event(n) for n in range(first, first + 500)]
                await store.append(row(number).session.id, many)
        next_number = iter(range(10**6, 10**7))
        first, last = row(1).session.id, row(10).session.id
        calls: dict[str, tuple[Callable[[], Awaitable[object]], Callable[[], Awaitable[object]]]]
        calls = {
            "put": (lambda: store.put(row(5)), lambda: none.put(row(5))),
            "get": (lambda: store.get(first), lambda: none.get(first)),
            "list": (
                lambda: store.list(Query(project="mine", limit=20)),
                lambda: none.list(Query(project="mine", limit=20)),
            ),
            "append": (
                lambda: store.append(last, [event(next(next_number))]),
                lambda: none.append(last, [event(next(next_number))]),
            ),
            "last page": (
                lambda: store.events(first, after=9_900),
                lambda: none.events(row(0).session.id),
            ),
        }
        for name, (with_them, without) in calls.items():
            best = await best_of(with_them, without)
            print(f"{name}: {best[0]:.3f} ms with 100 000 events, {best[1]:.3f} ms without")
            assert best[0] < 3 * best[1], name


async def best_of(*calls: Callable[[], Awaitable[object]]) -> list[float]:
    """Milliseconds for each call: the best of many, in turns, as others use the machine."""
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(50):
        for call, times in zip(calls, found, strict=True):
            start = time.perf_counter()
            await call()
            times.append((time.perf_counter() - start) * 1000)
    return [min(times) for times in found]


async def test_pruning_lets_others_in_between(file: Path) -> None:
    """Sessions with 10 000 events each: nobody waits for more than one of them to go."""
    async with opened(file) as store:
        for number in range(8):
            await store.put(ended(row(number), START))
            for first in range(1, 10_001, 1000):
                many = [event(n) for n in range(first, first + 1000)]
                await store.append(row(number).session.id, many)
        pruning = asyncio.create_task(store.prune(START + timedelta(days=1)))
        between = 0
        while not pruning.done():
            await store.get(row(0).session.id)
            between += 1
        assert pruning.result() == 8
        assert between >= 8


async def test_a_page_of_events_is_a_walk_along_the_index(file: Path) -> None:
    """Already in order, beginning where the page does."""
    async with opened(file):
        pass
    with closing(sqlite3.connect(file)) as db:
        plan = [step[3] for step in db.execute("EXPLAIN QUERY PLAN " + EVENTS, ("a", 1, 2))]
    assert plan[0] == "SEARCH events USING PRIMARY KEY (session=? AND number>?)"
    assert not any("SCAN" in step or "TEMP" in step for step in plan[1:] if "SCALAR" not in step)


async def test_no_page_and_no_count_scans_the_table(file: Path) -> None:
    """Nothing is planned but walks along an index, already in order."""
    async with opened(file):
        pass
    every, one, two = [("", "")], [(".a", "1")], [(".a", "1"), (".b", "2")]
    with closing(sqlite3.connect(file)) as db:
        for status in (None, SessionStatus.LIVE):
            query = Query(project="mine", status=status)
            for filters in (every, one, two):
                for sql, values in (page_sql(query, filters), count_sql(query, filters)):
                    plan = [step[3] for step in db.execute("EXPLAIN QUERY PLAN " + sql, values)]
                    assert "INDEX labels_found" in plan[0], plan
                    assert not any("SCAN" in step or "TEMP" in step for step in plan), plan


@pytest.mark.parametrize("version", range(1, len(database.schema())))
async def test_an_older_store_is_brought_up_to_date(
    file: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From each version that ever was: its rows are kept, and it ends up just as a new one."""
    older = database.schema()[:version]
    with monkeypatch.context() as patch:
        patch.setattr(database, "schema", lambda: older)
        async with opened(file):
            put_as_version_1(file)
    assert pragma(file, "user_version") == version
    async with opened(file) as store:
        assert await store.get(row(1).session.id) == row(1)
        assert await ids(store) == [1]
        await store.set_limits("mine", Limits(rate=1))
        assert await numbers(store, row(1).session.id) == []
        await store.append(row(1).session.id, [event(1)])
        await store.put(attrs.evolve(row(1), engine_state={"pid": 1}))
    async with opened(file) as store:
        assert await numbers(store, row(1).session.id) == [1]
        assert [found.engine_state for found in await store.unended()] == [{"pid": 1}]
    fresh = file.with_name("fresh.db")
    async with opened(fresh):
        assert pragma(file, "user_version") == pragma(fresh, "user_version")
        assert shape(file) == shape(fresh)


def put_as_version_1(file: Path) -> None:
    """The first row, as the first version wrote it; later ones have only added columns."""
    one = row(1)
    texts = json.dumps(dump(one.session)), json.dumps(dump(one.request))
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(
            "INSERT INTO sessions (id, project, status, ended_at, record, request)"
            " VALUES (?, 'mine', 'live', NULL, ?, ?)",
            (one.session.id, *texts),
        )
        db.execute("INSERT INTO labels VALUES (1, '', '', 'mine', 'live')")


def pragma(file: Path, name: str) -> int:
    """A number that the file holds."""
    with closing(sqlite3.connect(file)) as db:
        return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def shape(file: Path) -> set[tuple[str, str]]:
    """Tables, indexes and triggers."""
    with closing(sqlite3.connect(file)) as db:
        return set(db.execute("SELECT name, sql FROM sqlite_master"))


async def test_a_migration_that_fails_changes_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it would be neither the one version nor the other."""
    async with opened(file):
        pass
    broken = (*database.schema(), ("CREATE TABLE later (a)", "CREATE TABLE sessions (a)"))
    monkeypatch.setattr(database, "schema", lambda: broken)
    with pytest.raises(UsageError, match="already exists"):
        async with opened(file):
            pass
    monkeypatch.undo()
    async with opened(file) as store:
        await store.put(row(1))
