"""`session.screenshot`, `frames` and `viewer_url`, and `browsercloud view`, against a browser."""

from __future__ import annotations

import asyncio
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import pytest
from aiohttp import web

from browsercloud import BrowserCloud, ConnectionFailed, SessionEnded, UsageError
from browsercloud.cli.view import view
from browsercloud.client.transport import Transport
from browsercloud.client.watching import frames
from tests.conftest import Site


@pytest.mark.usefixtures("pool")
async def test_a_session_is_watched_from_code(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures come in both formats, frames until the end, and the links open what they say."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    async with BrowserCloud() as client:
        session = await client.session().open()
        await session.page.goto(site.url)
        assert (await session.screenshot()).startswith(b"\x89PNG")
        assert (await session.screenshot(format="jpeg")).startswith(b"\xff\xd8")
        assert "watch-" in await session.viewer_url()
        key = client._embedded and client._embedded.api_key
        assert "reach-" in await session.viewer_url(interactive=True, expires_in=None)
        await asyncio.to_thread(view, session.id, url=client.url, api_key=key, only_look=True)
        assert len(opened) == 1
        assert "watch-" in opened[0]
        assert opened[0] in capsys.readouterr().out
        await asyncio.to_thread(view, session.id, url=client.url, api_key=key, only_print=True)
        assert len(opened) == 1
        with pytest.raises(UsageError, match="BROWSERCLOUD_URL"):
            await asyncio.to_thread(view, session.id)
        with pytest.raises(UsageError):
            await anext(session.frames(max_fps=0))
        shown = session.frames(max_fps=20)
        async with asyncio.timeout(10):
            frame = await anext(shown)
            assert frame.picture.startswith(b"\xff\xd8")
            assert frame.width > 0
            assert frame.height > 0
            assert frame.page_id in [
                page.id for page in (await client.sessions.live(session.id)).pages
            ]
            await session.release()
            async for _ in shown:
                pass
        with pytest.raises(SessionEnded):
            await anext(session.frames())
        with pytest.raises(SessionEnded):
            await session.screenshot()


class FastServer:
    """A viewer's socket that shows a new frame every 10 ms, and says how it was left."""

    def __init__(self) -> None:
        self.sent = 0
        self.closed = asyncio.Event()

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Until the other side closes it."""
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        reading = asyncio.create_task(ws.receive())
        await ws.send_str('{"type": "view", "shown": "T", "tabs": []}')
        await ws.send_str('{"type": "size", "width": 640, "height": 360}')
        while not reading.done():
            self.sent += 1
            await ws.send_bytes(b"%d" % self.sent)
            await asyncio.wait({reading}, timeout=0.01)
        self.closed.set()
        return ws


async def test_a_slow_consumer_gets_the_newest_frame() -> None:
    """What nobody took in time is dropped, *max_fps* holds, and closing closes the socket."""
    server = FastServer()
    transport = Transport(request_timeout=5)
    async with listening(server.show) as url:
        await transport.open(url, "key")
        async with aclosing(frames(transport, "/", None)) as shown:
            first = await anext(shown)
            assert (640, 360, "T") == (first.width, first.height, first.page_id)
            await asyncio.sleep(0.3)
            second = await anext(shown)
            assert int(second.picture) - int(first.picture) > 5
            assert server.sent - int(second.picture) <= 2
        await asyncio.wait_for(server.closed.wait(), 5)
        begun = asyncio.get_running_loop().time()
        async with aclosing(frames(transport, "/", 20)) as shown:
            for _ in range(5):
                await anext(shown)
        assert asyncio.get_running_loop().time() - begun > 4 / 20
        await transport.close()


async def test_a_lost_connection_is_no_end() -> None:
    """Only a session that has said that it ended ends the loop quietly."""

    async def drops(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.send_bytes(b"a frame")
        await ws.close()
        return ws

    transport = Transport(request_timeout=5)
    async with listening(drops) as url:
        await transport.open(url, "key")
        with pytest.raises(ConnectionFailed):
            async for frame in frames(transport, "/", None):
                assert frame.picture == b"a frame"
        await transport.close()


@asynccontextmanager
async def listening(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    """The address of a server that answers everything with *handler*."""
    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
