"""Viewers: the live picture of a session over a socket, and what a person does through it.

Outward: a binary message is a JPEG of what is shown; a text is JSON with a `type`, `size` (CSS
pixels of what the next pictures show), `view` (tabs, which is shown, whether it loads), `problem`
(why something could not be done) or `ended`. Inward: the events of `cdp.reach`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import ClientError, WSCloseCode, WSMsgType, web

from browsercloud._aio import stop_task
from browsercloud.cdp.connection import CdpClosed, CdpError
from browsercloud.cdp.reach import do, read_event
from browsercloud.cdp.screencast import Frame, Screencast, Seen, View
from browsercloud.errors import InvalidRequest
from browsercloud.server.active import ActiveSession
from browsercloud.server.parts import (
    REVOKED,
)
from browsercloud.wire import dump

GOODBYE_PATIENCE = 2.0
END_PATIENCE = 5.0
"""How long to wait for the reason once the browser has hung up, in seconds."""

EXPIRED = "this link has expired"

log = logging.getLogger(__name__)


class Viewer:
    """One socket."""

    def __init__(
        self, ws: web.WebSocketResponse, cast: Screencast, session: ActiveSession, *, touches: bool
    ) -> None:
        self._ws = ws
        self._cast = cast
        self._session = session
        self._touches = touches

    async def run(
        self, key_gone: asyncio.Future[None], expires: float | None
    ) -> tuple[WSCloseCode, str]:
        """Until either side has enough; how to say goodbye then."""
        showing = asyncio.create_task(self._show(), name="viewer")
        hearing = asyncio.create_task(self._hear(), name="viewer's hand")
        either: set[asyncio.Future[Any]] = {showing, hearing, self._session.ended, key_gone}
        patience = None if expires is None else max(expires - time.time(), 0.0)
        try:
            done, _ = await asyncio.wait(
                either, timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            if showing in done and not self._session.ended.done():
                # A browser that dies hangs up first; why it did is known a moment later.
                await asyncio.wait({self._session.ended}, timeout=END_PATIENCE)
        finally:
            await stop_task(showing)
            await stop_task(hearing)
        if self._session.ended.done():
            reason = str(self._session.ended.result())
            await self._tell({"type": "ended", "reason": reason})
            return WSCloseCode.OK, f"session ended: {reason}"
        if key_gone.done():
            return WSCloseCode.POLICY_VIOLATION, REVOKED.decode()
        if not done:
            return WSCloseCode.POLICY_VIOLATION, EXPIRED
        return WSCloseCode.GOING_AWAY, "the picture broke off"

    async def _show(self) -> None:
        seen, size = Seen(), (0.0, 0.0)
        await self._tell({"type": "hello", "interactive": self._touches})
        while not self._cast.closed.done() and not self._ws.closed:
            before, seen = seen, await self._cast.next(seen)
            if seen.view != before.view:
                await self._tell({"type": "view", **_view(self._cast.view)})
            frame = self._cast.frame
            if seen.frame != before.frame and frame is not None:
                size = await self._picture(frame, size)

    async def _picture(self, frame: Frame, size: tuple[float, float]) -> tuple[float, float]:
        now = frame.width, frame.height
        if now != size:
            await self._tell({"type": "size", "width": frame.width, "height": frame.height})
        try:
            # Returns when the socket has room again: for a slow one frames are left out, not kept.
            await self._ws.send_bytes(frame.picture)
        except (ClientError, ConnectionError, RuntimeError) as error:
            log.debug("a viewer has gone: %r", error)
        return now

    async def _tell(self, message: Mapping[str, Any]) -> None:
        try:
            await self._ws.send_str(json.dumps(message))
        except (ClientError, ConnectionError, RuntimeError) as error:
            log.debug("a viewer has gone: %r", error)

    async def _hear(self) -> None:
        async for message in self._ws:
            if message.type is not WSMsgType.TEXT:
                await self._tell({"type": "problem", "message": "events are sent as text"})
                continue
            problem = await self._do(message.data)
            if problem:
                await self._tell({"type": "problem", "message": problem})

    async def _do(self, text: str) -> str | None:
        """Do what a message asks for; why it could not be done."""
        if not self._touches:
            return "this link only lets you look"
        try:
            event = read_event(json.loads(text))
            self._session.traffic.last = asyncio.get_running_loop().time()
            self._session.reached_in(type(event).__name__.removesuffix("Event").lower())
            await do(self._cast, event)
        except InvalidRequest as error:
            return error.message
        except ValueError as error:
            return f"not JSON: {error}"
        except CdpClosed:
            return None  # the end is told by itself
        except CdpError as error:
            return str(error)
        return None


def _view(view: View) -> dict[str, Any]:
    told: dict[str, Any] = dump(view)
    return told
