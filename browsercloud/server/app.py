"""The server put together: what opens, in which order, and how it closes again."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache, partial

import aiohttp
from aiohttp import WSCloseCode, web

from browsercloud._aio import close_all
from browsercloud.engines.base import Engine
from browsercloud.engines.endpoint import AttachingEngine
from browsercloud.errors import UsageError
from browsercloud.server import middleware
from browsercloud.server.admission import Admission
from browsercloud.server.config import ServerConfig
from browsercloud.server.journal import Journal
from browsercloud.server.keyring import Keyring
from browsercloud.server.keys import older_key
from browsercloud.server.life import Patience
from browsercloud.server.metrics import Figures, Metrics
from browsercloud.server.openapi import describe
from browsercloud.server.parts import PARTS, Parts
from browsercloud.server.routes import TABLE, add_routes
from browsercloud.server.routes.dashboard import FAILURES, Failures
from browsercloud.server.routes.health import version
from browsercloud.server.runner import Runner, quiet_logger
from browsercloud.server.sessions import Sessions
from browsercloud.server.traffic import Traffic
from browsercloud.server.trust import Trust
from browsercloud.stores.base import Store

MAX_BODY = 2**20
SHUTDOWN_TIMEOUT = 5.0
"""How long requests may go on after the sessions have ended, in seconds."""

KEEPALIVE_TIMEOUT = 75.0
"""How long a connection may take for a whole request, in seconds: silent ones cost descriptors."""


def make_app(config: ServerConfig, engine: Engine, store: Store) -> web.Application:
    """The application. Engine, store and sessions open when it starts and close with it."""
    app = web.Application(
        middlewares=[middleware.request_id, middleware.access, middleware.errors],
        client_max_size=MAX_BODY,
    )
    app.on_response_prepare.append(middleware.stamp)
    engine = AttachingEngine(engine, allowed=config.attaches)
    keyring = Keyring(store, config.api_key)
    admission = Admission(keyring.limits, max_line=config.max_queue)
    keyring.changed = admission.look_again
    journal = Journal(store)
    totals = Traffic()
    metrics = Metrics(figures=lambda: _figures(here.sessions), engine=engine, traffic=totals)
    sessions = Sessions(
        engine,
        store,
        admission=admission,
        journal=journal,
        metrics=metrics,
        max_sessions=config.max_sessions,
        patience=Patience(
            lease_grace=config.lease_grace,
            keep_ended=config.keep_ended,
            queue_timeout=config.queue_timeout,
        ),
    )
    here = Parts(
        sessions,
        store,
        Trust(config, keyring),
        keyring,
        engine,
        journal,
        metrics,
        totals,
        _interface,
    )
    app[PARTS] = here
    app[FAILURES] = Failures()

    async def life(_: web.Application) -> AsyncIterator[None]:
        # As many connections as there are drivers; they stay open for as long as those drive.
        here.http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        closers: list[Callable[[], Awaitable[object]]] = [here.http.close]
        try:
            closers.append(engine.close)
            await engine.open()
            closers.append(store.close)
            await store.open()
            closers.append(journal.close)
            await journal.open()
            closers.append(keyring.close)
            await keyring.open()
            closers.append(here.sessions.close_down)
            await here.sessions.open()
            yield
        finally:
            await close_all(closers)

    async def hang_up(_: web.Application) -> None:
        here.journal.wake()
        # The CDP sockets have closed with their sessions; these would stay open for ever.
        await asyncio.gather(
            *(ws.close(code=WSCloseCode.GOING_AWAY, message=b"shutdown") for ws in here.sockets)
        )

    app.on_shutdown.append(hang_up)
    app.cleanup_ctx.append(life)
    add_routes(app)
    return app


@cache
def _interface() -> str:
    return json.dumps(describe(TABLE, version()))


def _figures(sessions: Sessions) -> Figures:
    """How things are at the moment, for the metrics."""
    admission = sessions.admission
    return Figures(
        sessions=sessions.counts(),
        line=admission.length,
        slots=admission.room,
        slots_in_use=admission.in_use,
    )


class Server:
    """A server of one's own: `start` opens everything and listens, `stop` undoes it.

    Used on one event loop. Whoever made engine and store need not close them: the server does.
    """

    def __init__(self, config: ServerConfig, engine: Engine, store: Store) -> None:
        self._config = config
        self._app = make_app(config, engine, store)
        self._runner = Runner(
            self._app,
            access_log=None,
            handler_cancellation=config.handler_cancellation,
            shutdown_timeout=SHUTDOWN_TIMEOUT,
            keepalive_timeout=KEEPALIVE_TIMEOUT,
            logger=quiet_logger(),
        )
        self.url = ""
        """`http://HOST:PORT` as it is bound; empty before `start`."""

    async def start(self) -> None:
        """Open engine, store and sessions, then listen.

        Raises `UsageError` when the address cannot be had, and whatever a part raises; nothing is
        left open then.
        """
        # The address first: a second server must not touch what the first one owns.
        bound = _bind(self._config.host, self._config.port)
        try:
            await self._runner.setup()
            await web.SockSite(self._runner, bound).start()
        except BaseException:
            try:
                await self.stop()
            finally:
                bound.close()
            raise
        self.url = _url(bound)

    async def first_key(self) -> str | None:
        """A key for a server that has none, to be shown once; `None` if it has any. It must run.

        Raises `UsageError` when what an earlier version kept cannot be read.
        """
        if self._config.no_auth:
            return None
        return await self._app[PARTS].keyring.make_first(older_key(self._config))

    async def drain(self) -> None:
        """Refuse new sessions; return when the running ones have ended by themselves."""
        await self._app[PARTS].sessions.drain()

    async def stop(self, *, at_once: bool = False) -> None:
        """Refuse what is new, release every session, hang up, close. Safe to call twice.

        *at_once* kills their browsers instead of asking them to leave first. Goes on after a
        failure and raises all of them at the end.
        """
        # Sessions first, while it still listens: who asks for one is told why there is none.
        close_down = partial(self._app[PARTS].sessions.close_down, at_once=at_once)
        await close_all([self._runner.cleanup, close_down])


def _bind(host: str, port: int) -> socket.socket:
    """A socket on the first address that *host* stands for."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise UsageError(f"--host {host} cannot be resolved: {error.strerror}") from None
    bound = socket.socket(family, kind, proto)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise UsageError(_why_not_bound(host, port, error)) from None
    except BaseException:
        bound.close()
        raise
    return bound


def _why_not_bound(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another with --port, or 0 for a free one"
    return f"cannot listen on {host} port {port}: {error.strerror}"


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
