"""`/v1/capacity`: for how many sessions there is room, and how much of it is the caller's."""

from __future__ import annotations

from aiohttp import web

from browsercloud.models import ServerCapacity
from browsercloud.server.operations import Operation
from browsercloud.server.parts import parts, project, query
from browsercloud.wire import dump

CAPACITY = Operation(answers={200: ServerCapacity})


async def capacity(request: web.Request) -> web.Response:
    """Slots in all, and the caller's project's own figures; of other projects it tells nothing."""
    query(request, CAPACITY.names)
    return web.json_response(dump(parts(request).sessions.room(project(request))))
