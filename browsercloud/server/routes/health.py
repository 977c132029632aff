"""`/healthz`: whether the server answers."""

from __future__ import annotations

from importlib import metadata

from aiohttp import web

from browsercloud.server.parts import query


async def health(request: web.Request) -> web.Response:
    """Status and version; asks for no key."""
    query(request, ())
    return web.json_response({"status": "ok", "version": _version()})


def _version() -> str:
    try:
        return metadata.version("browsercloud")
    except metadata.PackageNotFoundError:
        return "unknown"  # a source tree that is not installed
