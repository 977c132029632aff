"""`/?apiKey=` and `/puppeteer?capabilities=`: sessions that begin and end with a socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import WSServerHandshakeError

from browsercloud.testing import FailingEngine, IdleEngine, SlowEngine
from tests.conftest import Site
from tests.server.conftest import KEY, Cloud, StartCloud, Upstream, until

OWN = f"/?apiKey={KEY}"


def capabilities(**asked: Any) -> str:
    """TestMu's address with these, and with a key in `LT:Options`."""
    asked.setdefault("LT:Options", {})
    asked["LT:Options"] = {"user": "me", "accessKey": KEY, **asked["LT:Options"]}
    return f"/puppeteer?capabilities={quote(json.dumps(asked))}"


async def records(cloud: Cloud) -> list[dict[str, Any]]:
    """Every record, the newest first."""
    _, listed = await cloud.call("GET", "/v1/sessions")
    found: list[dict[str, Any]] = listed["sessions"]
    return found


async def ended(cloud: Cloud) -> dict[str, Any]:
    """The one record, once its session has ended."""
    async with asyncio.timeout(5):
        while True:
            (record,) = await records(cloud)
            if record["status"] in ("released", "failed"):
                return record
            await asyncio.sleep(0.01)


async def why(cloud: Cloud, path: str, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and error with which the upgrade is refused."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with cloud.http.get(cloud.url + path, headers={**upgrade, **headers}) as reply:
        error: dict[str, Any] = (await reply.json())["error"]
        return reply.status, error


async def test_the_session_is_there_while_the_socket_is(real_cloud: Cloud, site: Site) -> None:
    """A real browser of its own with the options of `LT:Options`, and nothing afterwards."""
    options = {"build": "b1", "name": "n1", "resolution": "640x480", "idleTimeout": 90}
    asked = {"browserName": "chrome-headless-shell", "LT:Options": options}
    async with cloud_socket(real_cloud, capabilities(**asked)) as socket:
        (record,) = await records(real_cloud)
        assert ("live", "puppeteer", "headless-shell") == (
            record["status"],
            record["adapter"],
            record["browser"],
        )
        assert ("b1", "n1", 90_000) == (record["build"], record["name"], record["idleTimeout"])
        assert {"width": 640, "height": 480} == record["dimensions"]
        assert KEY not in json.dumps(record)
        await socket.send_json(
            {"id": 1, "method": "Target.createTarget", "params": {"url": site.url}}
        )
        assert "targetId" in (await socket.receive_json())["result"]
    record = await ended(real_cloud)
    assert ("released", "user_requested") == (record["status"], record["releaseReason"])
    assert {} == real_cloud.engine.running()


def cloud_socket(cloud: Cloud, path: str) -> Any:
    """A socket at *path*."""
    return cloud.http.ws_connect(cloud.url + path)


@pytest.mark.parametrize("cancelling", [False, True])
async def test_a_client_that_is_killed_ends_it(
    start_cloud: StartCloud, upstream: Upstream, cancelling: bool
) -> None:
    """Without a goodbye it is `lease_lost`, however the server learns of it."""
    cloud = await start_cloud(
        IdleEngine(endpoint=upstream.endpoint), handler_cancellation=cancelling
    )
    async with aiohttp.ClientSession() as http, http.ws_connect(cloud.url + OWN) as socket:
        await socket.send_str("hello")
        assert "hello" == (await socket.receive()).data
        connection: Any = socket._response.connection
        connection.transport.abort()
        record = await ended(cloud)
    assert ("released", "lease_lost") == (record["status"], record["releaseReason"])
    assert [record["id"]] == cloud.engine.stops
    assert set() == upstream.open


async def test_what_ends_the_session_ends_the_socket(
    start_cloud: StartCloud, upstream: Upstream
) -> None:
    """A release by its id, and the stop of the server; the socket is told why."""
    cloud = await start_cloud(IdleEngine(endpoint=upstream.endpoint))
    async with cloud_socket(cloud, OWN) as socket:
        (record,) = await records(cloud)
        await cloud.call("DELETE", f"/v1/sessions/{record['id']}")
        message = await socket.receive()
        assert (1001, "session ended: user_requested") == (message.data, message.extra)
    async with cloud_socket(cloud, OWN) as socket:
        stopping = asyncio.create_task(cloud.server.stop())
        message = await socket.receive()
        assert (1001, "session ended: shutdown") == (message.data, message.extra)
        await socket.close()
        await stopping
    assert 2 == len(cloud.engine.stops)


async def test_a_client_that_leaves_early_leaves_nothing(start_cloud: StartCloud) -> None:
    """The session that was starting for it is given up before it is live."""
    cloud = await start_cloud(SlowEngine(30))
    connecting = asyncio.ensure_future(cloud_socket(cloud, OWN).__aenter__())
    await until(lambda: len(cloud.engine.starts) == 1)
    connecting.cancel()
    record = await ended(cloud)
    assert ("released", "lease_lost") == (record["status"], record["releaseReason"])
    assert cloud.engine.starts == cloud.engine.cancelled


async def test_without_room_it_is_refused_as_a_create_is(
    start_cloud: StartCloud, upstream: Upstream
) -> None:
    """429 with `Retry-After`; and nobody stands in the line for a socket that is gone."""
    engine = IdleEngine(endpoint=upstream.endpoint, room=1)
    cloud = await start_cloud(engine, create_wait=0.1)
    async with cloud_socket(cloud, OWN):
        with pytest.raises(WSServerHandshakeError) as caught:
            await cloud_socket(cloud, OWN)
        assert 429 == caught.value.status
        assert "Retry-After" in (caught.value.headers or {})
        newest, _ = await records(cloud)
        assert ("failed", "creation_timeout") == (newest["status"], newest["releaseReason"])
        assert 1 == len(engine.starts)


async def test_a_start_that_fails_is_told(start_cloud: StartCloud) -> None:
    """As HTTP, with the code of a create."""
    cloud = await start_cloud(FailingEngine())
    status, error = await why(cloud, OWN)
    assert (502, "launch_failed") == (status, error["code"])


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "encodeURIComponent"),
        ("Chrome", "encodeURIComponent"),
        ("[1]", "must be an object"),
        ('{"LT:Options": 1}', "LT:Options"),
        ('{"browserName": "MicrosoftEdge"}', "browserName"),
        ('{"acceptInsecureCerts": true}', "acceptInsecureCerts"),
        ('{"LT:Options": {"platform": "Windows 10"}}', "LT:Options.platform"),
        ('{"LT:Options": {"video": true}}', "LT:Options.video"),
        ('{"LT:Options": {"tunnel": true}}', "LT:Options.tunnel"),
        ('{"LT:Options": {"resolution": "big"}}', "LT:Options.resolution"),
        ('{"LT:Options": {"idleTimeout": "long"}}', "idleTimeout"),
        ('{"browsercloud:options": {"sessionId": "x"}}', "the id is chosen here"),
        ('{"browsercloud:options": {"width": 1}}', "width"),
    ],
)
async def test_bad_capabilities_make_nothing(cloud: Cloud, text: str, word: str) -> None:
    """400 that names what is wrong, or what would be right."""
    status, error = await why(cloud, f"/puppeteer?capabilities={quote(text)}&apiKey={KEY}")
    assert (400, "invalid_request") == (status, error["code"])
    assert word in json.dumps(error)
    assert [] == cloud.engine.starts


async def test_what_asks_for_nothing_is_taken(start_cloud: StartCloud, upstream: Upstream) -> None:
    """Scripts carry switches along; off, they are as good as left out."""
    cloud = await start_cloud(IdleEngine(endpoint=upstream.endpoint))
    switches = dict.fromkeys(("video", "console", "network", "visual", "tunnel"), False)
    more = {"geoLocation": "", "platformName": "any", "playwrightClientVersion": "1", "w3c": True}
    path = capabilities(
        browserName="Chrome", browserVersion="latest", **{"LT:Options": switches | more}
    )
    async with cloud_socket(cloud, path) as socket:
        assert not socket.closed
        (record,) = await records(cloud)
        assert {"adapter": "puppeteer"} == record["config"]


async def test_who_may_come_in(start_cloud: StartCloud, upstream: Upstream) -> None:
    """A key in the query, a header, the capabilities, or as Basic password; no token."""
    cloud = await start_cloud(IdleEngine(endpoint=upstream.endpoint))
    record = await cloud.create()
    for path in ("/?apiKey=wrong", f"/?token={cloud.token(record)}", "/puppeteer?capabilities={}"):
        status, _ = await why(cloud, path)
        assert status in (400, 401), path
    basic = aiohttp.encode_basic_auth("me", KEY)
    for path, headers in (
        (OWN, {}),
        ("/", {"x-api-key": KEY}),
        ("/", {"Authorization": basic}),
        ("/puppeteer?capabilities={}", {"Authorization": basic}),
        (f"/puppeteer?capabilities={{}}&apiKey={KEY}", {}),
        (capabilities(), {}),
    ):
        async with cloud.http.ws_connect(cloud.url + path, headers=headers) as socket:
            assert not socket.closed
    assert 7 == len(cloud.engine.starts)
