"""A server without room: the SDK waits, tells the place, and gives it up when it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from browsercloud import BrowserCloud, NoCapacity
from browsercloud.client.config import resolve
from browsercloud.local import LocalServer
from browsercloud.testing import IdleEngine


@pytest.fixture
async def client() -> AsyncIterator[BrowserCloud]:
    """A client of a server with room for one."""
    async with (
        LocalServer(engine=IdleEngine(room=1)) as server,
        BrowserCloud(server.url, api_key=server.api_key) as client,
    ):
        yield client


async def until_queued(client: BrowserCloud, many: int) -> None:
    """Return when so many of ours are in the line."""
    async with asyncio.timeout(5):
        while (await client.sessions.capacity()).queued != many:
            await asyncio.sleep(0.01)


async def test_create_waits_for_its_turn(client: BrowserCloud) -> None:
    """And `on_queue` hears of each place, the nearer the smaller."""
    holder = await client.sessions.create()
    first = asyncio.create_task(client.sessions.create())
    await until_queued(client, 1)
    places: list[int] = []
    second = asyncio.create_task(client.sessions.create(on_queue=places.append))
    await until_queued(client, 2)
    async with asyncio.timeout(5):
        while places != [2]:
            await asyncio.sleep(0.01)
        await client.sessions.release(holder.id)
        while places != [2, 1]:
            await asyncio.sleep(0.01)
    await client.sessions.release((await first).id)
    assert (await second).status == "live"
    assert places == [2, 1]


async def test_a_live_session_waits_too(client: BrowserCloud) -> None:
    """`client.session(on_queue=…)`; a callback that fails does no harm."""
    await client.sessions.create()
    heard = asyncio.Event()

    def fail(place: int) -> None:
        heard.set()
        raise RuntimeError("a callback of the user")

    opening = asyncio.create_task(client.session(on_queue=fail).open())
    async with asyncio.timeout(5):
        await heard.wait()
    assert not opening.done()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert (await client.sessions.capacity()).queued == 0


async def test_waiting_has_an_end(client: BrowserCloud) -> None:
    """After `create_timeout` the place is given up, and the error says what is in the way."""
    await client.sessions.create()
    impatient = resolve({"url": client.url, "create_timeout": 0.5})
    client.sessions._config = impatient
    with pytest.raises(NoCapacity, match="number 1 in the line after 0.5 s"):
        await client.sessions.create()
    assert (await client.sessions.capacity()).queued == 0
    (record, *_) = (await client.sessions.list(status="released")).sessions
    assert record.release_reason == "user_requested"


async def test_capacity(client: BrowserCloud) -> None:
    """What the server has room for, and the project's part."""
    before = await client.sessions.capacity()
    assert (before.sessions, before.available, before.in_use, before.reason) == (1, 1, 0, "as told")
    await client.sessions.create()
    after = await client.sessions.capacity()
    assert (after.available, after.in_use, after.limit) == (0, 1, None)
