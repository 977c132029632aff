"""Around every request: its id, its errors, its limits."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from typing import Any

import pytest
import yarl

from browsercloud.engines.base import BrowserHandle
from browsercloud.errors import BrowserNotFound, LaunchFailed, UsageError
from browsercloud.options import SessionOptions
from browsercloud.server.parts import PARTS
from browsercloud.testing import IdleEngine
from tests.server.conftest import KEY, Cloud, StartCloud


class FailingEngine(IdleEngine):
    """Its starts fail with *error*."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def start(self, session_id: str, options: SessionOptions) -> BrowserHandle:
        """Raise it."""
        raise self.error


@pytest.mark.parametrize("given", ["abc-1", "A.b_c:9", "x" * 128])
async def test_a_sane_request_id_comes_back(cloud: Cloud, given: str) -> None:
    """In the header, and in the body of an error."""
    status, headers, answer = await get(cloud, "/nowhere", {"X-Request-Id": given})
    assert status == 404
    assert headers["X-Request-Id"] == answer["error"]["requestId"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "ä", "<script>", 'a"b'])
async def test_another_request_id_is_replaced(cloud: Cloud, given: str) -> None:
    """What could do harm in a log or a page is not taken over."""
    _, headers, answer = await get(cloud, "/nowhere", {"X-Request-Id": given})
    assert headers["X-Request-Id"] == answer["error"]["requestId"] != given
    assert headers["X-Request-Id"].isalnum()


async def test_every_answer_has_a_request_id(cloud: Cloud) -> None:
    """Good ones and upgrades too, each another."""
    first = (await get(cloud, "/healthz"))[1]["X-Request-Id"]
    second = (await get(cloud, "/healthz"))[1]["X-Request-Id"]
    assert first != second


async def test_an_error_has_the_body_of_the_contract(cloud: Cloud) -> None:
    """`error` with code, message and request id, and Steel's second `message`."""
    _, headers, answer = await get(cloud, "/v1/nowhere")
    message = "there is nothing at /v1/nowhere"
    wanted = {"code": "not_found", "message": message, "requestId": headers["X-Request-Id"]}
    assert answer == {"error": wanted, "message": message}


async def test_a_wrong_method_says_which_are_right(cloud: Cloud) -> None:
    """405 with Allow."""
    async with cloud.http.patch(f"{cloud.url}/v1/sessions") as reply:
        answer = await reply.json()
        assert reply.status == 405
        assert reply.headers["Allow"] == "DELETE,GET,POST"
    assert answer["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused(cloud: Cloud, *, chunked: bool) -> None:
    """413 and how much may be sent, whether its length was announced or not; nothing is done."""
    record = await cloud.create()
    path = f"/v1/sessions/{record['id']}/extend"
    body = json.dumps({"timeout": 1000}).encode().ljust(2**20 + 1)

    async def pieces() -> Any:
        yield body

    data = pieces() if chunked else io.BytesIO(body)
    status, answer = await cloud.call("POST", path, data=data)
    assert (status, answer["error"]["code"]) == (413, "too_large")
    assert str(2**20) in answer["error"]["message"]
    status, extended = await cloud.call("POST", path, data=body[: 2**20])
    assert (status, extended["timeout"]) == (200, 1000)
    assert record["timeout"] != 1000


async def test_what_nobody_foresaw_is_logged_and_hidden(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 without a word of the cause; the log has the traceback, and both have the id."""

    async def fail(*_: object) -> None:
        raise ZeroDivisionError("a detail of the inside")

    record = await cloud.create()
    monkeypatch.setattr(type(cloud.server._app[PARTS].sessions), "get", fail)
    status, answer = await cloud.call("GET", f"/v1/sessions/{record['id']}")
    assert (status, answer["error"]["code"]) == (500, "internal")
    assert "detail" not in json.dumps(answer)
    assert "ZeroDivisionError: a detail of the inside" in caplog.text
    assert answer["error"]["requestId"] in caplog.text


async def test_a_failed_launch_tells_what_the_browser_said(start_cloud: StartCloud) -> None:
    """502 with the engine's own message, and a record that has failed."""
    cloud = await start_cloud(FailingEngine(LaunchFailed("it said: no display")))
    status, answer = await cloud.call("POST", "/v1/sessions")
    assert (status, answer["error"]["code"]) == (502, "launch_failed")
    assert answer["message"] == "it said: no display"
    _, listed = await cloud.call("GET", "/v1/sessions")
    (record,) = listed["sessions"]
    assert (record["status"], record["releaseReason"]) == ("failed", "startup_failed")
    assert record["error"]["message"] == "it said: no display"


async def test_a_missing_browser_tells_where_it_looked(start_cloud: StartCloud) -> None:
    """502 whose details hold the places, in order, so that a client can say so too."""
    error = BrowserNotFound("no Chromium; install one", looked=["/a/chromium", "/b/chromium"])
    cloud = await start_cloud(FailingEngine(error))
    status, answer = await cloud.call("POST", "/v1/sessions")
    assert (status, answer["error"]["code"]) == (502, "launch_failed")
    (detail,) = answer["error"]["details"]
    assert detail["path"] == "browser"
    assert detail["looked"] == ["/a/chromium", "/b/chromium"]


@pytest.mark.parametrize("error", [UsageError("of the inside"), KeyError("of the inside")])
async def test_an_engines_fault_is_not_the_callers(
    start_cloud: StartCloud, error: Exception
) -> None:
    """An engine that breaks is a failed launch without its insides."""
    cloud = await start_cloud(FailingEngine(error))
    status, answer = await cloud.call("POST", "/v1/sessions")
    assert (status, answer["error"]["code"]) == (502, "launch_failed")
    assert "of the inside" not in json.dumps(answer)


async def test_a_server_that_stops_says_when_to_ask_again(cloud: Cloud) -> None:
    """503 `shutting_down` with Retry-After."""
    await cloud.server._app[PARTS].sessions.close_down()
    headers = {"x-api-key": KEY}
    async with cloud.http.post(f"{cloud.url}/v1/sessions", headers=headers) as reply:
        answer = await reply.json()
        assert (reply.status, answer["error"]["code"]) == (503, "shutting_down")
        assert int(reply.headers["Retry-After"]) >= 1


async def test_health_asks_for_no_key(cloud: Cloud) -> None:
    """Status and version."""
    status, _, answer = await get(cloud, "/healthz")
    assert (status, answer["status"], sorted(answer)) == (200, "ok", ["status", "version"])


async def test_the_access_log_has_one_line_for_each_request(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    """Method, path as it was sent, status and time; no query, and no line break of a caller's."""
    caplog.set_level(logging.INFO, "browsercloud.access")
    await get(cloud, "/v1/x%0Ay?secret=1", {"X-Request-Id": "me"})
    (line,) = [entry for entry in caplog.records if "access" in entry.name]
    assert re.fullmatch("GET /v1/x%0Ay 404 [0-9]+ ms", line.getMessage())
    said = {name: vars(line)[name] for name in ("method", "path", "status", "requestId")}
    assert said == {"method": "GET", "path": "/v1/x%0Ay", "status": 404, "requestId": "me"}


@pytest.mark.parametrize("sent", ["%3Ftoken=secret", "%3ftoken=secret", "%253Ft=secret", ";secret"])
async def test_a_query_that_was_encoded_stays_out_of_the_log(
    cloud: Cloud, caplog: pytest.LogCaptureFixture, sent: str
) -> None:
    """It is part of the path then, and a link that was encoded twice still holds its token."""
    caplog.set_level(logging.INFO, "browsercloud.access")
    await get(cloud, f"/v1/sessions/x{sent}")
    (line,) = [entry for entry in caplog.records if "access" in entry.name]
    assert line.getMessage().startswith("GET /v1/sessions/x 401 ")
    assert "secret" not in str(vars(line))


async def get(
    cloud: Cloud, path: str, headers: dict[str, str] | None = None
) -> tuple[int, Any, Any]:
    """Status, headers and JSON."""
    url = yarl.URL(cloud.url + path, encoded=True)
    async with cloud.http.get(url, headers=headers) as reply:
        return reply.status, reply.headers, await reply.json()


@pytest.mark.parametrize("announced", ["Content-Length: 500", "Transfer-Encoding: chunked"])
async def test_a_body_that_is_cut_off_starts_nothing(cloud: Cloud, announced: str) -> None:
    """The client goes away in the middle of its request; the server takes no notice."""
    host, _, port = cloud.host.partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /v1/sessions HTTP/1.1\r\nHost: {cloud.host}\r\nx-api-key: {KEY}\r\n{announced}\r\n"
    )
    cut = b"1e\r\n" if "chunked" in announced else b""
    writer.write(
        head.encode() + b"Content-Type: application/json\r\n\r\n" + cut + b'{"name": "half'
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.1)
    assert cloud.engine.starts == []
    assert (await cloud.call("GET", "/v1/sessions"))[1]["totalCount"] == 0
