"""One CDP connection, against a server that speaks the protocol and misbehaves when asked to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from browsercloud.cdp.connection import CdpClosed, CdpConnection, CdpError


async def _answer(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(max_msg_size=0)
    await ws.prepare(request)
    async for message in ws:
        assert message.type is aiohttp.WSMsgType.TEXT
        call = json.loads(message.data)
        await _react(ws, call)
    return ws


async def _react(ws: web.WebSocketResponse, call: dict[str, Any]) -> None:
    reply = {"id": call["id"], "sessionId": call.get("sessionId")}
    match call["method"]:
        case "Test.echo":
            await ws.send_json(reply | {"result": call["params"] | {"to": call.get("sessionId")}})
        case "Test.refuse":
            await ws.send_json(reply | {"error": {"code": -32000, "message": "not now"}})
        case "Test.event":
            await ws.send_json({"method": "Test.happened", "params": {"n": 1}, "sessionId": "S"})
            await ws.send_json(reply | {"result": {}})
        case "Test.drop":
            ws._req.transport.abort()  # type: ignore[union-attr]
        case "Test.garbage":
            await ws.send_str("{")


@pytest_asyncio.fixture
async def endpoint() -> AsyncIterator[str]:
    """The address of a browser that is none."""
    app = web.Application()
    app.router.add_get("/", _answer)
    async with TestServer(app) as server:
        yield str(server.make_url("/")).replace("http", "ws", 1)


@pytest_asyncio.fixture
async def cdp(endpoint: str) -> AsyncIterator[CdpConnection]:
    """A connection to it."""
    async with await CdpConnection.open(endpoint) as connection:
        yield connection


async def test_a_call_returns_its_own_result(cdp: CdpConnection) -> None:
    """Calls in flight at once each get their own answer, with their CDP session."""
    answers = await asyncio.gather(
        *(cdp.send("Test.echo", {"n": n}, cdp_session_id=f"s{n}") for n in range(20))
    )
    assert [{"n": n, "to": f"s{n}"} for n in range(20)] == answers


async def test_a_message_may_be_of_any_size(cdp: CdpConnection) -> None:
    """A screenshot passes aiohttp's usual limit of 4 MiB."""
    text = "x" * 9_000_000
    assert text == (await cdp.send("Test.echo", {"text": text}))["text"]


async def test_a_refusal_is_an_error_with_its_code(cdp: CdpConnection) -> None:
    """What the browser refuses raises `CdpError` naming the method and the browser's words."""
    with pytest.raises(CdpError, match=r"Test\.refuse: not now") as caught:
        await cdp.send("Test.refuse")
    assert -32000 == caught.value.code


async def test_silence_is_an_error(cdp: CdpConnection) -> None:
    """A call that is not answered ends after its timeout, and the connection stays usable."""
    with pytest.raises(CdpError, match=r"Test\.nothing took longer than 0\.05 s"):
        await cdp.send("Test.nothing", timeout=0.05)
    assert {"to": None} == await cdp.send("Test.echo")


@pytest.mark.parametrize("method", ["Test.drop", "Test.garbage"])
async def test_every_waiting_call_fails_when_the_socket_drops(
    cdp: CdpConnection, method: str
) -> None:
    """A lost or senseless connection fails all calls at once, later ones too, and says so."""
    waiting = asyncio.ensure_future(cdp.send("Test.nothing"))
    with pytest.raises(CdpClosed):
        await cdp.send(method)
    with pytest.raises(CdpClosed):
        await waiting
    assert cdp.closed.done()
    with pytest.raises(CdpClosed, match="closed"):
        await cdp.send("Test.echo")


async def test_events_reach_handlers_until_removed(cdp: CdpConnection) -> None:
    """A handler sees parameters and CDP session; a failing one hinders no other."""
    seen: list[Any] = []
    cdp.on("Test.happened", lambda params, cdp_session_id: seen.append(1 / 0))
    remove = cdp.on("Test.happened", lambda params, cdp_session_id: seen.append(cdp_session_id))
    await cdp.send("Test.event")
    remove()
    await cdp.send("Test.event")
    assert ["S"] == seen


async def test_closing_twice_is_silent_and_leaves_no_task(endpoint: str) -> None:
    """After `close` nothing of the connection runs, and waiting calls have failed."""
    before = asyncio.all_tasks()
    cdp = await CdpConnection.open(endpoint)
    waiting = asyncio.ensure_future(cdp.send("Test.nothing"))
    await asyncio.sleep(0)
    await asyncio.gather(cdp.close(), cdp.close())
    await cdp.close()
    with pytest.raises(CdpClosed):
        await waiting
    assert {task for task in asyncio.all_tasks() if "TestServer" not in repr(task)} >= before
    assert cdp._reader.done()


async def test_a_cancelled_call_leaves_nothing(cdp: CdpConnection) -> None:
    """A cancelled call raises its cancellation and is forgotten."""
    waiting = asyncio.ensure_future(cdp.send("Test.nothing"))
    await cdp.send("Test.echo")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert {} == cdp._pending


async def test_an_endpoint_that_is_not_there_is_an_error_without_its_address() -> None:
    """A refused connection is a `CdpError` that does not give the endpoint away."""
    with pytest.raises(CdpError) as caught:
        await CdpConnection.open("ws://127.0.0.1:1/devtools/browser/secret")
    assert "secret" not in str(caught.value)
