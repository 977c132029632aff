"""Browsers that are one connection: it begins with them, and they end with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import define, field

from browsercloud._aio import close_all, settle, stop_task
from browsercloud._later import later
from browsercloud.errors import Conflict

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = later("aiohttp")

log = logging.getLogger(__name__)

Message = str | bytes
Receiver = Callable[[Message], Awaitable[None]]

PING_EVERY = 20.0
LEFT_GRACE = 10.0
"""Seconds from the moment its client has left until it is closed: a release comes first."""

CLOSE_PATIENCE = 5.0
MAX_EARLY = 1_000
"""Messages that are kept for a client that has not come yet."""


class OnlySocket:
    """A WebSocket that is a browser. One client may have it, once.

    `closed` is done with its last words (code and reason, if there were any) when it is gone.
    """

    def __init__(self, http: aiohttp.ClientSession, ws: aiohttp.ClientWebSocketResponse) -> None:
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[str] = loop.create_future()
        self.asked = False
        """Whether it was this side that ended it."""

        self._http = http
        self._ws = ws
        self._taken = False
        self._early: list[Message] = []
        self._receive: Receiver = self._keep
        self._closing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reader = loop.create_task(self._read(), name="only socket")
        self._pings = loop.create_task(self._ping(), name="only socket ping")

    def take(self) -> None:
        """Have it from now on. Raises `Conflict` if somebody has or had it."""
        if self._taken:
            raise Conflict(
                "this session's browser lets in one connection, and that is or was in use; "
                "create another session"
            )
        self._taken = True

    async def listen(self, receive: Receiver) -> None:
        """Let *receive* have each message, first those that have come already."""
        while self._early:
            await receive(self._early.pop(0))
        self._receive = receive

    async def send(self, message: Message) -> None:
        """Send one. Raises `ConnectionError` when it is gone."""
        try:
            if isinstance(message, str):
                await self._ws.send_str(message)
            else:
                await self._ws.send_bytes(message)
        except aiohttp.ClientError as error:
            raise ConnectionResetError("the browser's connection is gone") from error

    def leave(self) -> None:
        """Its client has left; it is closed within `LEFT_GRACE`, as nobody can follow."""
        self._receive = _drop
        if self._timer is None and not self.closed.done():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LEFT_GRACE, self._close_later)

    async def close(self) -> None:
        """Close it, and so end the browser. Safe to call twice."""
        self.asked = True
        if self._timer is not None:
            self._timer.cancel()
        await settle(self._let_go, patience=CLOSE_PATIENCE, what="closing a browser's connection")

    def _close_later(self) -> None:
        self._closing = asyncio.create_task(self.close(), name="close an only socket")

    async def _let_go(self) -> None:
        async def over() -> None:
            await stop_task(self._pings)
            await stop_task(self._reader)

        await close_all([self._http.close, over, self._ws.close])

    async def _keep(self, message: Message) -> None:
        if len(self._early) < MAX_EARLY:
            self._early.append(message)

    async def _read(self) -> None:
        try:
            async for message in self._ws:
                if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    await self._receive(message.data)
        except (aiohttp.ClientError, OSError) as error:
            log.debug("a browser's connection broke: %s", type(error).__name__)
        finally:
            if not self.closed.done():
                self.closed.set_result(f"closed with code {self._ws.close_code}")

    async def _ping(self) -> None:
        while not self.closed.done():
            await asyncio.sleep(PING_EVERY)
            try:
                await self._ws.ping()
            except (aiohttp.ClientError, OSError) as error:
                log.debug("a ping did not go out: %s", type(error).__name__)


async def _drop(message: Message) -> None:
    """What nobody hears."""


@define(eq=False)
class OnlyDriver:
    """A WebDriver session that is a browser. One client at a time has it."""

    webdriver_session_id: str = field(repr=False)
    capabilities: Mapping[str, Any]
    taken: bool = False
