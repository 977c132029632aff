"""What every store does, wherever it keeps its records."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from browsercloud.models import (
    CreateRequest,
    ReleaseReason,
    Session,
    SessionEvent,
    SessionFailure,
    SessionStatus,
)
from browsercloud.options import Browser, Dimensions, SessionOptions
from browsercloud.stores.base import KeyRow, Limits, Query, SessionRow, Store
from browsercloud.stores.memory import MemoryStore
from browsercloud.stores.sqlite import FILE_NAME, SqliteStore
from tests.cancelling import at_every_await

START = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, root: Path) -> AsyncIterator[Store]:
    """An empty store of each kind."""
    store: Store = MemoryStore() if request.param == "memory" else SqliteStore(root / FILE_NAME)
    await store.open()
    yield store
    await store.close()


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


def ended(found: SessionRow, at: datetime | None = None) -> SessionRow:
    """The row after its end."""
    session = attrs.evolve(found.session, status=SessionStatus.RELEASED, ended_at=at)
    return attrs.evolve(found, session=session)


async def ids(store: Store, **query: object) -> list[int]:
    """The numbers of the rows that a query finds."""
    rows, _ = await store.list(Query(project="mine", **query))
    return [uuid.UUID(found.session.id).int for found in rows]


async def test_a_row_is_found_until_it_is_replaced(store: Store) -> None:
    """`put` inserts, and replaces by id; what was never put is `None`."""
    await store.put(row(1))
    await store.put(row(1, name="new"))
    found = await store.get(row(1).session.id)
    assert found is not None
    assert found.session.name == "new"
    assert await store.get(row(2).session.id) is None
    assert await ids(store) == [1]


async def test_a_list_is_newest_first_and_counts_all_matches(store: Store) -> None:
    """The limit cuts the page, not the count; other projects are not there."""
    for number in range(5):
        await store.put(row(number))
    await store.put(row(9, project="theirs"))
    rows, total = await store.list(Query(project="mine", limit=2))
    assert [found.session.created_at.second for found in rows] == [4, 3]
    assert total == 5


async def test_a_replaced_row_keeps_its_place(store: Store) -> None:
    """The order is that of creation, whatever changes later."""
    for number in range(3):
        await store.put(row(number))
    await store.put(ended(row(0)))
    assert await ids(store) == [2, 1, 0]


async def test_a_cursor_goes_on_after_an_id_that_no_longer_matches(store: Store) -> None:
    """It may have ended since the last page was read: nothing is repeated and nothing left out."""
    for number in range(5):
        await store.put(row(number))
    await store.put(ended(row(3)))
    after_three = row(3).session.id
    assert await ids(store, status=SessionStatus.LIVE, cursor_id=after_three) == [2, 1, 0]
    assert await ids(store, cursor_id=row(0).session.id) == []


async def test_a_cursor_of_another_project_is_unknown(store: Store) -> None:
    """As is one of nobody."""
    await store.put(row(1, project="theirs"))
    for number in (1, 2):
        with pytest.raises(KeyError):
            await ids(store, cursor_id=row(number).session.id)


async def test_filters_must_all_match(store: Store) -> None:
    """Status and every label."""
    await store.put(row(1, metadata={"a": "1", "b": "2"}))
    await store.put(row(2, metadata={"a": "1"}))
    await store.put(ended(row(3, metadata={"a": "1", "b": "2"})))
    both = {"a": "1", "b": "2"}
    assert await ids(store, metadata=both) == [3, 1]
    assert await ids(store, metadata=both, status=SessionStatus.LIVE) == [1]
    assert await ids(store, metadata={"a": ""}) == []


async def test_unended_rows_are_of_all_projects_oldest_first(store: Store) -> None:
    """What reconciling looks at."""
    await store.put(row(1))
    await store.put(row(2, project="theirs"))
    await store.put(ended(row(3)))
    assert [uuid.UUID(found.session.id).int for found in await store.unended()] == [1, 2]


async def test_a_tombstone_is_the_projects_own(store: Store) -> None:
    """Another project may use the id; to bury it again changes nothing."""
    await store.bury("mine", "a")
    await store.bury("mine", "a")
    assert await store.buried("mine", "a")
    assert not await store.buried("theirs", "a")
    assert not await store.buried("mine", "b")


async def test_a_row_comes_back_as_it_was(store: Store) -> None:
    """Every field of record and request."""
    moment = START + timedelta(milliseconds=123)
    options = SessionOptions(
        timeout=0.5,
        browser=Browser.HEADLESS_SHELL,
        dimensions=Dimensions(800, 600),
        user_agent="me",
        name="Zoë 🦊",
        metadata={"": "empty", "nul": "a\0b", ".dot": "'; DROP TABLE sessions; --"},
    )
    whole = SessionRow(
        project="mine",
        session=Session(
            id=row(1).session.id,
            status=SessionStatus.FAILED,
            created_at=moment,
            started_at=moment,
            ended_at=moment,
            expires_at=moment,
            timeout=options.timeout,
            duration=options.timeout,
            release_reason=ReleaseReason.BROWSER_CRASHED,
            error=SessionFailure(
                code="x",
                message="y",
                exit_code=1,
                signal="SIGKILL",
                stderr=("a", "b"),
                urls=("https://example.com/?…",),
                memory=2**33,
            ),
            event_count=7,
            browser=options.browser,
            dimensions=options.dimensions,
            user_agent="me",
            name=options.name,
            build="b",
            metadata=options.metadata,
            config={"nested": {"list": [1, 2.5, None, True]}},
        ),
        request=CreateRequest(
            session_id=row(1).session.id,
            lease_id=row(2).session.id,
            options=options,
            given={"name": "Zoë"},
        ),
        engine_state={"pid": 1, "started": 12.5, "nested": {"a": [None]}},
    )
    await store.put(whole)
    found = await store.get(whole.session.id)
    assert found == whole
    assert found.request.given == whole.request.given
    assert await ids(store, metadata=options.metadata) == [1]
    assert [other.engine_state for other in await store.unended()] == []
    live = row(2)
    await store.put(attrs.evolve(live, engine_state={"pid": 2}))
    assert [other.engine_state for other in await store.unended()] == [{"pid": 2}]
    listed, _ = await store.list(Query(project="mine"))
    assert [other.engine_state for other in listed] == [{"pid": 2}, whole.engine_state]
    await store.put(live)
    assert [other.engine_state for other in await store.unended()] == [None]


def event(number: int, **details: object) -> SessionEvent:
    """An event of any session."""
    at = START + timedelta(microseconds=number * 1001)
    return SessionEvent(number=number, at=at, type=f"test.{number % 3}", details=details)


async def numbers(store: Store, session_id: str, **page: int) -> list[int]:
    """The numbers of the events of one page."""
    return [found.number for found in await store.events(session_id, **page)]


async def test_events_come_back_as_they_were(store: Store) -> None:
    """In their order, page by page; each session has its own."""
    for number in (1, 2):
        await store.put(row(number))
    mine, other = row(1).session.id, row(2).session.id
    kept = [event(1, name="Zoë 🦊"), event(2, nested={"a": [1, 2.5, None, True]}), event(3)]
    await store.append(mine, kept[:2])
    await store.append(other, [event(1)])
    await store.append(mine, kept[2:])
    await store.append(mine, [])
    assert list(await store.events(mine)) == kept
    assert await numbers(store, mine, limit=2) == [1, 2]
    assert await numbers(store, mine, after=2) == [3]
    assert await numbers(store, mine, after=3) == []
    assert await numbers(store, mine, after=10**15) == []
    assert await numbers(store, other) == [1]
    assert await numbers(store, row(3).session.id) == []


async def test_an_append_may_be_repeated(store: Store) -> None:
    """What is there already stays as it is, whatever comes under its number; gaps are kept."""
    await store.put(row(1))
    mine = row(1).session.id
    await store.append(mine, [event(1), event(2)])
    await store.append(mine, [event(1, late=True), event(2), event(5)])
    await store.append(mine, [event(4)])
    assert list(await store.events(mine)) == [event(1), event(2), event(5)]
    await store.put(row(1, name="new"))
    assert await numbers(store, mine) == [1, 2, 5]


async def test_events_go_with_their_session(store: Store) -> None:
    """Those of an unknown session are not kept; a pruned one leaves none to its id's next user."""
    mine = row(1).session.id
    await store.append(mine, [event(1)])
    await store.put(row(1))
    assert await numbers(store, mine) == []
    for number in (1, 2):
        await store.put(ended(row(number), START))
        await store.append(row(number).session.id, [event(n) for n in range(1, 6_001)])
    await store.put(ended(row(3), START + timedelta(days=2)))
    await store.append(row(3).session.id, [event(1)])
    assert await store.prune(START + timedelta(days=1)) == 2
    assert await numbers(store, mine) == []
    assert await numbers(store, row(3).session.id) == [1]
    await store.put(row(1))
    assert await numbers(store, mine) == []
    await store.append(mine, [event(1)])
    assert await numbers(store, mine) == [1]


async def test_counts_follow_every_change(store: Store) -> None:
    """Status, labels and project of a row may change; pruning takes it out of all counts."""
    first = row(1, metadata={"a": "1"})
    steps = [
        (first, (1, 1, 1)),
        (row(2), (2, 2, 1)),
        (row(1, metadata={"a": "2"}), (2, 2, 0)),
        (first, (2, 2, 1)),
        (ended(first), (2, 1, 1)),
        (attrs.evolve(row(2), project="theirs"), (1, 0, 1)),
        (row(2), (2, 1, 1)),
    ]
    for change, counts in steps:
        await store.put(change)
        assert await totals(store) == counts
    assert await store.prune(START + timedelta(days=1)) == 1
    assert await totals(store) == (1, 1, 0)


async def totals(store: Store) -> tuple[int, int, int]:
    """How many sessions there are, how many live, how many have the label."""
    filters = ({}, {"status": SessionStatus.LIVE}, {"metadata": {"a": "1"}})
    found = [(await store.list(Query(project="mine", **more)))[1] for more in filters]
    return found[0], found[1], found[2]


async def test_pages_join_without_gap_or_repetition(store: Store) -> None:
    """With every filter, while sessions are made and end between two pages."""
    for number in range(10):
        await store.put(row(number, metadata={"even": str(number % 2 == 0), "all": "yes"}))
    for filters in ({}, {"metadata": {"all": "yes"}}, {"metadata": {"all": "yes", "even": "True"}}):
        found: list[int] = []
        cursor = None
        while page := await ids(store, limit=3, cursor_id=cursor, **filters):
            found += page
            cursor = row(page[-1]).session.id
            await store.put(row(100 + len(found), metadata={"even": "True", "all": "yes"}))
        expected = [n for n in range(9, -1, -1) if n % 2 == 0 or "even" not in str(filters)]
        assert [number for number in found if number < 100] == expected
        await store.prune(START)


async def test_only_what_ended_before_is_pruned(store: Store) -> None:
    """However long ago it was made: what lives stays. Its id may be used again afterwards."""
    await store.put(row(0))
    for number in range(1, 4):
        await store.put(row(number))
        await store.put(ended(row(number), START + timedelta(days=number)))
    assert await store.prune(START + timedelta(days=3)) == 2
    assert await ids(store) == [3, 0]
    assert await store.get(row(1).session.id) is None
    with pytest.raises(KeyError):
        await ids(store, cursor_id=row(1).session.id)
    await store.put(row(1))
    assert await ids(store) == [1, 3, 0]


async def test_old_tombstones_are_pruned(store: Store) -> None:
    """A create that late is no longer on its way."""
    await store.bury("mine", "a")
    await store.prune(datetime.now(UTC) - timedelta(minutes=1))
    assert await store.buried("mine", "a")
    await store.prune(datetime.now(UTC) + timedelta(minutes=1))
    assert not await store.buried("mine", "a")


def key(number: int, *, project: str = "mine") -> KeyRow:
    """A key's row."""
    return KeyRow(
        id=f"id{number}",
        hash=f"hash{number}",
        prefix=f"bc_{number}",
        project=project,
        created_at=START + timedelta(seconds=number),
    )


async def test_keys_are_kept_for_good(store: Store) -> None:
    """Oldest first, revoked ones too; a key that is there already is not made anew."""
    await store.add_key(key(2, project="theirs"))
    await store.add_key(key(1))
    assert await store.keys() == [key(1), key(2, project="theirs")]
    revoked = attrs.evolve(key(1), revoked_at=START)
    assert await store.revoke_key("id1", START) == revoked
    assert await store.revoke_key("id1", START + timedelta(days=1)) == revoked
    await store.add_key(attrs.evolve(key(1), id="other"))
    assert await store.keys() == [revoked, key(2, project="theirs")]
    assert await store.revoke_key("nobody", START) is None


async def test_the_last_use_of_a_key(store: Store) -> None:
    """Of keys that are there; the others are left alone."""
    await store.add_key(key(1))
    await store.add_key(key(2))
    await store.note_use({"id1": START, "nobody": START})
    assert [found.used_at for found in await store.keys()] == [START, None]
    await store.note_use({})


async def test_limits_are_replaced_as_a_whole(store: Store) -> None:
    """Each project has its own."""
    assert await store.limits() == {}
    await store.set_limits("mine", Limits(max_sessions=3, rate=60))
    await store.set_limits("theirs", Limits(rate=1))
    await store.set_limits("mine", Limits(max_sessions=4))
    assert await store.limits() == {"mine": Limits(max_sessions=4), "theirs": Limits(rate=1)}


async def test_the_access_version_changes_with_access_only(store: Store) -> None:
    """A server reads keys and limits again when it is another one, and at no other time."""
    seen = [await store.access_version()]
    for change in (
        store.add_key(key(1)),
        store.revoke_key("id1", START),
        store.set_limits("mine", Limits(rate=1)),
        store.set_limits("mine", Limits(rate=2)),
    ):
        await change
        seen.append(await store.access_version())
    assert len(set(seen)) == 5
    for other in (
        store.note_use({"id1": START}),
        store.add_key(key(1)),
        store.revoke_key("id1", START),
        store.put(row(1)),
        store.prune(START),
    ):
        await other
        assert await store.access_version() == seen[-1]


async def test_a_key_shows_no_hash() -> None:
    """A row may end up in a log."""
    assert "hash1" not in repr(key(1))


async def test_cancelled_at_every_await(store: Store) -> None:
    """Each call has happened as a whole or not at all, and the store goes on working."""
    number = 0

    async def everything() -> None:
        nonlocal number
        number += 1
        mine = row(number, metadata={"run": str(number)})
        await store.put(mine)
        await store.get(mine.session.id)
        await store.put(ended(mine))
        await store.append(mine.session.id, [event(1), event(2)])
        await store.events(mine.session.id)
        await store.list(Query(project="mine", metadata=mine.session.metadata))
        await store.unended()
        await store.bury("mine", mine.session.id)
        await store.buried("mine", mine.session.id)
        await store.prune(START)
        await store.add_key(key(number))
        await store.note_use({f"id{number}": START})
        await store.revoke_key(f"id{number}", START)
        await store.set_limits("mine", Limits(rate=number))

    async def sound() -> None:
        rows, total = await store.list(Query(project="mine", limit=1000))
        assert total == len(rows)
        for found in rows:
            _, labelled = await store.list(
                Query(project="mine", metadata=found.session.metadata, status=found.session.status)
            )
            assert labelled == 1
            assert await numbers(store, found.session.id) in ([], [1, 2])
        assert len(await store.keys()) <= number
        assert await store.limits() in ({}, {"mine": Limits(rate=number)})

    places = await at_every_await(everything, sound)
    assert places == (0 if isinstance(store, MemoryStore) else 14)


async def test_closing_twice_is_silent(store: Store) -> None:
    """And so is opening what is open."""
    await store.open()
    await store.close()
    await store.close()
