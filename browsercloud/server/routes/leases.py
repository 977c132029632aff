"""`/v1/leases/{leaseId}`: a socket that says its client is alive."""

from __future__ import annotations

from aiohttp import web

from browsercloud._aio import keep_alive
from browsercloud.server.operations import SWITCHED, Operation
from browsercloud.server.parts import open_until_revoked, parts, project, query, require_upgrade
from browsercloud.wire import invalid, read_session_id

KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 15, 5, 3
"""Seconds of silence before the kernel asks, seconds between its questions, questions in vain.

A host that is cut off is found after half a minute. The kernel of the other side answers, so a
client whose own loop is blocked stays connected; nothing is asked of the client itself.
"""

GOODBYE_PATIENCE = 2.0
MAX_MESSAGE = 1024


HOLD = Operation(answers={101: SWITCHED}, errors=("upgrade_required",))


async def hold(request: web.Request) -> web.StreamResponse:
    """Hold the lease as long as the socket is open. What the client says is not listened to."""
    query(request, {"apiKey"})
    lease_id, owner = _lease_id(request), project(request)
    here = parts(request)
    leases = here.sessions.leases
    held = web.WebSocketResponse(timeout=GOODBYE_PATIENCE, max_msg_size=MAX_MESSAGE, compress=False)
    # Before the upgrade is answered: a client that has its answer may count on the lease.
    leases.connected(owner, lease_id)
    here.sockets.add(held)
    try:
        await held.prepare(request)
        transport = request.transport
        keep_alive(
            transport.get_extra_info("socket") if transport is not None else None,
            idle=KEEPALIVE_IDLE,
            interval=KEEPALIVE_INTERVAL,
            count=KEEPALIVE_COUNT,
        )
        async with open_until_revoked(request, held):
            async for _ in held:
                pass
    finally:
        here.sockets.discard(held)
        leases.disconnected(owner, lease_id)
    return held


def _lease_id(request: web.Request) -> str:
    try:
        lease_id = read_session_id(request.match_info["lease_id"])
    except ValueError as error:
        raise invalid([("leaseId", str(error))]) from None
    require_upgrade(request)
    return lease_id
