"""The CDP gateway: a session's own socket, pumped to its Chromium and back.

What goes through is neither read nor limited. Every socket has a pump of its own; several may be
open to one session, and none of them ends it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web

from browsercloud._aio import settle
from browsercloud.cdp.connection import CdpConnection
from browsercloud.errors import ConnectionFailed
from browsercloud.server.active import ActiveSession
from browsercloud.server.parts import (
    REVOKED,
    active,
    endpoint_of,
    parts,
    query,
    require_upgrade,
    revoked,
    session_id,
)
from browsercloud.server.urls import Urls
from browsercloud.wire import invalid, read_session_id

log = logging.getLogger(__name__)

PING_EVERY = 20.0
"""Seconds between two pings. They keep middle boxes awake; an answer is not asked for."""

CONNECT_TIMEOUT = 10.0
CALL_TIMEOUT = 5.0
GOODBYE_PATIENCE = 2.0
"""How long the other side may take to answer a close, in seconds."""

END_PATIENCE = 5.0
"""How long to wait for the reason once the browser has hung up, in seconds."""


async def cdp(request: web.Request) -> web.StreamResponse:
    """`/v1/sessions/{id}/cdp`."""
    query(request, {"apiKey"})
    require_upgrade(request)
    return await _serve(request, session_id(request))


async def steel(request: web.Request) -> web.StreamResponse:
    """`/?sessionId=ID`, Steel's form of the same."""
    require_upgrade(request)
    given = query(request, {"apiKey", "sessionId"})
    try:
        wanted = read_session_id(given.get("sessionId", ""))
    except ValueError:
        raise invalid([("sessionId", "required: the id of the session to connect to")]) from None
    return await _serve(request, wanted)


async def version(request: web.Request) -> web.Response:
    """`/v1/sessions/{id}/json/version`: where a CDP client that was given HTTP finds the socket."""
    query(request, ())
    wanted = session_id(request)
    endpoint = await endpoint_of(await active(request, wanted))
    async with await CdpConnection.open(endpoint, timeout=CALL_TIMEOUT) as browser:
        about = await browser.send("Browser.getVersion", timeout=CALL_TIMEOUT)
    return web.json_response(
        {
            "Browser": about["product"],
            "Protocol-Version": about["protocolVersion"],
            "User-Agent": about["userAgent"],
            "V8-Version": about["jsVersion"],
            "WebKit-Version": f"537.36 ({about['revision']})",
            "webSocketDebuggerUrl": Urls(request, wanted).cdp(),
        }
    )


async def _serve(request: web.Request, wanted: str) -> web.StreamResponse:
    found = await active(request, wanted)
    endpoint = await endpoint_of(found)
    # The browser first: until the upgrade is answered, a failure can still be told as HTTP.
    upstream = await _connect(parts(request).http, endpoint)
    client = web.WebSocketResponse(
        timeout=GOODBYE_PATIENCE, max_msg_size=0, compress=False, decode_text=False
    )
    code, reason = WSCloseCode.INTERNAL_ERROR, "the gateway failed"
    try:
        await client.prepare(request)
        code, reason = await _pump(client, upstream, found, revoked(request))
    except (aiohttp.ClientError, OSError) as error:
        log.debug("session %s: a socket broke: %r", wanted, error)
    finally:
        # Settled, since with handler cancellation the client's hanging up arrives as one.
        await settle(
            lambda: _goodbye(request, client, upstream, code, reason),
            patience=3 * GOODBYE_PATIENCE,
            what="closing a CDP socket",
        )
    return client


async def _connect(
    http: aiohttp.ClientSession, endpoint: str
) -> aiohttp.ClientWebSocketResponse[bool]:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            return await http.ws_connect(
                endpoint,
                max_msg_size=0,
                compress=0,
                decode_text=False,
                timeout=aiohttp.ClientWSTimeout(ws_close=GOODBYE_PATIENCE),
            )
    except (aiohttp.ClientError, OSError) as error:
        # The text of the error names the endpoint, which opens the browser.
        raise ConnectionFailed(type(error).__name__, endpoint="the browser") from None


async def _pump(
    client: web.WebSocketResponse,
    upstream: aiohttp.ClientWebSocketResponse[bool],
    session: ActiveSession,
    key_gone: asyncio.Future[None],
) -> tuple[WSCloseCode, str]:
    """Carry messages both ways until a side leaves, or session or key end. Says how to part."""
    inward = asyncio.create_task(_carry(client, upstream), name=f"cdp in {session.id}")
    outward = asyncio.create_task(_carry(upstream, client), name=f"cdp out {session.id}")
    pings = asyncio.create_task(_ping(client), name=f"cdp ping {session.id}")
    ends: set[asyncio.Future[Any]] = {inward, outward, session.ended, key_gone}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not (client.closed or session.ended.done() or key_gone.done()):
            # The browser hung up: within moments the session knows why.
            waiting = {future for future in ends if not future.done()}
            await asyncio.wait(waiting, timeout=END_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # All of them before the first wait: a cancellation may end that one.
        for task in (inward, outward, pings):
            task.cancel()
        await asyncio.wait({inward, outward, pings})
    if session.ended.done():
        return WSCloseCode.GOING_AWAY, f"session ended: {session.ended.result()}"
    if key_gone.done():
        return WSCloseCode.POLICY_VIOLATION, REVOKED.decode()
    if not client.closed:
        return WSCloseCode.INTERNAL_ERROR, "the browser closed the connection"
    return WSCloseCode.OK, ""


async def _carry(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse[bool],
    target: web.WebSocketResponse | aiohttp.ClientWebSocketResponse[bool],
) -> None:
    """Pass messages on until *source* closes or *target* is gone.

    Each send is awaited: a reader that is slow makes the other side wait instead of filling memory.
    """
    try:
        while True:
            message = await source.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return
            await target.send_frame(message.data, message.type)
    except (aiohttp.ClientError, OSError) as error:
        log.debug("a CDP socket broke: %r", error)


async def _ping(client: web.WebSocketResponse) -> None:
    # Not aiohttp's heartbeat: that one takes a client for dead which is only busy.
    try:
        while True:
            await asyncio.sleep(PING_EVERY)
            await client.ping()
    except (aiohttp.ClientError, OSError) as error:
        log.debug("a CDP socket broke: %r", error)


async def _goodbye(
    request: web.Request,
    client: web.WebSocketResponse,
    upstream: aiohttp.ClientWebSocketResponse[bool],
    code: WSCloseCode,
    reason: str,
) -> None:
    """Close both sockets. A client that reads nothing any more is cut off."""
    try:
        if client.prepared:
            async with asyncio.timeout(GOODBYE_PATIENCE):
                await client.close(code=code, message=reason.encode())
    except TimeoutError:
        log.debug("a CDP client did not take its goodbye")
    finally:
        transport = request.transport
        if client.prepared and transport is not None and transport.get_write_buffer_size():
            transport.abort()
        await _hang_up(upstream)


async def _hang_up(upstream: aiohttp.ClientWebSocketResponse[bool]) -> None:
    try:
        async with asyncio.timeout(GOODBYE_PATIENCE):
            await upstream.close()
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        log.debug("a browser did not take its goodbye: %r", error)
