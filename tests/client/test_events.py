"""`client.sessions.events` and `follow` against the real server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from browsercloud import (
    BrowserCloud,
    InvalidRequest,
    NotAuthorized,
    SessionEvent,
    SessionNotFound,
    UsageError,
)
from browsercloud.local import LocalServer
from browsercloud.server.app import Server
from browsercloud.server.config import DEFAULT_PROJECT, ServerConfig
from browsercloud.server.journal import Journal
from browsercloud.server.parts import PARTS
from browsercloud.server.routes import events
from browsercloud.stores.memory import MemoryStore
from browsercloud.testing import IdleEngine
from tests.faults import DROP_AFTER, DROP_BEFORE, UNAVAILABLE, faulty
from tests.stores.test_contract import START, ended, row

SESSION = str(uuid.UUID(int=1))


class Story:
    """A server on this loop with the record of one session, of which only the test tells."""

    def __init__(self, url: str, store: MemoryStore, journal: Journal) -> None:
        self.url = url
        self.journal = journal
        self._store = store

    def note(self, *kinds: str) -> None:
        """Let this have happened."""
        for kind in kinds:
            self.journal.note(SESSION, kind)

    async def end(self) -> None:
        """End the session."""
        await self._store.put(ended(row(1, project=DEFAULT_PROJECT), START))
        self.journal.forget(SESSION)


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    """The server."""
    store = MemoryStore()
    server = Server(ServerConfig(port=0, api_key="k"), IdleEngine(), store)
    await server.start()
    await store.put(row(1, project=DEFAULT_PROJECT))
    yield Story(server.url, store, server._app[PARTS].journal)
    await server.stop()


@pytest.fixture
async def client(story: Story) -> AsyncIterator[BrowserCloud]:
    """A client of it."""
    async with BrowserCloud(story.url, api_key="k") as client:
        yield client


async def numbers(found: AsyncIterator[SessionEvent]) -> list[int]:
    """All of them."""
    return [event.number async for event in found]


async def test_events_come_page_by_page(story: Story, client: BrowserCloud) -> None:
    """As models; the last number leads to the next page, and an empty one ends it."""
    story.journal.note(SESSION, "session.live", timeout=300_000)
    story.note("b", "c")
    first = await client.sessions.events(SESSION, limit=2)
    assert [(event.number, event.type) for event in first] == [(1, "session.live"), (2, "b")]
    assert first[0].details == {"timeout": 300_000}
    assert first[0].at.tzinfo is not None
    (last,) = await client.sessions.events(SESSION, after=first[-1].number)
    assert last.type == "c"
    assert await client.sessions.events(SESSION, after=last.number) == ()


async def test_what_cannot_be_asked(story: Story, client: BrowserCloud) -> None:
    """Refused by name, as everywhere; an id that is none is not sent."""
    for wrong in ({"limit": 0}, {"limit": 1001}, {"after": -1}):
        with pytest.raises(InvalidRequest):
            await client.sessions.events(SESSION, **wrong)
    nobody = str(uuid.UUID(int=9))
    with pytest.raises(SessionNotFound):
        await client.sessions.events(nobody)
    with pytest.raises(SessionNotFound):
        await numbers(client.sessions.follow(nobody))
    with pytest.raises(UsageError, match="session_id"):
        await client.sessions.events("../../etc/passwd")
    with pytest.raises(UsageError, match="session_id"):
        await numbers(client.sessions.follow("../../etc/passwd"))
    async with BrowserCloud(story.url, api_key="wrong") as stranger:
        with pytest.raises(NotAuthorized):
            await numbers(stranger.sessions.follow(SESSION))


async def test_following_a_life(story: Story, client: BrowserCloud) -> None:
    """What was and what comes, each once, as it happens; it ends with the session."""
    story.note("a", "b")
    following = client.sessions.follow(SESSION, after=1)
    assert (await anext(following)).type == "b"
    for kind in "cde":
        waiting = asyncio.ensure_future(anext(following))
        await listened_to(story)
        assert not waiting.done()
        story.note(kind)
        async with asyncio.timeout(2):
            assert (await waiting).type == kind
    story.note("session.released")
    await story.end()
    assert [event.type async for event in following] == ["session.released"]


async def test_following_in_the_quiet(
    story: Story, client: BrowserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait that is over without an event is begun again, and none is told twice."""
    monkeypatch.setattr(events, "WAIT", 0.02)
    story.note("a")
    following = asyncio.create_task(numbers(client.sessions.follow(SESSION)))
    await asyncio.sleep(0.2)
    story.note("b")
    await story.end()
    assert await following == [1, 2]


async def test_following_what_is_over(story: Story, client: BrowserCloud) -> None:
    """All of it, in pages, and then the end."""
    story.note(*("x" * 2_500))
    await story.end()
    assert await numbers(client.sessions.follow(SESSION)) == list(range(1, 2_501))
    assert await numbers(client.sessions.follow(SESSION, after=2_500)) == []


async def test_following_on_a_bad_day(story: Story) -> None:
    """Answers that never come are asked for again: nothing is left out or told twice."""
    story.note(*("x" * 1_500))
    await story.end()
    faults = [UNAVAILABLE, DROP_AFTER, "none", DROP_BEFORE]
    async with faulty(story.url, "GET", faults) as proxy:
        async with BrowserCloud(proxy.url, api_key="k") as client:
            assert await numbers(client.sessions.follow(SESSION)) == list(range(1, 1_501))
            assert len(proxy.requests) == 5


async def test_leaving_a_follow_early(story: Story, client: BrowserCloud) -> None:
    """Breaking out of it, or being cancelled in it, leaves the client as it was."""
    story.note("a")
    async for event in client.sessions.follow(SESSION):
        assert event.number == 1
        break
    following = asyncio.create_task(numbers(client.sessions.follow(SESSION)))
    await listened_to(story)
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    assert len(await client.sessions.events(SESSION)) == 1


async def test_a_follow_outlasts_the_request_timeout(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time for which the server holds its answer does not count as silence."""
    monkeypatch.setattr(events, "WAIT", 0.6)
    async with BrowserCloud(story.url, api_key="k", request_timeout=0.2) as client:
        following = asyncio.create_task(numbers(client.sessions.follow(SESSION)))
        await asyncio.sleep(1)
        story.note("a")
        await story.end()
        assert await following == [1]


async def test_an_embedded_server_tells_events_too() -> None:
    """From the first to the last, numbered without a gap, during life and after it."""
    async with (
        LocalServer(engine=IdleEngine()) as server,
        BrowserCloud(server.url, api_key=server.api_key) as client,
    ):
        session = await client.sessions.create()
        before = [event.number for event in await client.sessions.events(session.id)]
        await client.sessions.release(session.id)
        async with asyncio.timeout(5):
            after = await numbers(aiter(client.sessions.events(session.id)))
        assert after == list(range(1, len(after) + 1))
        assert before == after[: len(before)]


async def listened_to(story: Story) -> None:
    """Return when somebody waits for the next event."""
    async with asyncio.timeout(5):
        while SESSION not in story.journal._listeners:
            await asyncio.sleep(0.005)
