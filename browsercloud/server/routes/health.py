"""`/healthz`, `/readyz`, `/metrics`: whether the server answers, takes sessions, and how it is."""

from __future__ import annotations

import asyncio
import logging
from importlib import metadata

from aiohttp import web
from attrs import frozen

from browsercloud.server.operations import Answer, Operation
from browsercloud.server.parts import parts, query
from browsercloud.wire import dump

log = logging.getLogger(__name__)

STORE_PATIENCE = 2.0
"""How long the store may take to answer before the server is not ready, in seconds."""


@frozen(kw_only=True)
class Health:
    """The server answers."""

    status: str
    version: str


@frozen(kw_only=True)
class Obstacle:
    """Why no session can be created now."""

    code: str
    message: str


@frozen(kw_only=True)
class Readiness:
    """Whether sessions can be created now."""

    status: str
    """`ready`, or `not_ready`."""

    reasons: tuple[Obstacle, ...]
    """Empty when it is ready."""


HEALTH = Operation(answers={200: Health})
READY = Operation(answers={200: Readiness, 503: Readiness})
METRICS = Operation(answers={200: Answer("The page.", media_type="text/plain")})


async def health(request: web.Request) -> web.Response:
    """Whether the server answers, and its version."""
    query(request, ())
    return web.json_response(dump(Health(status="ok", version=version())))


async def ready(request: web.Request) -> web.Response:
    """Whether sessions can be created now; 503 says why not.

    A server that is full is ready: a create waits in the line.
    """
    query(request, ())
    reasons = await _obstacles(request)
    found = Readiness(status="not_ready" if reasons else "ready", reasons=reasons)
    return web.json_response(dump(found), status=503 if reasons else 200)


async def metrics(request: web.Request) -> web.Response:
    """Figures of the whole server, for Prometheus.

    They add up all projects and name none; still they tell how busy the server is, so a key is
    asked for.
    """
    query(request, ())
    body, content_type = await parts(request).metrics.page(request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


async def _obstacles(request: web.Request) -> tuple[Obstacle, ...]:
    found: list[Obstacle] = []
    refusal = parts(request).sessions.refusal()
    if refusal is not None:
        found.append(Obstacle(code=refusal.code, message=refusal.message))
    try:
        async with asyncio.timeout(STORE_PATIENCE):
            await parts(request).store.access_version()
    except Exception as error:
        # Whatever it is, it is the store's; the log may say what, a stranger need not know.
        log.error("the store does not answer: %r", error)
        found.append(Obstacle(code="store_unavailable", message="the store does not answer"))
    return tuple(found)


def version() -> str:
    """The version that is installed; `unknown` for a source tree that is not."""
    try:
        return metadata.version("browsercloud")
    except metadata.PackageNotFoundError:
        return "unknown"
