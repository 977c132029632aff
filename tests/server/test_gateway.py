"""The CDP gateway: everything goes through, nothing ends what it should not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType
from playwright.async_api import async_playwright

from browsercloud.server import gateway
from browsercloud.server.pump import Leg
from browsercloud.testing import DyingEngine, IdleEngine, NeverEngine, SlowEngine
from tests.leaks import browsers
from tests.server.conftest import BODY, KEY, Cloud, StartCloud, Upstream, until

MB = 2**20
BIG = 20 * MB


async def connect(cloud: Cloud, url: str, **more: Any) -> aiohttp.ClientWebSocketResponse:
    """A WebSocket without limits."""
    return await cloud.http.ws_connect(url, max_msg_size=0, **more)


@pytest.fixture
async def echo(start_cloud: StartCloud, upstream: Upstream) -> Cloud:
    """A server whose browsers send back what they get."""
    return await start_cloud(IdleEngine(endpoint=upstream.endpoint))


async def test_playwright_connects_by_every_form_of_the_url(real_cloud: Cloud) -> None:
    """The session's own socket, Steel's form, and HTTP; one after the other, to the same page."""
    record = await real_cloud.create(browser="headless-shell")
    token = real_cloud.token(record)
    forms = [
        record["websocketUrl"],
        record["websocketUrl"] + "&apiKey=whatever-a-program-appends",
        f"ws://{real_cloud.host}/?sessionId={record['id']}&apiKey={KEY}",
        f"ws://{real_cloud.host}/?sessionId={record['id']}&token={token}",
        f"{real_cloud.url}/v1/sessions/{record['id']}?token={token}",
    ]
    async with async_playwright() as playwright:
        for number, form in enumerate(forms):
            browser = await playwright.chromium.connect_over_cdp(form)
            page = browser.contexts[0].pages[0]
            before = await page.title()
            await page.goto(f"data:text/html,<title>{number}</title>")
            assert before == ("" if number == 0 else str(number - 1))
            await browser.close()
    _, still = await real_cloud.call("GET", f"/v1/sessions/{record['id']}")
    assert still["status"] == "live"


async def test_the_version_names_the_sessions_own_socket(real_cloud: Cloud) -> None:
    """Chromium's own port is nowhere in it."""
    record = await real_cloud.create(browser="headless-shell")
    for path in ("json/version", "json/version/"):
        status, about = await real_cloud.call("GET", f"/v1/sessions/{record['id']}/{path}")
        assert (status, about["webSocketDebuggerUrl"]) == (200, record["websocketUrl"])
        assert "Chrome/" in about["Browser"]
        assert about["User-Agent"] == record["userAgent"]


async def test_twenty_megabytes_pass_whole_both_ways(real_cloud: Cloud) -> None:
    """A message of 20 MB reaches Chromium, and its answer of 20 MB comes back whole."""
    record = await real_cloud.create(browser="headless-shell")
    ws = await connect(real_cloud, record["websocketUrl"])
    targets = await call(ws, "Target.getTargets", {})
    (page,) = [target for target in targets["targetInfos"] if target["type"] == "page"]
    attach = {"targetId": page["targetId"], "flatten": True}
    session = (await call(ws, "Target.attachToTarget", attach))["sessionId"]
    expression = {"expression": f"'{'x' * BIG}' + '!'", "returnByValue": True}
    reply = await call(ws, "Runtime.evaluate", expression, session)
    assert reply["result"]["value"] == "x" * BIG + "!"
    await ws.close()


@pytest.mark.parametrize("kind", [WSMsgType.TEXT, WSMsgType.BINARY])
async def test_what_goes_through_is_not_changed(
    echo: Cloud, upstream: Upstream, kind: WSMsgType
) -> None:
    """Text stays text and bytes stay bytes, empty and big ones too, in their order."""
    record = await echo.create()
    ws = await connect(echo, record["websocketUrl"], compress=15)
    sizes = [0, 1, 125, 126, 65_535, 65_536, 5 * 2**20]
    for size in sizes:
        await ws.send_frame("ä".encode() * size, kind)
    for size in sizes:
        message = await ws.receive()
        assert message.type is kind
        raw = message.data.encode() if kind is WSMsgType.TEXT else message.data
        assert raw == "ä".encode() * size
    assert (ws.compress, upstream.got) == (0, len(sizes))
    await ws.close()


async def test_several_clients_at_once(echo: Cloud, upstream: Upstream) -> None:
    """Each socket has its own way to the browser; one that leaves takes no other with it."""
    record = await echo.create()
    sockets = [await connect(echo, record["websocketUrl"]) for _ in range(5)]
    await until(lambda: len(upstream.open) == 5)
    await sockets.pop().close()
    await until(lambda: len(upstream.open) == 4)
    for number, ws in enumerate(sockets):
        await ws.send_str(str(number))
    assert [await ws.receive_str() for ws in sockets] == ["0", "1", "2", "3"]
    for ws in sockets:
        await ws.close()
    await until(lambda: not upstream.open)


@pytest.mark.parametrize("cancellation", [False, True])
async def test_a_dropped_socket_does_not_end_the_session(
    start_cloud: StartCloud, upstream: Upstream, *, cancellation: bool
) -> None:
    """A client that vanishes without a word: the browser's side is closed, the session lives on."""
    cloud = await start_cloud(
        IdleEngine(endpoint=upstream.endpoint), handler_cancellation=cancellation
    )
    record = await cloud.create()
    ws = await connect(cloud, record["websocketUrl"])
    await ws.send_str("hello")
    await ws.receive_str()
    transport = ws.get_extra_info("socket")
    transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    ws._response.connection.transport.abort()
    await until(lambda: not upstream.open)
    _, still = await cloud.call("GET", f"/v1/sessions/{record['id']}")
    assert still["status"] == "live"
    again = await connect(cloud, record["websocketUrl"])
    await again.send_str("back")
    assert await again.receive_str() == "back"
    await again.close()


async def test_a_slow_reader_makes_the_sender_wait(echo: Cloud, upstream: Upstream) -> None:
    """While the browser does not read, a sender comes to rest instead of filling our memory."""
    record = await echo.create()
    ws = await connect(echo, record["websocketUrl"])
    upstream.paused.clear()
    sent = 0

    async def flood() -> None:
        nonlocal sent
        for _ in range(200):
            await ws.send_bytes(b"x" * 2**20)
            sent += 1

    flooding = asyncio.create_task(flood())
    await asyncio.wait({flooding}, timeout=1)
    rest = sent
    await asyncio.wait({flooding}, timeout=0.5)
    assert rest == sent < 100
    flooding.cancel()
    await asyncio.wait({flooding})
    upstream.paused.set()
    ws._response.connection.transport.abort()
    await until(lambda: not upstream.open)


async def test_a_client_that_reads_nothing_cannot_hold_up_the_end(
    echo: Cloud, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its buffers are full and it never answers: it is cut off, and both sockets are gone."""
    monkeypatch.setattr(gateway, "GOODBYE_PATIENCE", 0.2)
    record = await echo.create()
    ws = await connect(echo, record["websocketUrl"])
    ws._response.connection.transport.pause_reading()
    (browser,) = await some(upstream.open)
    sending = asyncio.create_task(flood_until_full(browser))
    await asyncio.wait({sending}, timeout=0.5)
    assert not sending.done()
    status, _ = await echo.call("DELETE", f"/v1/sessions/{record['id']}")
    assert status == 200
    await asyncio.wait({sending}, timeout=5)
    assert sending.done()
    ws._response.connection.transport.abort()


async def test_pings_come_without_being_asked_for(
    echo: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server pings; a client that never answers is busy, not dead."""
    monkeypatch.setattr(gateway, "PING_EVERY", 0.05)
    record = await echo.create()
    ws = await connect(echo, record["websocketUrl"], autoping=False)
    for _ in range(3):
        assert (await ws.receive(5)).type is WSMsgType.PING
    await ws.send_str("still here")
    while (message := await ws.receive(5)).type is WSMsgType.PING:
        continue
    assert message.data == "still here"
    await ws.close()


async def test_both_sockets_send_at_once(echo: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP_NODELAY is set: small messages do not wait for each other."""
    seen: list[Any] = []
    pump = gateway._pump

    async def spy(client: Leg, browser: Leg, *more: Any) -> Any:
        for leg in (client, browser):
            found = leg.transport.get_extra_info("socket")
            seen.append(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        return await pump(client, browser, *more)

    monkeypatch.setattr(gateway, "_pump", spy)
    ws = await connect(echo, (await echo.create())["websocketUrl"])
    await ws.close()
    assert [bool(value) for value in seen] == [True, True]


async def test_the_end_of_the_session_closes_its_sockets_and_says_why(echo: Cloud) -> None:
    """Code 1001 and the reason; afterwards the URL is 410."""
    record = await echo.create(timeout=100)
    ws = await connect(echo, record["websocketUrl"])
    message = await ws.receive(5)
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
    assert message.extra == "session ended: timeout"
    assert await echo.refused(record["websocketUrl"].removeprefix(f"ws://{echo.host}")) == 410


async def test_a_client_that_closes_the_browser_ends_the_session(real_cloud: Cloud) -> None:
    """`Browser.close` over the socket releases the session as `browser_closed`."""
    record = await real_cloud.create(browser="headless-shell")
    ws = await connect(real_cloud, record["websocketUrl"])
    await ws.send_json({"id": 1, "method": "Browser.close"})
    while (message := await ws.receive(10)).type is WSMsgType.TEXT:
        continue
    assert (message.data, message.extra) == (1001, "session ended: browser_closed")
    ended = await over(real_cloud, record)
    assert (ended["status"], ended["releaseReason"]) == ("released", "browser_closed")


async def test_a_killed_browser_closes_the_sockets_at_once(real_cloud: Cloud, root: Any) -> None:
    """SIGKILL: the client hears of it within a moment; the record says which signal it was."""
    record = await real_cloud.create()
    ws = await connect(real_cloud, record["websocketUrl"])
    (chromium,) = browsers(root)
    os.kill(chromium.pid, signal.SIGKILL)
    async with asyncio.timeout(2):
        message = await ws.receive()
    assert (message.data, message.extra) == (1001, "session ended: browser_crashed")
    ended = await over(real_cloud, record)
    assert (ended["status"], ended["releaseReason"]) == ("failed", "browser_crashed")
    assert ended["error"]["signal"] == "SIGKILL"
    assert "SIGKILL" in ended["error"]["message"]
    assert not any("DevTools listening" in line for line in ended["error"]["stderr"])


async def test_a_starting_session_keeps_its_socket_waiting(
    start_cloud: StartCloud, upstream: Upstream
) -> None:
    """A socket that comes before the browser is connected when there is one."""
    cloud = await start_cloud(SlowEngine(0.2, endpoint=upstream.endpoint))
    _, record = await cloud.call("POST", "/v1/sessions?wait=false")
    ws = await connect(cloud, record["websocketUrl"])
    await ws.send_str("early")
    assert await ws.receive_str() == "early"
    await ws.close()


async def test_a_session_released_while_starting_refuses_its_socket(
    start_cloud: StartCloud,
) -> None:
    """Whoever waits for a start that is given up hears that it has ended."""
    cloud = await start_cloud(NeverEngine())
    _, record = await cloud.call("POST", "/v1/sessions?wait=false")
    path = record["websocketUrl"].removeprefix(f"ws://{cloud.host}")
    waiting = asyncio.create_task(cloud.refused(path))
    await until(lambda: bool(cloud.engine.starts))
    await cloud.call("DELETE", f"/v1/sessions/{record['id']}")
    assert await waiting == 410


async def test_a_browser_that_cannot_be_reached_is_an_error_of_its_own(cloud: Cloud) -> None:
    """Nothing listens there: 502 before the upgrade, and no address in the message."""
    record = await cloud.create()
    path = record["websocketUrl"].removeprefix(f"ws://{cloud.host}")
    assert await cloud.refused(path) == 502
    status, answer = await cloud.call("GET", f"/v1/sessions/{record['id']}/json/version")
    assert (status, answer["error"]["code"]) == (502, "browser_unresponsive")
    assert cloud.engine.endpoint not in json.dumps(answer)


async def test_a_browser_that_hangs_up_without_dying_is_told_apart(
    start_cloud: StartCloud, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the connection is gone: the client's socket is closed, the session is not over."""
    monkeypatch.setattr(gateway, "END_PATIENCE", 0.1)
    cloud = await start_cloud(DyingEngine(endpoint=upstream.endpoint))
    record = await cloud.create()
    ws = await connect(cloud, record["websocketUrl"])
    (browser,) = await some(upstream.open)
    await browser.close()
    message = await ws.receive(5)
    assert (message.data, message.extra) == (1011, "the browser closed the connection")
    _, still = await cloud.call("GET", f"/v1/sessions/{record['id']}")
    assert still["status"] == "live"


@pytest.mark.parametrize(
    "path",
    ["cdp/", "cdp/devtools/browser/x", "devtools/browser/x", "json", "json/list", "json/new"],
)
async def test_an_unknown_path_never_reaches_the_browser(
    echo: Cloud, upstream: Upstream, path: str
) -> None:
    """404, whether asked for by HTTP or by an upgrade."""
    record = await echo.create()
    full = f"/v1/sessions/{record['id']}/{path}?token={echo.token(record)}"
    status, answer = await echo.call("GET", full)
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert await echo.refused(full) == 404
    assert not upstream.open


async def test_a_plain_request_is_told_that_this_is_a_socket(echo: Cloud) -> None:
    """GET without an upgrade is 426."""
    record = await echo.create()
    for path in (f"/v1/sessions/{record['id']}/cdp", f"/?sessionId={record['id']}"):
        status, answer = await echo.call("GET", path)
        assert (status, answer["error"]["code"]) == (426, "upgrade_required")


async def test_steels_form_with_an_id_that_is_none_is_refused_by_name(echo: Cloud) -> None:
    """It is no request for a new session."""
    assert await echo.refused(f"/?sessionId=mine&apiKey={KEY}") == 400
    assert await echo.refused("/?token=x") == 400
    assert await echo.refused(f"/?apiKey={KEY}&sessionId=x") == 400
    assert await echo.refused(f"/?apiKey={KEY}&session=x") == 400
    assert await echo.refused("/") == 401


async def test_stopping_the_server_does_not_wait_for_open_sockets(
    echo: Cloud, upstream: Upstream
) -> None:
    """Clients that hang on are told `shutdown` and the server is down within moments."""
    record = await echo.create()
    ws = await connect(echo, record["websocketUrl"])
    stopping = asyncio.create_task(echo.server.stop())
    message = await ws.receive(5)
    assert (message.data, message.extra) == (1001, "session ended: shutdown")
    async with asyncio.timeout(5):
        await stopping
    assert not upstream.open


async def call(
    ws: aiohttp.ClientWebSocketResponse, method: str, params: BODY, session: str | None = None
) -> BODY:
    """One CDP call; other messages are skipped."""
    more = {"sessionId": session} if session else {}
    await ws.send_json({"id": 1, "method": method, "params": params, **more})
    while (reply := json.loads(await ws.receive_str())).get("id") != 1:
        continue
    result: BODY = reply["result"]
    return result


async def some(things: set[Any]) -> set[Any]:
    """The set, once there is something in it."""
    await until(lambda: bool(things))
    return things


async def flood_until_full(ws: Any) -> None:
    """Send until nothing more goes, or the other side is gone."""
    try:
        while True:
            await ws.send_bytes(b"x" * 2**20)
    except OSError:
        return


async def over(cloud: Cloud, record: BODY) -> BODY:
    """The session's record once it has ended."""
    async with asyncio.timeout(10):
        while True:
            _, now = await cloud.call("GET", f"/v1/sessions/{record['id']}")
            if now["endedAt"] is not None:
                found: BODY = now
                return found
            await asyncio.sleep(0.01)


async def test_a_screenshot_of_several_megabytes_through_playwright(real_cloud: Cloud) -> None:
    """Masked commands go in and a big answer comes out, as Chromium and Playwright make them."""
    record = await real_cloud.create(browser="headless-shell")
    noise = (
        "<canvas id=c width=1600 height=1600></canvas><script>"
        "const p = c.getContext('2d'), i = p.createImageData(1600, 1600);"
        "for (let k = 0; k < i.data.length; k++) "
        "i.data[k] = k % 4 == 3 ? 255 : Math.random() * 256;"
        "p.putImageData(i, 0, 0)</script>"
    )
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(record["websocketUrl"])
        page = browser.contexts[0].pages[0]
        await page.set_content(noise)
        image = await page.screenshot(full_page=True)
        assert await page.evaluate("x => x.length", "ä" * MB) == MB
        await browser.close()
    assert image.startswith(b"\x89PNG")
    assert len(image) > 4 * 2**20
    counts = real_cloud.parts.totals
    assert counts.bytes_out > len(image)
    assert counts.bytes_in > 2 * MB


async def test_chromium_begins_answers_and_events_as_the_counters_think(
    real_cloud: Cloud,
) -> None:
    """Also for attached targets and for errors: the driver's traffic is told by the first bytes."""
    record = await real_cloud.create(browser="headless-shell")
    ws = await connect(real_cloud, record["websocketUrl"])
    seen: list[str] = []

    async def ask(method: str, params: BODY, session: str | None = None) -> BODY:
        more = {"sessionId": session} if session else {}
        await ws.send_json({"id": 7, "method": method, "params": params, **more})
        while True:
            seen.append(await ws.receive_str(timeout=10))
            message: BODY = json.loads(seen[-1])
            assert seen[-1].startswith('{"id":7,' if "id" in message else '{"method":')
            if "id" in message:
                return message

    targets = (await ask("Target.getTargets", {}))["result"]["targetInfos"]
    page = next(target["targetId"] for target in targets if target["type"] == "page")
    attach = {"targetId": page, "flatten": True}
    session = (await ask("Target.attachToTarget", attach))["result"]["sessionId"]
    for domain in ("Page", "Runtime", "Network"):
        await ask(f"{domain}.enable", {}, session)
    await ask("Page.navigate", {"url": "data:text/html,<title>x</title>"}, session)
    assert "error" in await ask("Page.nothing", {}, session)
    assert "error" in await ask("Nothing.nothing", {})
    assert "error" in await ask("Page.enable", {}, "no-such-session")
    assert any('"sessionId"' in text for text in seen if text.startswith('{"method":'))
    await ws.close()


async def test_a_page_that_makes_events_is_not_a_driver_at_work(real_cloud: Cloud) -> None:
    """Its console talks on and on: bytes come out, and the clock of the idle timeout stands."""
    record = await real_cloud.create(browser="headless-shell")
    ws = await connect(real_cloud, record["websocketUrl"])
    targets = await call(ws, "Target.getTargets", {})
    page = next(info["targetId"] for info in targets["targetInfos"] if info["type"] == "page")
    attached = await call(ws, "Target.attachToTarget", {"targetId": page, "flatten": True})
    session = attached["sessionId"]
    await call(ws, "Runtime.enable", {}, session)
    script = {"expression": "setInterval(() => console.log('x'), 5)"}
    await call(ws, "Runtime.evaluate", script, session)
    found = real_cloud.parts.sessions.live(record["id"])
    assert found is not None
    last, messages = found.traffic.last, found.traffic.messages_out
    assert last > 0
    await until(lambda: found.traffic.messages_out > messages + 20)
    assert found.traffic.last == last
    await ws.close()
