"""Bring your own: a session attaches to a browser that somebody else runs, and leaves it alone."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from attrs import evolve

from browsercloud import BrowserCloud, InvalidRequest
from browsercloud.cdp.connection import CdpConnection
from browsercloud.engines.base import BrowserHandle
from browsercloud.engines.endpoint import AttachingEngine
from browsercloud.engines.local import LocalEngine
from browsercloud.models import CreateRequest, Session, SessionStatus
from browsercloud.options import Browser, SessionOptions
from browsercloud.server.records import first_record, now
from browsercloud.stores.base import SessionRow
from browsercloud.stores.seal import LOST
from browsercloud.stores.sqlite import FILE_NAME, SqliteStore
from browsercloud.testing import IdleEngine
from tests.conftest import Site
from tests.server.conftest import Cloud, StartCloud, start_cloud  # noqa: F401 - a fixture

SECRET = "a-secret-of-the-url"
ID = "3f0f8a9e-54f6-4c0b-9a57-6f2a35f2d7b1"


@pytest.fixture
async def foreign(root: Path) -> AsyncIterator[BrowserHandle]:
    """A browser that is not the server's own."""
    engine = LocalEngine(root / "foreign")
    await engine.open()
    try:
        yield await engine.start("foreign", SessionOptions(browser=Browser.HEADLESS_SHELL))
    finally:
        await engine.close()


@pytest.fixture
async def cloud(start_cloud: StartCloud) -> Cloud:  # noqa: F811
    """A server that may attach, and has no browsers."""
    return await start_cloud(custom_endpoints=True)


async def titles(endpoint: str) -> list[str]:
    """The addresses of the pages at *endpoint*."""
    async with await CdpConnection.open(endpoint) as browser:
        found = (await browser.send("Target.getTargets"))["targetInfos"]
    return [target["url"] for target in found if target["type"] == "page"]


async def test_release_detaches_and_nothing_more(
    cloud: Cloud, foreign: BrowserHandle, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """What was opened stays open, others go on; and nobody is shown the URL."""
    caplog.set_level(logging.DEBUG)
    url = f"{foreign.endpoint}?token={SECRET}"
    record = await cloud.create(customWebSocketUrl=url)
    assert ("live", foreign.user_agent) == (record["status"], record["userAgent"])
    place = f"ws://{urlsplit(foreign.endpoint).netloc}/…"
    assert {"customWebSocketUrl": place} == record["config"]
    async with await CdpConnection.open(foreign.endpoint) as other:
        async with await CdpConnection.open(record["websocketUrl"]) as ours:
            await ours.send("Target.createTarget", {"url": site.url + "/?mine"})
        status, live = await cloud.call("GET", f"/v1/sessions/{record['id']}/live")
        assert (200, 2) == (status, len(live["pages"]))
        status, released = await cloud.call("DELETE", f"/v1/sessions/{record['id']}")
        assert (200, True) == (status, released["success"])
        assert "product" in await other.send("Browser.getVersion")
    assert site.url + "/?mine" in await titles(foreign.endpoint)
    _, listed = await cloud.call("GET", "/v1/sessions")
    told = json.dumps(listed) + caplog.text + repr(cloud.parts.sessions)
    guid = foreign.endpoint.rpartition("/")[2]
    assert not [word for word in (SECRET, guid) if word in told]
    assert "released" == listed["sessions"][0]["status"]


async def test_http_names_the_socket_and_its_end_is_told(
    cloud: Cloud, foreign: BrowserHandle
) -> None:
    """`http://HOST:PORT` will do; a browser that goes away ends the session, with what is known."""
    record = await cloud.create(customWebSocketUrl=f"http://{urlsplit(foreign.endpoint).netloc}")
    found = cloud.parts.sessions.live(record["id"])
    assert found is not None
    async with await CdpConnection.open(foreign.endpoint) as other:
        await other.send("Browser.close")
    await asyncio.wait({found.ended}, timeout=5)
    _, over = await cloud.call("GET", f"/v1/sessions/{record['id']}")
    assert "browser_crashed" == over["releaseReason"]
    assert ["the endpoint closed the connection"] == over["error"]["stderr"]


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_a_dead_endpoint_is_told_without_its_secrets(cloud: Cloud, scheme: str) -> None:
    """502 that says where nobody answered, and what to do; the URL's secrets are not repeated."""
    url = f"{scheme}://me:{SECRET}@127.0.0.1:9/devtools/browser/{SECRET}?token={SECRET}"
    status, answer = await cloud.call("POST", "/v1/sessions", json={"customWebSocketUrl": url})
    assert (502, "launch_failed") == (status, answer["error"]["code"])
    assert f"{scheme}://127.0.0.1:9/…" in answer["message"]
    assert "--remote-debugging-port" in answer["message"]
    _, listed = await cloud.call("GET", "/v1/sessions")
    assert SECRET not in json.dumps([answer, listed])
    assert {} == cloud.parts.engine.running()


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"customWebSocketUrl": "localhost:9222"}, "customWebSocketUrl"),
        ({"customWebSocketUrl": f"ftp://h/{SECRET}"}, "customWebSocketUrl"),
        ({"customWebSocketUrl": "ws://h:99999/"}, "customWebSocketUrl"),
        ({"customWebSocketUrl": 7}, "customWebSocketUrl"),
        ({"customWebSocketUrl": "ws://h/", "userAgent": "me"}, "userAgent"),
        ({"customWebSocketUrl": "ws://h/", "headless": False}, "headless"),
        ({"customWebSocketUrl": "ws://h/", "adapter": "selenium"}, "adapter"),
        (
            {"customWebSocketUrl": "ws://h/", "lambdatestOptions": {"video": True}},
            "lambdatestOptions.video",
        ),
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    cloud: Cloud, options: dict[str, Any], path: str
) -> None:
    """Before anything is begun."""
    status, answer = await cloud.call("POST", "/v1/sessions", json=options)
    assert (400, [path]) == (status, [one["path"] for one in answer["error"]["details"]])
    assert SECRET not in json.dumps(answer)
    _, listed = await cloud.call("GET", "/v1/sessions")
    assert 0 == listed["totalCount"]


async def test_a_server_for_others_attaches_nowhere_by_itself(
    start_cloud: StartCloud,  # noqa: F811
) -> None:
    """A key must not open this machine's network, unless whoever runs the server says so."""
    cloud = await start_cloud()
    body = {"customWebSocketUrl": "ws://127.0.0.1:9/"}
    status, answer = await cloud.call("POST", "/v1/sessions", json=body)
    assert 400 == status
    assert "--custom-endpoints" in answer["message"]
    cloud = await start_cloud(api_key=None, no_auth=True)
    status, _ = await cloud.call("POST", "/v1/sessions", json=body, key=None)
    assert 502 == status


async def test_it_is_attached_to_again_after_a_restart(foreign: BrowserHandle) -> None:
    """A successor's session is the same browser; one that is gone is not restored."""
    options = SessionOptions(custom_websocket_url=foreign.endpoint)
    first = AttachingEngine(IdleEngine(), allowed=True)
    await first.start(ID, options)
    await first.close()
    second = AttachingEngine(IdleEngine(), allowed=True)
    handle = await second.restore(ID, options, {})
    assert handle is not None
    assert (None, [ID]) == (await second.poll(handle), list(second.running()))
    await second.stop(handle, grace=0)
    dead = evolve(options, custom_websocket_url="ws://127.0.0.1:9/")
    assert await second.restore(ID, dead, {}) is None
    assert {} == second.running()


async def test_the_file_holds_the_url_under_a_seal(root: Path) -> None:
    """Who has the file alone cannot read it; the same secret opens it, another one does not."""
    url = f"wss://me:{SECRET}@browsers.example/{SECRET}"
    request = CreateRequest(
        session_id=ID,
        options=SessionOptions(custom_websocket_url=url),
        given={"customWebSocketUrl": url},
    )
    record: Session = evolve(first_record(request), status=SessionStatus.LIVE, started_at=now())
    row = SessionRow(project="p", session=record, request=request)
    assert SECRET not in repr(row) + repr(request)
    for secret, wanted in ((b"x" * 32, url), (b"y" * 32, LOST), (None, LOST)):
        store = SqliteStore(root / FILE_NAME, secret)
        await store.open()
        try:
            if wanted == url:
                await store.put(row)
            (found,) = await store.unended()
        finally:
            await store.close()
        assert wanted == found.request.options.custom_websocket_url
        assert wanted == found.request.given["customWebSocketUrl"]
    for file in root.glob(f"{FILE_NAME}*"):
        assert SECRET.encode() not in file.read_bytes()


async def test_the_sdk_brings_a_browser_along(foreign: BrowserHandle, site: Site) -> None:
    """An embedded cloud attaches without further ado; the browser and its page outlive that."""
    async with BrowserCloud() as client:
        with pytest.raises(InvalidRequest, match="custom_websocket_url"):
            client.session(custom_websocket_url="nowhere")
        async with client.session(custom_websocket_url=foreign.endpoint) as session:
            await session.page.goto(site.url)
            assert "Home" == await session.page.title()
            assert foreign.endpoint not in repr(session.info) + repr(session)
    assert site.url + "/" in await titles(foreign.endpoint)
    assert not foreign.exited.done()
