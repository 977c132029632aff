"""`client.sessions` against the real server: idempotent create, retries, lists."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from browsercloud import (
    BrowserCloud,
    Conflict,
    ConnectionFailed,
    LaunchFailed,
    NotAuthorized,
    ReleaseReason,
    ServiceError,
    SessionEnded,
    SessionNotFound,
    UsageError,
)
from browsercloud.local import LocalServer
from browsercloud.testing import FailingEngine, IdleEngine, SlowEngine
from tests.faults import BAD_GATEWAY, DROP_AFTER, DROP_BEFORE, UNAVAILABLE, faulty
from tests.leaks import browsers
from tests.processes import until


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    """A real server with real browsers."""
    async with LocalServer() as server:
        yield server


@pytest.fixture
async def client(server: LocalServer) -> AsyncIterator[BrowserCloud]:
    """A client of it."""
    async with BrowserCloud(server.url, api_key=server.api_key) as client:
        yield client


async def test_same_create_at_the_same_moment(client: BrowserCloud, root: Path) -> None:
    """Ten at once and one later make one Chromium, and all get the same session."""
    chosen = str(uuid.uuid4())

    async def create() -> str:
        return (await client.sessions.create(browser="headless-shell", session_id=chosen)).id

    assert set(await asyncio.gather(*(create() for _ in range(10)))) == {chosen}
    assert await create() == chosen
    assert len(browsers(root)) == 1
    await client.sessions.release(chosen)


async def test_a_bad_day(server: LocalServer, root: Path) -> None:
    """503 twice, then a connection dropped after the create: one session, one Chromium."""
    faults = [UNAVAILABLE, UNAVAILABLE, DROP_AFTER]
    async with faulty(server.url, "POST", faults, retry_after=0.1) as proxy:
        async with BrowserCloud(proxy.url, api_key=server.api_key) as client:
            session = await client.sessions.create(browser="headless-shell")
            assert len(proxy.requests) == 4
            assert len(browsers(root)) == 1
            assert (await client.sessions.list()).total_count == 1
            assert (await client.sessions.release(session.id)).success


async def test_release_on_a_bad_day(server: LocalServer) -> None:
    """A release whose answer was lost is repeated, and was ours all the same."""
    async with faulty(server.url, "DELETE", [DROP_BEFORE, DROP_AFTER]) as proxy:
        async with BrowserCloud(proxy.url, api_key=server.api_key) as client:
            session = await client.sessions.create(browser="headless-shell")
            released = await client.sessions.release(session.id)
            assert (released.success, released.already_ended) == (True, False)
            assert len(proxy.requests) == 3


async def test_create_that_cannot_be_answered(server: LocalServer, root: Path) -> None:
    """When the answer never comes, the session that was made is released before the error."""
    async with faulty(server.url, "POST", [DROP_AFTER] * 99) as proxy:
        async with BrowserCloud(proxy.url, api_key=server.api_key) as client:
            with pytest.raises(ConnectionFailed, match=proxy.url):
                await client.sessions.create(browser="headless-shell")
            listed = await client.sessions.list()
            assert [s.release_reason for s in listed.sessions] == [ReleaseReason.USER_REQUESTED]
            await until(lambda: browsers(root) == [], "the end of the browser")


async def test_a_proxy_hides_the_answer(server: LocalServer, root: Path) -> None:
    """A status that is not our server's own says nothing about the session: it is released."""
    async with faulty(server.url, "POST", [BAD_GATEWAY] * 9) as proxy:
        async with BrowserCloud(proxy.url, api_key=server.api_key) as client:
            with pytest.raises(ServiceError) as caught:
                await client.sessions.create(browser="headless-shell")
            assert caught.value.status == 520
            await until(lambda: browsers(root) == [], "the end of the browser")


async def test_release_before_create(client: BrowserCloud, root: Path) -> None:
    """The tombstone of an early release keeps the late create out."""
    chosen = str(uuid.uuid4())
    with pytest.raises(SessionNotFound):
        await client.sessions.release(chosen)
    with pytest.raises(Conflict, match="released before"):
        await client.sessions.create(session_id=chosen)
    assert browsers(root) == []


async def test_an_id_is_used_once(client: BrowserCloud) -> None:
    """After its end an id makes no second session."""
    session = await client.sessions.create(browser="headless-shell")
    await client.sessions.release(session.id)
    with pytest.raises(Conflict, match="is ending|already ended"):
        await client.sessions.create(browser="headless-shell", session_id=session.id)
    assert (await client.sessions.release(session.id, wait=True)).already_ended
    with pytest.raises(Conflict, match="already ended"):
        await client.sessions.create(browser="headless-shell", session_id=session.id)
    with pytest.raises(SessionEnded):
        await client.sessions.extend(session.id, 60)


async def test_extend(client: BrowserCloud) -> None:
    """A new life from now: longer than the first, or shorter."""
    session = await client.sessions.create(browser="headless-shell", timeout=2)
    longer = await client.sessions.extend(session.id, timeout=600)
    assert session.expires_at is not None
    assert longer.expires_at is not None
    assert longer.expires_at > session.expires_at
    await client.sessions.extend(session.id, timeout=0.2)
    loop = asyncio.get_running_loop()
    end = loop.time() + 5
    while (ended := await client.sessions.retrieve(session.id)).release_reason is None:
        assert loop.time() < end
        await asyncio.sleep(0.02)
    assert ended.release_reason is ReleaseReason.TIMEOUT


async def test_wrong_key(server: LocalServer, root: Path) -> None:
    """An unknown key is told at once, and nothing is started."""
    async with BrowserCloud(server.url, api_key="wrong") as client:
        with pytest.raises(NotAuthorized):
            async with client.session():
                raise AssertionError("it must not open")
    assert browsers(root) == []


async def test_list_pages() -> None:
    """Newest first, page by page, with filters; an empty page ends it."""
    async with (
        LocalServer(engine=IdleEngine()) as server,
        BrowserCloud(server.url, api_key=server.api_key) as client,
    ):
        made = [(await client.sessions.create(metadata={"odd": str(n % 2)})).id for n in range(5)]
        first = await client.sessions.list(limit=3)
        assert [session.id for session in first.sessions] == made[:1:-1]
        assert (first.total_count, first.next_cursor) == (5, made[2])
        await client.sessions.release(made[2])  # the cursor need not be live
        second = await client.sessions.list(limit=3, cursor_id=first.next_cursor)
        assert [session.id for session in second.sessions] == made[1::-1]
        assert second.next_cursor is None
        odd = await client.sessions.list(metadata={"odd": "1"}, status="live")
        assert [session.id for session in odd.sessions] == [made[3], made[1]]
        assert await client.sessions.release_all() == 4


async def test_launch_failed() -> None:
    """A browser that does not start is `LaunchFailed`; the record says so too."""
    async with (
        LocalServer(engine=FailingEngine()) as server,
        BrowserCloud(server.url, api_key=server.api_key) as client,
    ):
        with pytest.raises(LaunchFailed):
            await client.sessions.create()
        (record,) = (await client.sessions.list()).sessions
        assert (record.status, record.release_reason) == ("failed", "startup_failed")


async def test_cancelled_create_ends_the_start() -> None:
    """A create cancelled while its browser starts is released, and the start is given up."""
    engine = SlowEngine(30)
    async with (
        LocalServer(engine=engine) as server,
        BrowserCloud(server.url, api_key=server.api_key) as client,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.sessions.create()
        (record,) = (await client.sessions.list()).sessions
        assert (record.status, record.release_reason) == ("released", "user_requested")
        assert len(engine.running()) == 0


async def test_ids_are_checked() -> None:
    """What is no UUID is not sent."""
    client = BrowserCloud()
    for call in (client.sessions.retrieve, client.sessions.live, client.sessions.release):
        with pytest.raises(UsageError, match="session_id: must be a UUID"):
            await call("../../etc/passwd")
