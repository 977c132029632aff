"""`/v1/sessions/{id}/viewer`: the live picture over a socket, and links to it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from attrs import field, frozen

from browsercloud._aio import settle
from browsercloud.bounds import Bounded, FieldError
from browsercloud.errors import ServiceError
from browsercloud.options import MAX_TIMEOUT, Seconds
from browsercloud.server.operations import BOOLEAN, BROWSER_ERRORS, SWITCHED, Operation, Parameter
from browsercloud.server.parts import (
    CALLER,
    active,
    endpoint_of,
    parts,
    query,
    read_json,
    require_upgrade,
    revoked,
    session_id,
)
from browsercloud.server.routes.pages import wanted_page
from browsercloud.server.routes.sessions import boolean, page_ids
from browsercloud.server.urls import Urls
from browsercloud.server.viewer import GOODBYE_PATIENCE, Viewer
from browsercloud.wire import dump, read

MAX_MESSAGE = 2**19
PING_EVERY = 20.0


def _positive(_: object, attribute: Any, value: float | None) -> None:
    if value is not None and not 0 < value <= MAX_TIMEOUT:
        raise FieldError(attribute.name, "must be more than 0 ms and at most 24 hours")


_life = Bounded(_positive, {"exclusiveMinimum": 0, "maximum": MAX_TIMEOUT})

PAGE_ID = Parameter("pageId", "This tab alone, by its CDP target; else the one in front.")
PAGE_INDEX = Parameter(
    "pageIndex",
    "This tab alone, by its place from 0.",
    {"type": "integer", "minimum": 0, "maximum": 999_999},
)
INTERACTIVE = Parameter("interactive", "`false` only shows; a token may allow no more.", BOOLEAN)
SOCKET = Operation(
    query=(PAGE_ID, PAGE_INDEX, INTERACTIVE),
    answers={101: SWITCHED},
    errors=("upgrade_required", "page_not_found", *BROWSER_ERRORS),
)


@frozen(kw_only=True)
class LinkRequest:
    """What a link to the viewer should allow, and for how long."""

    interactive: bool = True
    """Whether its holder may reach into the browser."""

    expires_in: Seconds | None = field(default=None, validator=_life)
    """Till then; without it the link is good until the session ends."""


@frozen(kw_only=True)
class ViewerLink:
    """A link for somebody who is to see the session and has no key."""

    url: str = field(repr=False)
    interactive: bool
    expires_at: datetime | None = None


LINK = Operation(body=LinkRequest, answers={200: ViewerLink}, errors=("session_ended",))


async def link(request: web.Request) -> web.Response:
    """A link to the viewer that can be given away: it opens nothing else."""
    query(request, ())
    session = await active(request, session_id(request))
    wanted = read(await read_json(request), LinkRequest)
    expires = None
    if wanted.expires_in is not None:
        expires = math.ceil(time.time() + wanted.expires_in)
    urls = Urls(request, session.id)
    answer = ViewerLink(
        url=urls.viewer(touches=wanted.interactive, expires=expires or 0),
        interactive=wanted.interactive,
        expires_at=None if expires is None else datetime.fromtimestamp(expires, UTC),
    )
    return web.json_response(dump(answer))


async def socket(request: web.Request) -> web.StreamResponse:
    """What a session shows, as it happens; and a person's hand on it."""
    given = query(request, SOCKET.names)
    session = await active(request, session_id(request))
    require_upgrade(request)
    endpoint = await endpoint_of(session)
    caller = request[CALLER]
    touches = caller.touches and boolean("interactive", given.get("interactive", "true"))
    page_id = await page_of(endpoint, given)
    ws = web.WebSocketResponse(
        timeout=GOODBYE_PATIENCE, heartbeat=PING_EVERY, max_msg_size=MAX_MESSAGE, compress=False
    )
    here = parts(request)
    async with here.screencasts.of(session.id, endpoint, page_id) as cast:
        await ws.prepare(request)
        here.sockets.add(ws)
        try:
            viewer = Viewer(ws, cast, session, touches=touches)
            code, reason = await viewer.run(revoked(request), caller.expires)
        finally:
            here.sockets.discard(ws)
        await settle(
            lambda: ws.close(code=code, message=reason.encode()),
            patience=GOODBYE_PATIENCE,
            what="closing a viewer",
        )
    return ws


async def page_of(endpoint: str, given: Mapping[str, str]) -> str | None:
    """The tab that `pageId` or `pageIndex` names; `None` for the one in front.

    Raises `InvalidRequest`, or 404 `page_not_found`.
    """
    wanted, index = wanted_page(given)
    if wanted is None and index is None:
        return None
    tabs = await page_ids(endpoint)
    if index is not None and index < len(tabs):
        return tabs[index]
    if wanted in tabs:
        return wanted
    raise ServiceError("the session has no such page", status=404, code="page_not_found")
