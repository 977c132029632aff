"""Servers to test: real ones on loopback, mostly with an engine that starts nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp import web

from browsercloud.cdp.capture import PageUrls
from browsercloud.engines.base import Engine
from browsercloud.engines.local import LocalEngine
from browsercloud.server.admission import Admission
from browsercloud.server.app import Server
from browsercloud.server.config import ServerConfig
from browsercloud.server.journal import Journal
from browsercloud.server.keys import hash_key, key_row, make_key
from browsercloud.server.life import ATTENDANCE, CREATE_WAIT, Patience
from browsercloud.server.metrics import Figures, Metrics
from browsercloud.server.parts import PARTS, Parts
from browsercloud.server.records import now
from browsercloud.server.sessions import Sessions
from browsercloud.server.traffic import Traffic
from browsercloud.stores.base import Limits, Store
from browsercloud.stores.memory import MemoryStore
from browsercloud.testing import IdleEngine

KEY, OTHER_KEY = "the-key-of-these-tests", "the-key-of-somebody-else"
BODY = dict[str, Any]


def idle_metrics(engine: Engine) -> Metrics:
    """Metrics that nobody looks at."""
    nothing = Figures(sessions={}, line=0, slots=0, slots_in_use=0)
    return Metrics(figures=lambda: nothing, engine=engine, traffic=Traffic())


def sessions_on(
    engine: Engine,
    store: Store,
    *,
    limits_of: Callable[[str], Limits] = lambda project: Limits(),
    max_line: int = 100,
    max_sessions: int | None = None,
    journal: Journal | None = None,
    **patience: float,
) -> Sessions:
    """`Sessions` by themselves, without a server around them."""
    return Sessions(
        engine,
        store,
        admission=Admission(limits_of, max_line=max_line),
        journal=journal or Journal(store),
        metrics=idle_metrics(engine),
        max_sessions=max_sessions,
        patience=Patience(**patience),
    )


class Cloud:
    """A running server, and an HTTP client that has its key."""

    def __init__(
        self, server: Server, engine: Any, http: aiohttp.ClientSession, store: Store
    ) -> None:
        self.server = server
        self.store = store
        self.engine = engine
        self.http = http
        self.url = server.url
        self.host = server.url.removeprefix("http://")

    async def call(
        self, method: str, path: str, *, key: str | None = KEY, **more: Any
    ) -> tuple[int, Any]:
        """Status and JSON of one call."""
        headers = more.pop("headers", {})
        if key is not None:
            headers = {"x-api-key": key, **headers}
        async with self.http.request(method, self.url + path, headers=headers, **more) as reply:
            return reply.status, await reply.json()

    async def create(self, **options: Any) -> BODY:
        """A new session's record."""
        status, record = await self.call("POST", "/v1/sessions", json=options)
        assert status == 201, record
        return record

    async def new_key(self, project: str = "default") -> tuple[str, str]:
        """A key of the project and its id; the server knows it."""
        key, row = make_key(project)
        await self.store.add_key(row)
        await self.parts.keyring.refresh()
        return key, row.id

    async def revoke(self, key_id: str) -> None:
        """Revoke a key; the server knows it."""
        await self.store.revoke_key(key_id, now())
        await self.parts.keyring.refresh()

    @property
    def parts(self) -> Parts:
        """The server's collaborators."""
        return self.server._app[PARTS]

    def token(self, record: BODY) -> str:
        """The session's token."""
        return str(record["websocketUrl"]).partition("token=")[2]

    async def refused(self, path: str, **headers: str) -> int:
        """The status with which a WebSocket is refused."""
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await self.http.ws_connect(self.url + path, headers=headers)
        return caught.value.status


StartCloud = Callable[..., Awaitable[Cloud]]


@pytest.fixture
async def start_cloud() -> AsyncIterator[StartCloud]:
    """Start servers; each is stopped after the test."""
    async with AsyncExitStack() as stack:

        async def start(
            engine: Engine | None = None,
            *,
            create_wait: float = CREATE_WAIT,
            attendance: float = ATTENDANCE,
            **config: Any,
        ) -> Cloud:
            engine = engine or IdleEngine()
            settings = {"port": 0, "api_key": KEY, **config}
            store = MemoryStore()
            await store.add_key(key_row(hash_key(OTHER_KEY), "other"))
            server = Server(ServerConfig(**settings), engine, store)
            stack.push_async_callback(server.stop)
            await server.start()
            sessions = server._app[PARTS].sessions
            life = sessions.life
            life.patience = attrs.evolve(
                life.patience, create_wait=create_wait, attendance=attendance
            )
            http = await stack.enter_async_context(aiohttp.ClientSession())
            return Cloud(server, engine, http, store)

        yield start


@pytest.fixture
async def cloud(start_cloud: StartCloud) -> Cloud:
    """A server whose sessions have no browser."""
    return await start_cloud()


@pytest.fixture
async def real_cloud(start_cloud: StartCloud, root: Path) -> Cloud:
    """A server with Chromium."""
    return await start_cloud(LocalEngine(root / "data"))


class Upstream:
    """A CDP endpoint that is no browser: sends back what it gets, and counts its sockets."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.open: set[web.WebSocketResponse] = set()
        self.paused = asyncio.Event()
        self.paused.set()
        self.got = 0

    async def echo(self, request: web.Request) -> web.WebSocketResponse:
        """One socket."""
        ws = web.WebSocketResponse(max_msg_size=0, compress=False)
        await ws.prepare(request)
        self.open.add(ws)
        try:
            async for message in ws:
                await self.paused.wait()
                self.got += 1
                if message.type is aiohttp.WSMsgType.TEXT:
                    await ws.send_str(message.data)
                else:
                    await ws.send_bytes(message.data)
        finally:
            self.open.discard(ws)
        return ws


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody watches which pages are open: the only sockets to a browser are the gateway's."""
    monkeypatch.setattr(PageUrls, "open", lambda self, endpoint, also=None: None)


@pytest.fixture
async def upstream(unwatched: None) -> AsyncIterator[Upstream]:
    """The endpoint."""
    echo = Upstream()
    app = web.Application()
    app.router.add_get("/devtools/browser/x", echo.echo)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    echo.endpoint = f"ws://{host}:{port}/devtools/browser/x"
    yield echo
    await runner.cleanup()


async def until(condition: Callable[[], bool], within: float = 5.0) -> None:
    """Return when the condition holds; fail when it does not in time."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)
