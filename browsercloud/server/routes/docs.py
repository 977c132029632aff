"""`/openapi.json` and `/docs`: the interface, for programs and for people."""

from __future__ import annotations

from aiohttp import web

from browsercloud.server.operations import Answer, Operation
from browsercloud.server.parts import parts, query
from browsercloud.server.routes.pages import page

DOCUMENT = Operation(
    answers={
        200: Answer("The document.", media_type="application/json", schema={"type": "object"})
    },
)
DOCS = Operation(answers={200: Answer("The page.", media_type="text/html")})


async def document(request: web.Request) -> web.Response:
    """The interface as an OpenAPI document.

    No key is asked for: it is made of the program alone, and tells nothing of what it runs.
    """
    query(request, ())
    return web.json_response(text=parts(request).interface(), headers={"Cache-Control": "no-cache"})


async def docs(request: web.Request) -> web.Response:
    """The interface as a page for people, which shows `/openapi.json`."""
    query(request, ())
    return page("docs.html")
