"""Whatever is sent: no failure inside, and no answer that `/openapi.json` does not tell.

Schemathesis makes the requests from the document, fitting and unfitting ones, the same each time.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import requests
import schemathesis
from aiohttp import web
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from browsercloud.server.app import Server
from browsercloud.server.config import ServerConfig
from browsercloud.server.openapi import describe
from browsercloud.server.routes import TABLE, Route, computer, contexts
from browsercloud.server.routes.later import NOT_YET
from browsercloud.stores.memory import MemoryStore
from browsercloud.testing import IdleEngine
from tests.server.conftest import KEY

LATER = [each.path for each in NOT_YET]
ROWS = [row for row in TABLE if row.path not in LATER[1:]]
"""Of what is not built one row is enough: all of it is refused by the same line."""


def schema(examples: int, *, coverage: bool, rows: list[Route]) -> Any:
    """The document, and how much is made of it; *coverage* tries every edge of every field."""
    settings = {
        "seed": 1,
        "generation": {"deterministic": True, "database": "none", "max-examples": examples},
        "phases": {"coverage": {"enabled": coverage}},
    }
    config = SchemathesisConfig.from_dict(settings)
    return schemathesis.openapi.from_dict(describe(rows, "test"), config=config)


# An action's body is one of nine: the edges of all of them together take minutes. Pages have none.
_LARGE = ("/computer", "/context", "/context/cookies")
HAND = [row for row in ROWS if row.path.endswith(_LARGE) or "/v1/" not in row.path]
WITH_KEY = schema(3, coverage=True, rows=[row for row in ROWS if row not in HAND])
WITH_A_HAND = schema(12, coverage=False, rows=HAND)
WITHOUT_KEY = schema(3, coverage=False, rows=ROWS)

ANSWERS: dict[str, Any] = {
    "Target.getTargets": {
        "targetInfos": [{"targetId": "T", "type": "page", "url": "about:blank", "title": ""}]
    },
    "Target.attachToTarget": {"sessionId": "S"},
    "Target.getBrowserContexts": {"browserContextIds": []},
    "Page.getNavigationHistory": {"entries": []},
    "Storage.getCookies": {"cookies": []},
    "Page.captureScreenshot": {"data": base64.b64encode(b"picture").decode()},
    "Browser.getVersion": {
        "product": "Fake/1",
        "protocolVersion": "1.3",
        "userAgent": "Fake",
        "jsVersion": "1",
        "revision": "@1",
    },
}
"""What a browser says to the commands that the routes send."""


class Cloud:
    """A server on a thread of its own, whose sessions all have the same browser that is none."""

    def __init__(self) -> None:
        self.url = ""
        self.ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.stop = asyncio.Event()
        self.thread = threading.Thread(target=self._run, name="server")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get("/devtools/browser/x", answer)
        app.router.add_get("/json/list", icons)
        browser = web.AppRunner(app, shutdown_timeout=0.1)
        await browser.setup()
        await web.TCPSite(browser, "127.0.0.1", 0).start()
        host, port = browser.addresses[0][:2]
        engine = IdleEngine(endpoint=f"ws://{host}:{port}/devtools/browser/x")
        server = Server(ServerConfig(port=0, api_key=KEY), engine, MemoryStore())
        try:
            await server.start()
            self.url = server.url
            self.ready.set()
            await self.stop.wait()
        finally:
            await server.stop()
            await browser.cleanup()

    def live_session(self) -> str:
        """The id of a new session."""
        reply = requests.post(f"{self.url}/v1/sessions", headers={"x-api-key": KEY}, timeout=10)
        assert reply.status_code == 201
        return str(reply.json()["id"])


async def answer(request: web.Request) -> web.WebSocketResponse:
    """A CDP endpoint."""
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        if message.type is aiohttp.WSMsgType.TEXT:
            command = json.loads(message.data)
            reply = {"id": command["id"], "result": ANSWERS.get(command["method"], {})}
            await ws.send_json(reply)
    return ws


async def icons(_: web.Request) -> web.Response:
    """Chromium's own listing."""
    return web.json_response([{"id": "T"}])


async def nothing(*_: object, **more: object) -> None:
    """What a browser that is none does with a context."""


async def at_once(*_: object) -> str:
    """A hand that is done: the longest text and the longest wait would take for ever."""
    return "done"


@pytest.fixture(scope="module")
def running() -> Iterator[Cloud]:
    """One server for all: what one request leaves behind, the next one meets."""
    cloud = Cloud()
    cloud.thread.start()
    assert cloud.ready.wait(20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(computer, "perform", at_once)
        for name in ("put", "clear", "set_cookies"):
            patch.setattr(contexts.storage, name, nothing)
        yield cloud
    cloud.loop.call_soon_threadsafe(cloud.stop.set)
    cloud.thread.join(20)
    assert not cloud.thread.is_alive()


def is_uuid(value: object) -> bool:
    """Whether it names a session that there could be."""
    try:
        return bool(uuid.UUID(str(value)))
    except ValueError:
        return False


def not_for(case: Any) -> list[Any]:
    """Checks that ask for what the schema cannot tell."""
    if "501" in case.operation.definition.raw["responses"]:
        return [positive_data_acceptance, not_a_server_error]  # it says so to whatever is sent
    if "101" in case.operation.definition.raw["responses"]:
        # A plain request to a socket's address is 426, whatever else is right or wrong with it.
        return [positive_data_acceptance, negative_data_rejection]
    if "cursorId" in (case.query or {}):
        return [positive_data_acceptance]  # it has to be one of the project's own sessions
    if isinstance(case.body, dict) and case.body.get("customWebSocketUrl") is not None:
        return [positive_data_acceptance]  # this server does not attach to other browsers
    return []


def check(case: Any, running: Cloud) -> None:
    """Send it with a key; a live session is behind each id that could be one."""
    named = case.path_parameters or {}
    if "sessionId" in named and is_uuid(named["sessionId"]):
        named["sessionId"] = running.live_session()
    headers = {"x-api-key": KEY}
    case.call_and_validate(base_url=running.url, headers=headers, excluded_checks=not_for(case))


@WITH_KEY.parametrize()
def test_with_a_key(case: Any, running: Cloud) -> None:
    """Whatever fits is accepted, and what does not is refused."""
    check(case, running)


@WITH_A_HAND.parametrize()
def test_with_a_hand(case: Any, running: Cloud) -> None:
    """So it is with each action."""
    check(case, running)


@WITHOUT_KEY.parametrize()
def test_without_a_key(case: Any, running: Cloud) -> None:
    """Refusals are as the document tells, too."""
    case.call_and_validate(base_url=running.url, excluded_checks=not_for(case))
