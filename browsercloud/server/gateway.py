"""The CDP gateway: a session's own socket, pumped to its Chromium and back.

What goes through is neither read nor limited. Every socket has a pump of its own; several may be
open to one session, and none of them ends it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import WSCloseCode, web

from browsercloud._aio import keep_alive, settle
from browsercloud.cdp.connection import CdpConnection
from browsercloud.errors import Conflict
from browsercloud.models import SessionProtocol
from browsercloud.server.active import ActiveSession
from browsercloud.server.parts import (
    REVOKED,
    active,
    endpoint_of,
    handle_of,
    parts,
    query,
    require_upgrade,
    revoked,
    session_id,
)
from browsercloud.server.pump import PING, BrowserLeg, ClientLeg, Leg, join
from browsercloud.server.relay import relay
from browsercloud.server.upgrade import accept, check_upgrade, dial
from browsercloud.server.urls import Urls

log = logging.getLogger(__name__)

PING_EVERY = 20.0
"""Seconds between two pings. They keep middle boxes awake; an answer is not asked for."""

KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 15, 5, 3
"""As for a lease. The kernel of the other side answers: a client may be busy as long as it likes,
only a host that is gone is found out."""

CALL_TIMEOUT = 5.0
GOODBYE_PATIENCE = 2.0
"""How long the other side may take to answer a close, in seconds."""

END_PATIENCE = 5.0
"""How long to wait for the reason once the browser has hung up, in seconds."""


_MISMATCH = {
    SessionProtocol.CDP: "it speaks CDP; use connect_over_cdp() with its websocketUrl",
    SessionProtocol.PLAYWRIGHT: "it speaks Playwright's own protocol; use chromium.connect() with "
    "its websocketUrl, or create it with adapter puppeteer for CDP",
    SessionProtocol.WEBDRIVER: "it speaks WebDriver only; use its webdriverUrl, or create it with "
    "adapter puppeteer for CDP",
}


async def cdp(request: web.Request) -> web.StreamResponse:
    """CDP at browser level; several clients at once."""
    query(request, {"apiKey"})
    require_upgrade(request)
    check_upgrade(request)
    response, _ = await serve(request, await active(request, session_id(request)))
    return response


async def playwright(request: web.Request) -> web.StreamResponse:
    """Playwright's own protocol, for one client, where the browser itself speaks it.

    Only sessions at TestMu do. Our own Chromium speaks CDP: this protocol locks versions.
    """
    query(request, {"apiKey"})
    require_upgrade(request)
    check_upgrade(request)
    found = await active(request, session_id(request))
    response, _ = await serve(request, found, speaks=SessionProtocol.PLAYWRIGHT)
    return response


async def version(request: web.Request) -> web.Response:
    """Where a CDP client that was given HTTP finds the socket."""
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


async def serve(
    request: web.Request,
    found: ActiveSession,
    *,
    speaks: SessionProtocol = SessionProtocol.CDP,
) -> tuple[web.StreamResponse, bool]:
    """Answer the upgrade, and pump until a side leaves, or session or key end.

    The response to return, and whether the client said goodbye: one that was killed says none.
    Raises `Conflict` when the browser does not speak what the client does.
    """
    handle = await handle_of(found)
    if handle.protocol is not speaks:
        raise Conflict(f"session {found.id}: {_MISMATCH[handle.protocol]}")
    if handle.socket is not None:
        return await relay(request, found, handle.socket)
    endpoint = await endpoint_of(found)
    counters = (found.traffic, parts(request).totals)
    # The browser first: until the upgrade is answered, a failure can still be told as HTTP.
    upstream, answered = await dial(endpoint)
    browser = BrowserLeg(upstream, counters)
    try:
        response, downstream, early = await accept(request)
    except BaseException:
        upstream.abort()
        raise
    client = ClientLeg(downstream, counters, request.protocol)
    code, reason = WSCloseCode.INTERNAL_ERROR, "the gateway failed"
    parted = False
    try:
        join(client, browser, (early, answered))
        code, reason = await _pump(client, browser, found, revoked(request))
        parted = client.parted
    except OSError as error:
        log.debug("session %s: a socket broke: %r", found.id, error)
    finally:
        # Settled, since with handler cancellation the client's hanging up arrives as one.
        await settle(
            lambda: _goodbye(client, browser, code, reason),
            patience=3 * GOODBYE_PATIENCE,
            what="closing a CDP socket",
        )
    return response, parted


async def _pump(
    client: Leg, browser: Leg, session: ActiveSession, key_gone: asyncio.Future[None]
) -> tuple[WSCloseCode, str]:
    """Wait until a side leaves, or session or key end. Says how to part."""
    keep_alive(
        client.transport.get_extra_info("socket"),
        idle=KEEPALIVE_IDLE,
        interval=KEEPALIVE_INTERVAL,
        count=KEEPALIVE_COUNT,
    )
    pings = asyncio.create_task(_ping(client), name=f"cdp ping {session.id}")
    ends: set[asyncio.Future[Any]] = {client.over, browser.over, session.ended, key_gone}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if browser.over.done():
            # The browser hung up: within moments the session knows why.
            others = ends - {browser.over}
            await asyncio.wait(others, timeout=END_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    finally:
        pings.cancel()
        await asyncio.wait({pings})
    if session.ended.done():
        return WSCloseCode.GOING_AWAY, f"session ended: {session.ended.result()}"
    if key_gone.done():
        return WSCloseCode.POLICY_VIOLATION, REVOKED.decode()
    if not client.over.done():
        return WSCloseCode.INTERNAL_ERROR, "the browser closed the connection"
    return client.answer_with, ""


async def _ping(client: Leg) -> None:
    # Whether a pong comes is nobody's business: a client may only be busy.
    while True:
        await asyncio.sleep(PING_EVERY)
        client.send(PING)


async def _goodbye(client: Leg, browser: Leg, code: WSCloseCode, reason: str) -> None:
    """Close both. A client that reads nothing any more is cut off."""
    await client.close(code, reason, patience=GOODBYE_PATIENCE)
    await browser.close(WSCloseCode.OK, "", patience=GOODBYE_PATIENCE)
