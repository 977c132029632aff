"""A browser that is one connection: its client's socket, message by message."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import ClientError, WSCloseCode, WSMsgType, web

from browsercloud._aio import settle, stop_task
from browsercloud.engines.only import Message, OnlySocket
from browsercloud.server.active import ActiveSession
from browsercloud.server.parts import REVOKED, parts, revoked
from browsercloud.server.pump import ANSWER
from browsercloud.server.traffic import Traffic

log = logging.getLogger(__name__)

GOODBYE_PATIENCE = 4.0


async def relay(
    request: web.Request, session: ActiveSession, only: OnlySocket
) -> tuple[web.StreamResponse, bool]:
    """Answer the upgrade, and pass messages on until either side or the session ends.

    The response to return, and whether the client said goodbye. Raises `Conflict` when somebody
    has, or had, the connection.
    """
    only.take()
    ws = web.WebSocketResponse(max_msg_size=0, compress=False, timeout=GOODBYE_PATIENCE / 2)
    counters = (session.traffic, parts(request).totals)
    parted = False
    try:
        await ws.prepare(request)
        ends: set[asyncio.Future[Any]] = {only.closed, session.ended, revoked(request)}
        heard = asyncio.create_task(_hear(ws, only, counters), name="relay")
        try:
            await only.listen(lambda message: _say(ws, message, counters))
            await asyncio.wait({heard, *ends}, return_when=asyncio.FIRST_COMPLETED)
            parted = heard.done() and not heard.cancelled() and heard.exception() is None
        finally:
            await stop_task(heard)
    except (ClientError, ConnectionError) as error:
        log.debug("session %s: a socket broke: %r", session.id, error)
    finally:
        only.leave()
        code, reason = _parting(session, revoked(request), only)
        await settle(
            lambda: ws.close(code=code, message=reason.encode()),
            patience=GOODBYE_PATIENCE,
            what="closing a socket",
        )
    return ws, parted


async def _hear(ws: web.WebSocketResponse, only: OnlySocket, counters: tuple[Traffic, ...]) -> None:
    """What the client says, until its goodbye. Raises `ConnectionError` when there is none."""
    async for message in ws:
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            _count(counters, message.data, inward=True)
            await only.send(message.data)
    if ws.close_code in (None, WSCloseCode.ABNORMAL_CLOSURE):
        raise ConnectionResetError("the client is gone")


async def _say(ws: web.WebSocketResponse, message: Message, counters: tuple[Traffic, ...]) -> None:
    try:
        await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))
    except (ClientError, ConnectionError, RuntimeError) as error:
        log.debug("a client hears nothing any more: %s", type(error).__name__)
        return
    _count(counters, message, inward=False)


def _count(counters: tuple[Traffic, ...], message: Message, *, inward: bool) -> None:
    """As the pump does: what a driver sends shows it at work, and so does an answer."""
    answer = ANSWER.decode() if isinstance(message, str) else ANSWER
    heard = inward or message.startswith(answer)  # type: ignore[arg-type]
    now = asyncio.get_running_loop().time()
    for counter in counters:
        if inward:
            counter.messages_in += 1
            counter.bytes_in += len(message)
        else:
            counter.messages_out += 1
            counter.bytes_out += len(message)
        if heard:
            counter.last = now


def _parting(
    session: ActiveSession, key_gone: asyncio.Future[None], only: OnlySocket
) -> tuple[WSCloseCode, str]:
    if session.ended.done():
        return WSCloseCode.GOING_AWAY, f"session ended: {session.ended.result()}"
    if key_gone.done():
        return WSCloseCode.POLICY_VIOLATION, REVOKED.decode()
    if only.closed.done():
        return WSCloseCode.INTERNAL_ERROR, "the browser closed the connection"
    return WSCloseCode.OK, ""
