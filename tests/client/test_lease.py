"""The lease's socket: found dead by the kernel, opened again, and given up when refused."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from browsercloud.client.lease import Lease, _open
from browsercloud.client.transport import Transport
from browsercloud.local import LocalServer
from browsercloud.testing import IdleEngine

Start = Callable[..., "asyncio.Future[Transport]"]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """A transport that is opened by the test."""
    transport = Transport(request_timeout=0.3)
    yield transport
    await transport.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait for it, five seconds at most."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def serve(transport: Transport, handler: Callable[..., object]) -> web.AppRunner:
    """A server that answers every request with *handler*, and a transport to it."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)  # type: ignore[arg-type]
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await transport.open(f"http://127.0.0.1:{runner.addresses[0][1]}", "key")
    return runner


async def test_the_kernel_watches(transport: Transport) -> None:
    """Keep-alive is on: a server that vanished without a word is noticed, and no byte is ours."""
    async with LocalServer(engine=IdleEngine()) as server:
        await transport.open(server.url, server.api_key)
        lease = Lease(transport)
        before = set(_open)  # an earlier test's may still wait to be collected
        lease.hold()
        await until(lambda: set(_open) - before)
        (held,) = set(_open) - before
        found = held.get_extra_info("socket")
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5
        await lease.close()


async def test_an_unanswered_upgrade_is_tried_again(transport: Transport) -> None:
    """A proxy that accepts and stays silent does not hold the lease for ever."""
    asked = 0

    async def silent(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        await asyncio.sleep(60)
        return web.Response()

    runner = await serve(transport, silent)
    lease = Lease(transport)
    lease.hold()
    await until(lambda: asked >= 2)
    await lease.close()
    await runner.cleanup()


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_is_final(transport: Transport, status: int) -> None:
    """Who is refused does not go on asking."""
    asked = 0

    async def refuse(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=status)

    runner = await serve(transport, refuse)
    lease = Lease(transport)
    lease.hold()
    await until(lambda: lease._task is not None and lease._task.done())
    assert asked == 1
    await runner.cleanup()


async def test_the_key_is_not_taken_elsewhere(transport: Transport) -> None:
    """A redirect is not followed: the key would go with it."""
    paths = []

    async def redirect(request: web.Request) -> web.Response:
        paths.append(request.path)
        raise web.HTTPFound("/elsewhere")

    runner = await serve(transport, redirect)
    lease = Lease(transport)
    lease.hold()
    await until(lambda: len(paths) >= 2)
    assert "/elsewhere" not in paths
    await lease.close()
    await runner.cleanup()
