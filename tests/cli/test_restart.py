"""`browsercloud serve` is killed: started again it loses nothing, else nothing is left."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from browsercloud import BrowserCloud, LiveSession, ReleasedElsewhere, Session, SessionTimedOut
from tests.conftest import Site
from tests.leaks import browsers, left
from tests.serving import KEY, serving

SESSIONS = 10
ROOM = ("--max-sessions", "12")


@pytest.fixture
def port() -> int:
    """A port that is free, so that a successor can have the same one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number: int = taken.getsockname()[1]
        return number


def client_of(port: int) -> BrowserCloud:
    """A client that knows the server by its address, whoever listens there."""
    return BrowserCloud(f"http://127.0.0.1:{port}", api_key=KEY)


async def leave_a_trace(session: LiveSession, site: Site, number: int) -> None:
    """Two tabs, a cookie, a variable, a clock that ticks, something typed."""
    site.pages[f"/{number}"] = f"<title>Tab {number}</title><input>"
    await session.page.goto(f"{site.url}/{number}")
    await session.page.evaluate(
        """number => {
            document.cookie = `number=${number}`;
            window.number = number;
            window.ticks = 0;
            setInterval(() => { window.ticks += 1 }, 20);
        }""",
        number,
    )
    await session.page.fill("input", f"typed {number}")
    await (await session.context.new_page()).goto(f"{site.url}/")


async def find_the_trace(session: LiveSession, number: int) -> None:
    """All of it is there, and the clock has gone on."""
    page = await session.reconnect()
    assert await page.title() == f"Tab {number}"
    assert await page.evaluate("[window.number, document.cookie]") == [number, f"number={number}"]
    assert await page.input_value("input") == f"typed {number}"
    before = await page.evaluate("window.ticks")
    await page.wait_for_function("before => window.ticks > before + 2", arg=before)
    assert len(session.context.pages) == 2


async def test_ten_sessions_outlive_the_server(root: Path, site: Site, port: int) -> None:
    """Their tabs, cookies, clocks, URLs and tokens are as they were; clients reconnect."""
    kinds = ["chromium", "headless-shell", *["headless-shell"] * (SESSIONS - 2)]
    client = client_of(port)
    with serving(root, *ROOM, port=port) as server:
        await client.open()
        live = await asyncio.gather(*(client.session(browser=kind).open() for kind in kinds))  # type: ignore[arg-type]
        await asyncio.gather(*(leave_a_trace(one, site, i) for i, one in enumerate(live)))
        before = {one.id: await client.sessions.retrieve(one.id) for one in live}
        processes = {process.pid for process in browsers(root)}
        assert len(processes) == SESSIONS
        server.kill()
    await asyncio.sleep(0.5)
    with serving(root, *ROOM, port=port):
        assert {process.pid for process in browsers(root)} == processes
        await asyncio.gather(*(find_the_trace(one, i) for i, one in enumerate(live)))
        for one in live:
            after = await client.sessions.retrieve(one.id)
            was = before[one.id]
            assert after.status == "live"
            assert (after.expires_at, after.started_at) == (was.expires_at, was.started_at)
            assert after.websocket_url == was.websocket_url
            events = [event.type for event in await client.sessions.events(one.id)]
            life = [kind for kind in events if kind.startswith("session.")]
            assert life == ["session.starting", "session.live", "session.restored"]
        await client.close()
        assert [r.release_reason for r in (await listed(port))] == ["user_requested"] * SESSIONS
    assert left(root) == []


async def listed(port: int) -> tuple[Session, ...]:
    """The records of all sessions."""
    async with client_of(port) as client:
        return (await client.sessions.list(limit=100)).sessions


async def test_clocks_run_while_there_is_no_server(root: Path, port: int) -> None:
    """A timeout that was over meanwhile ends the session at once; the rest goes on."""
    client = client_of(port)
    with serving(root, *ROOM, port=port) as server:
        await client.open()
        short = await client.session(browser="headless-shell", timeout=3).open()
        long = await client.session(browser="headless-shell", timeout=60).open()
        server.kill()
    await asyncio.sleep(3)
    with serving(root, *ROOM, port=port):
        with pytest.raises(SessionTimedOut):
            await short.reconnect()
        page = await long.reconnect()
        assert await page.evaluate("1 + 1") == 2
        await client.close()


async def test_nobody_comes_back(root: Path, port: int) -> None:
    """After `orphan_grace` the browsers end by themselves, and a later server says why."""
    client = client_of(port)
    with serving(root, "--orphan-grace", "1.5", port=port) as server:
        await client.open()
        session = await client.session(browser="headless-shell").open()
        server.kill()
    assert len(browsers(root)) == 1
    await asyncio.sleep(0.7)
    assert len(browsers(root)) == 1
    loop = asyncio.get_running_loop()
    end = loop.time() + 5
    while left(root) != [] and loop.time() < end:
        await asyncio.sleep(0.05)
    assert [entry for entry in left(root) if "node" not in entry] == []
    with serving(root, port=port):
        with pytest.raises(ReleasedElsewhere) as caught:
            await session.reconnect()
        assert caught.value.evidence is not None
        assert caught.value.evidence.code == "server_lost"
        await client.close()


async def test_no_grace_leaves_nothing(root: Path) -> None:
    """`--orphan-grace 0`: the browsers end with the server, as those of an embedded one do."""
    with serving(root, "--orphan-grace", "0") as server:
        async with BrowserCloud(server.url, api_key=KEY) as client:
            await client.sessions.create(browser="headless-shell")
            server.kill()
            loop = asyncio.get_running_loop()
            end = loop.time() + 5
            while browsers(root):
                assert loop.time() < end
                await asyncio.sleep(0.02)


async def test_killed_again_and_again(root: Path, port: int) -> None:
    """Each successor can be killed like the one before it."""
    client = client_of(port)
    with serving(root, *ROOM, port=port) as server:
        await client.open()
        session = await client.session(browser="headless-shell").open()
        await session.page.evaluate("window.mark = 'here'")
        server.kill()
    for _ in range(3):
        with serving(root, *ROOM, port=port) as server:
            page = await session.reconnect()
            assert await page.evaluate("window.mark") == "here"
            server.kill()
    with serving(root, *ROOM, port=port):
        await session.reconnect()
        await client.close()
    assert left(root) == []
