"""Sessions that begin with a socket and end with it: `/?apiKey=` and `/puppeteer?capabilities=`.

The socket is the session's lease: after a kill of the server nobody holds that, and the session
ends although its browser could go on.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from browsercloud._aio import settle
from browsercloud.errors import InvalidRequest, NoCapacity
from browsercloud.models import CreateRequest, ReleaseReason
from browsercloud.options import Adapter
from browsercloud.server import gateway
from browsercloud.server.capabilities import read_socket
from browsercloud.server.logs import about
from browsercloud.server.operations import BROWSER_ERRORS, SWITCHED, Operation, Parameter
from browsercloud.server.parts import (
    active,
    hung_up,
    parts,
    project,
    query,
    require_upgrade,
)
from browsercloud.server.upgrade import check_upgrade
from browsercloud.wire import invalid, read_create, read_session_id

RELEASE_PATIENCE = 30.0

STEEL = Operation(
    query=(
        Parameter(
            "sessionId",
            "The session; without it there is a new one, for as long as the socket is open.",
            {"type": "string", "format": "uuid"},
        ),
    ),
    answers={101: SWITCHED},
    errors=(
        "session_not_found",
        "upgrade_required",
        "no_capacity",
        "rate_limited",
        "shutting_down",
        *BROWSER_ERRORS,
    ),
)
PUPPETEER = Operation(
    query=(
        Parameter("capabilities", "An object of JSON, with `LT:Options` in it.", required=True),
    ),
    answers={101: SWITCHED},
    errors=(
        "upgrade_required",
        "no_capacity",
        "rate_limited",
        "shutting_down",
        *BROWSER_ERRORS,
    ),
)


async def steel(request: web.Request) -> web.StreamResponse:
    """CDP in Steel's form.

    With `sessionId` to that session. Without, and with a key, to one that begins with the socket
    and ends with it.
    """
    require_upgrade(request)
    given = query(request, {"apiKey", "sessionId"})
    check_upgrade(request)
    if "sessionId" not in given:
        return await _session_of_its_own(request, {})
    try:
        wanted = read_session_id(given["sessionId"])
    except ValueError:
        raise invalid([("sessionId", "must be the id of the session to connect to")]) from None
    response, _ = await gateway.serve(request, await active(request, wanted))
    return response


async def puppeteer(request: web.Request) -> web.StreamResponse:
    """CDP in TestMu's form: to a session that begins with the socket and ends with it.

    Its options come from `LT:Options`, and so may the key, as `accessKey`.
    """
    require_upgrade(request)
    given = query(request, {"apiKey", "capabilities"})
    wanted = read_socket(given.get("capabilities", ""))
    check_upgrade(request)
    return await _session_of_its_own(request, wanted.options)


def key_in(request: web.Request) -> str | None:
    """The `accessKey` in the capabilities, if these are any."""
    try:
        return read_socket(request.query.get("capabilities", "")).key
    except InvalidRequest:
        return None


async def _session_of_its_own(
    request: web.Request, options: Mapping[str, Any]
) -> web.StreamResponse:
    """A new session for this socket, and its end when the socket ends, however that comes."""
    if options.keys() & {"sessionId", "leaseId"}:
        raise invalid([("browsercloud:options", "the id is chosen here, and there is no lease")])
    owner, lease_id = project(request), str(uuid.uuid4())
    asked = read_create({"adapter": Adapter.PUPPETEER.value, **options, "leaseId": lease_id})
    sessions = parts(request).sessions
    reason = ReleaseReason.LEASE_LOST
    sessions.leases.connected(owner, lease_id)
    try:
        with about(session_id=asked.session_id):
            response, parted = await _serve(request, owner, asked)
    except NoCapacity:
        reason = ReleaseReason.CREATION_TIMEOUT  # if it waits in the line, it does so for nobody
        raise
    else:
        if parted:
            reason = ReleaseReason.USER_REQUESTED
        return response
    finally:
        try:
            await settle(
                lambda: sessions.close(asked.session_id, reason),
                patience=RELEASE_PATIENCE,
                what=f"releasing session {asked.session_id}",
            )
        finally:
            sessions.leases.disconnected(owner, lease_id)


async def _serve(
    request: web.Request, owner: str, asked: CreateRequest
) -> tuple[web.StreamResponse, bool]:
    await parts(request).sessions.create(owner, asked, hung_up=lambda: hung_up(request))
    return await gateway.serve(request, await active(request, asked.session_id))
