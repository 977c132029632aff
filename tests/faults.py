"""A server between client and server that answers wrongly on purpose, once for each fault."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

UNAVAILABLE = "answer 503 without asking the server"
DROP_AFTER = "let the server do it, then drop the connection without an answer"
BAD_GATEWAY = "let the server do it, then answer as a proxy that has lost patience"
DROP_BEFORE = "drop the connection without asking the server"

KEPT = ("Next-Cursor",)


class FaultyProxy:
    """Passes requests on to *target*, and does `faults[0]`, `faults[1]`, … to the first of them."""

    def __init__(self, target: str, method: str, faults: list[str], retry_after: float = 0) -> None:
        self.url = ""
        self.requests: list[str] = []
        self._target = target
        self._method = method
        self._faults = faults
        self._retry_after = retry_after

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request on its way."""
        if "leases" in request.path:
            raise web.HTTPNotFound
        fault = None
        if request.method == self._method:
            self.requests.append(request.path)
            fault = self._faults.pop(0) if self._faults else None
        if fault == UNAVAILABLE:
            body = {"error": {"code": "shutting_down", "message": "not now"}}
            headers = {"Retry-After": f"{self._retry_after:g}"}
            return web.json_response(body, status=503, headers=headers)
        if fault == DROP_BEFORE:
            return self._drop(request)
        async with (
            aiohttp.ClientSession() as http,
            http.request(
                request.method,
                self._target + str(request.rel_url),
                data=await request.read(),
                headers={"x-api-key": request.headers["x-api-key"]}
                | {"Content-Type": "application/json"},
            ) as response,
        ):
            content = await response.read()
            kept = {name: response.headers[name] for name in KEPT if name in response.headers}
        if fault == DROP_AFTER:
            return self._drop(request)
        if fault == BAD_GATEWAY:
            return web.Response(status=520, text="<h1>unknown error</h1>")
        return web.Response(
            body=content, status=response.status, content_type="application/json", headers=kept
        )

    def _drop(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()


@asynccontextmanager
async def faulty(
    target: str, method: str, faults: list[str], retry_after: float = 0
) -> AsyncIterator[FaultyProxy]:
    """A `FaultyProxy` in front of *target*."""
    proxy = FaultyProxy(target, method, list(faults), retry_after)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield proxy
    finally:
        await runner.cleanup()
