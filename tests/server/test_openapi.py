"""`/openapi.json` and `/docs`: the interface, made from the table and the models."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import attrs
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from browsercloud.cdp.connection import CdpConnection
from browsercloud.models import ReleaseReason
from browsercloud.options import LATER_OPTIONS, SessionOptions
from browsercloud.server.openapi import STATUS_OF, describe
from browsercloud.server.routes import TABLE
from browsercloud.server.trust import Opens
from browsercloud.testing import FailingEngine, IdleEngine
from browsercloud.wire import ASKS_FOR_NOTHING, camel
from tests.server.conftest import KEY, OTHER_KEY, Cloud, StartCloud, Upstream

SOMEBODY = "6f1c5e7a-0000-4000-8000-000000000000"

DESCRIBED = [row for row in TABLE if not row.w3c]


def test_webdriver_is_left_to_its_own_standard() -> None:
    """Its errors and statuses are others; the README says where it is."""
    left_out = {outside(row.path) for row in TABLE if row.w3c}
    assert any("/wd/hub/" in path for path in left_out)
    assert not [path for path in document()["paths"] if "webdriver" in path or "/wd/hub" in path]


@cache
def document() -> dict[str, Any]:
    """The document."""
    return describe(TABLE, "1")


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every method, path and operation of it."""
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def outside(path: str) -> str:
    """A path of the table as the document spells it."""
    return re.sub(r"{(\w+)}", lambda name: f"{{{camel(name[1])}}}", path)


def schema(name: str) -> dict[str, Any]:
    """A model of the document."""
    found: dict[str, Any] = document()["components"]["schemas"][name]
    return found


def resolve(thing: dict[str, Any]) -> dict[str, Any]:
    """What a reference stands for."""
    while "$ref" in thing:
        found: Any = document()
        for step in thing["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        thing = found
    return thing


def check(method: str, path: str, status: int, value: Any) -> None:
    """Fail unless the document tells this answer: status, shape, and every field by its name."""
    response = resolve(document()["paths"][path][method.lower()]["responses"][str(status)])
    told = response["content"]["application/json"]["schema"]
    whole = {**told, "components": document()["components"]}
    checker = Draft202012Validator.FORMAT_CHECKER
    Draft202012Validator(whole, format_checker=checker).validate(value)
    model = resolve(told)
    if status < 400:
        assert sorted(model["properties"]) == sorted(value)


def test_the_document_is_openapi() -> None:
    """By the standard's own schema, and it is JSON."""
    OpenAPIV31SpecValidator(json.loads(json.dumps(document()))).validate()


def test_the_document_has_every_route_and_no_other() -> None:
    """Compared both ways, so that neither can be forgotten."""
    told = {(method, path) for method, path, _ in operations()}
    assert told == {(row.method, outside(row.path)) for row in DESCRIBED}


def test_every_operation_says_what_it_is_for() -> None:
    """A summary that is a sentence, an id of its own, and the parameters of its path."""
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(ids) == len(set(ids))
    for _, path, operation in operations():
        assert operation["summary"].endswith("."), operation["operationId"]
        named = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
        assert named == re.findall(r"{(\w+)}", path)


def test_security_follows_the_guard() -> None:
    """A key, a token where one opens the route, the key in a query where it is a socket."""
    for row in DESCRIBED:
        operation = document()["paths"][outside(row.path)][row.method.lower()]
        names = {name for one in operation["security"] for name in one}
        header = set() if row.opens is Opens.ANYONE else {"key", "steelKey", "bearer", "basic"}
        token = {"token"} if row.opens is Opens.SESSION else set()
        query = {"keyInQuery"} if "101" in operation["responses"] else set()
        assert names == header | token | query, row.path
        asks = bool(names) or row.path == "/login"
        assert ("401" in operation["responses"]) is asks


def test_bodies_have_the_options_and_none_that_is_refused() -> None:
    """Every option of the model is there under its wire name; of a later one what is no wish."""
    fields = {camel(each.name) for each in attrs.fields(SessionOptions)}
    told = set(schema("CreateRequest")["properties"])
    steel = {"isSelenium", *ASKS_FOR_NOTHING}
    assert told == fields | {"sessionId", "leaseId", "idleTimeout"} | steel
    assert told & set(LATER_OPTIONS) <= set(ASKS_FOR_NOTHING)
    assert schema("CreateRequest")["additionalProperties"] is False


def test_bounds_units_and_defaults_are_those_of_the_models() -> None:
    """Durations in milliseconds; what a validator knows the document says."""
    told = schema("CreateRequest")["properties"]
    timeout = told["timeout"]
    assert timeout["type"] == ["integer", "null"]
    assert (timeout["exclusiveMinimum"], timeout["maximum"]) == (0, 86_400_000)
    assert timeout["default"] == 300_000
    assert told["metadata"]["maxProperties"] == 50
    assert told["headless"]["default"] is True
    width = schema("Dimensions")["properties"]["width"]
    assert (width["type"], width["minimum"], width["maximum"]) == ("integer", 100, 8192)
    assert schema("ReleaseReason")["enum"] == [str(reason) for reason in ReleaseReason]
    assert schema("ExtendRequest")["required"] == ["timeout"]
    assert schema("Session")["properties"]["createdAt"]["format"] == "date-time"


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ({}, True),
        ({"timeout": 1, "name": None}, True),
        ({"timeout": 0}, False),
        ({"timeout": 86_400_000}, True),
        ({"timeout": 86_400_001}, False),
        ({"timeout": 1.5}, False),
        ({"idleTimeout": 1.5}, True),
        ({"idleTimeout": 0}, False),
        ({"idleTimeout": 1, "inactivityTimeout": 2}, False),
        ({"dimensions": {"width": 100, "height": 8192}}, True),
        ({"dimensions": {"width": 99, "height": 8193}}, False),
        ({"dimensions": {"width": 100}}, False),
        ({"browser": "headless-shell", "headless": True}, True),
        ({"browser": "headless-shell", "headless": False}, False),
        ({"browser": "netscape"}, False),
        ({"userAgent": " x "}, True),
        ({"userAgent": " "}, False),
        ({"userAgent": "é"}, False),
        ({"name": "x" * 1000}, True),
        ({"name": "x" * 1001}, False),
        ({"metadata": {str(n): "x" for n in range(50)}}, True),
        ({"metadata": {str(n): "x" for n in range(51)}}, False),
        ({"metadata": {"a": 1}}, False),
        ({"deviceConfig": {"device": "mobile"}, "locale": "pt-BR", "timezone": "Asia/Tokyo"}, True),
        ({"deviceConfig": {"device": "tv"}}, False),
        ({"locale": "qq-QQ"}, False),
        ({"timezone": "Mars/Olympus"}, False),
        ({"geoLocation": "US"}, True),
        ({"geoLocation": "XX"}, False),
        ({"geoLocation": {"latitude": 1, "longitude": 2}}, True),
        ({"geoLocation": {"latitude": 91, "longitude": 2}}, False),
        ({"extraHeaders": {"X-Key": "a b"}}, True),
        ({"extraHeaders": {"Host": "a"}}, False),
        ({"extraHeaders": {"X": "é"}}, False),
        ({"permissions": ["camera", "midi"]}, True),
        ({"permissions": ["fly"]}, False),
        ({"permissions": ["midi", "midi"]}, False),
        ({"startUrl": "https://example.com/a?b=c"}, True),
        ({"startUrl": "file:///etc/passwd"}, False),
        ({"proxy": "http://a"}, False),
        ({"blockAds": False, "useProxy": None}, True),
        ({"blockAds": 0}, False),
        ({"concurrency": 1}, True),
        ({"concurrency": 2}, False),
        ({"optimizeBandwidth": {"blockImages": False}}, True),
        ({"optimizeBandwidth": {"blockImages": True}}, False),
        ({"sessionContext": {"cookies": []}}, True),
        ({"sessionContext": {"cookies": [{"name": "a", "value": "b", "url": "http://a/"}]}}, True),
        ({"sessionContext": {"cookies": [{"name": "a"}]}}, False),
        ({"sessionContext": {"localStorage": {"https://a.b": {"c": "d"}}}}, True),
        ({"sessionContext": {"localStorage": {"https://a.b": {"c": 1}}}}, False),
        ({"sessionContext": {"surprise": {}}}, False),
        ({"projectId": "x"}, False),
        ({"isSelenium": True}, True),
        ({"isSelenium": True, "adapter": "puppeteer"}, False),
        ({"sessionId": SOMEBODY}, True),
    ],
)
async def test_the_schema_and_the_reader_agree(cloud: Cloud, value: Any, *, good: bool) -> None:
    """What the document calls good is made, and what it does not is refused."""
    whole = {**schema("CreateRequest"), "components": document()["components"]}
    status, _ = await cloud.call("POST", "/v1/sessions", json=value)
    assert Draft202012Validator(whole).is_valid(value) is good is (status == 201)


async def test_real_answers_are_as_told(start_cloud: StartCloud) -> None:
    """A session's whole life, checked against the schemas of its answers, field by field."""
    cloud = await start_cloud()
    one = "/v1/sessions/{sessionId}"
    options = {"timeout": 5000, "idleTimeout": 60, "metadata": {"a": "b"}, "userAgent": "x"}
    status, record = await cloud.call("POST", "/v1/sessions", json=options)
    check("POST", "/v1/sessions", status, record)
    address = f"/v1/sessions/{record['id']}"
    for method, path, more in (
        ("GET", one, {}),
        ("POST", f"{one}/extend", {"json": {"timeout": 1000}}),
        ("DELETE", one, {}),
        ("POST", f"{one}/release", {}),
        ("GET", one, {}),
    ):
        status, value = await cloud.call(method, path.replace(one, address), **more)
        assert status == 200
        check(method, path, status, value)
    status, waiting = await cloud.call("POST", "/v1/sessions?wait=false")
    check("POST", "/v1/sessions", status, waiting)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/release")):
        status, value = await cloud.call(method, f"/v1/sessions{path}")
        check(method, f"/v1/sessions{path}", status, value)
        for session in value.get("sessions", ()):
            assert sorted(session) == sorted(schema("Session")["properties"])
    for path in ("/healthz", "/readyz"):
        check("GET", path, *await cloud.call("GET", path, key=None))


async def test_a_failed_start_is_as_told(start_cloud: StartCloud) -> None:
    """Its record too, with what went wrong."""
    cloud = await start_cloud(FailingEngine())
    status, value = await cloud.call("POST", "/v1/sessions")
    assert status == 502
    check("POST", "/v1/sessions", status, value)
    status, value = await cloud.call("GET", "/v1/sessions")
    check("GET", "/v1/sessions", status, value)
    (record,) = value["sessions"]
    assert sorted(record["error"]) == sorted(schema("SessionFailure")["properties"])


async def test_errors_are_as_told(cloud: Cloud) -> None:
    """Body, status and code of each are in the document for that route."""
    one = "/v1/sessions/{sessionId}"
    record = await cloud.create(name="first")
    token = cloud.token(record)
    mine = f"/v1/sessions/{record['id']}"
    gone = f"/v1/sessions/{SOMEBODY}"
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Origin": "http://evil.example"}
    clash = {"sessionId": record["id"], "name": "second"}
    for wanted, method, path, sent, more in (
        (400, "POST", "/v1/sessions", "/v1/sessions", {"json": {"timeout": -1}}),
        (400, "GET", "/v1/sessions", "/v1/sessions?limit=0", {}),
        (400, "GET", "/v1/sessions", "/v1/sessions?surprise=1", {}),
        (401, "GET", "/v1/sessions", "/v1/sessions", {"key": None}),
        (401, "GET", one, f"{mine}?token=x{token}", {"key": None}),
        (403, "GET", f"{one}/cdp", f"{mine}/cdp", {"headers": upgrade}),
        (404, "GET", one, gone, {}),
        (404, "GET", one, mine, {"key": OTHER_KEY}),
        (404, "DELETE", one, "/v1/sessions/no-id", {}),
        (409, "POST", "/v1/sessions", "/v1/sessions", {"json": clash}),
        (413, "POST", "/v1/sessions", "/v1/sessions", {"data": io.BytesIO(b" " * (2**25 + 1))}),
        (426, "GET", f"{one}/cdp", f"{mine}/cdp", {}),
        (426, "GET", "/v1/leases/{leaseId}", f"/v1/leases/{SOMEBODY}", {}),
        (502, "GET", f"{one}/live", f"{mine}/live", {}),
        (404, "GET", "/pages/{name}", "/pages/none.js", {}),
    ):
        status, value = await cloud.call(method, sent, **more)
        assert status == wanted, (sent, value)
        check(method, path, status, value)
        assert STATUS_OF[value["error"]["code"]] == status
    await cloud.call("DELETE", mine)
    status, value = await cloud.call("GET", f"{mine}/live")
    check("GET", f"{one}/live", status, value)
    assert (status, value["error"]["releaseReason"]) == (410, "user_requested")


async def test_sockets_are_told_as_101(start_cloud: StartCloud, upstream: Upstream) -> None:
    """Which routes they are, and that they do switch."""
    sockets = {path for _, path, operation in operations() if "101" in operation["responses"]}
    one = "/v1/sessions/{sessionId}"
    assert sockets == {
        *(f"{one}/{path}" for path in ("cdp", "playwright", "viewer/ws")),
        *("/", "/puppeteer", "/v1/leases/{leaseId}"),
    }
    cloud = await start_cloud(IdleEngine(endpoint=upstream.endpoint))
    record = await cloud.create()
    for path in (
        f"/v1/sessions/{record['id']}/cdp?apiKey={KEY}",
        f"/?sessionId={record['id']}&apiKey={KEY}",
        f"/puppeteer?capabilities=%7B%7D&apiKey={KEY}",
        f"/v1/leases/{SOMEBODY}?apiKey={KEY}",
    ):
        async with cloud.http.ws_connect(cloud.url + path) as socket:
            assert not socket.closed


async def test_anyone_may_read_the_interface(cloud: Cloud) -> None:
    """It is made of the program alone; what runs is not in it."""
    record = await cloud.create(name="a-name")
    status, served = await cloud.call("GET", "/openapi.json", key=None)
    assert (status, served["openapi"]) == (200, "3.1.0")
    assert served["paths"] == document()["paths"]
    text = json.dumps(served)
    assert not [word for word in (KEY, "a-name", record["id"], cloud.host) if word in text]


async def test_the_page_asks_nobody_else(cloud: Cloud) -> None:
    """It names no other host, and its policy allows none; what it loads is there."""
    async with cloud.http.get(f"{cloud.url}/docs") as reply:
        page = await reply.text()
        assert (reply.status, reply.content_type) == (200, "text/html")
        assert "default-src 'none'; script-src 'self'" in reply.headers["Content-Security-Policy"]
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert "/openapi.json" in loaded
    for path in set(loaded) - {"data:,"}:
        assert path.startswith("/")
        async with cloud.http.get(cloud.url + path) as reply:
            assert reply.status == 200
            assert "://" not in await reply.text() or path == "/openapi.json"


async def test_what_is_no_http_is_refused_in_the_same_shape(cloud: Cloud) -> None:
    """JSON with the usual fields, without a word of what was sent."""
    host, port = cloud.host.split(":")
    for raw in (
        b"GET /?token=SECRET HTTP/1.1\r\nHost: a\r\nx-api-key SECRET\r\n\r\n",
        b"\x16\x03\x01SECRET\r\n\r\n",
        b"GET /" + b"SECRET" * 2000 + b" HTTP/1.1\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(raw)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        status = int(head.split()[1])
        assert status == 400
        answer = json.loads(body)
        check("GET", "/healthz", status, answer)
        assert f"X-Request-Id: {answer['error']['requestId']}".encode() in head
        assert b"SECRET" not in head + body


async def test_the_page_shows_every_operation(real_cloud: Cloud) -> None:
    """In a real browser, under its own policy: no error, and all of the document is on it."""
    record = await real_cloud.create(browser="headless-shell")
    found = await shown(record["websocketUrl"], f"{real_cloud.url}/docs#post_v1_sessions")
    assert found["problem"] == ""
    assert found["open"] == ["post_v1_sessions"]
    assert sorted(found["operations"]) == sorted(one["operationId"] for *_, one in operations())
    assert sorted(found["models"]) == sorted(document()["components"]["schemas"])
    assert f"curl -X POST '{real_cloud.url}/v1/sessions'" in found["example"]


SHOWN = """new Promise((resolve) => {
  const ids = (what) => [...document.querySelectorAll(what)].map((one) => one.id);
  const look = () => document.querySelector("[data-models]:not([hidden])") ? resolve({
    problem: document.querySelector("[data-notice]").textContent,
    open: ids("details[open]"),
    operations: ids(".operation"),
    models: ids(".model").map((id) => id.replace("model-", "")),
    example: document.querySelector(".operation[open] pre").textContent,
  }) : setTimeout(look, 20);
  look();
})"""


async def shown(endpoint: str, url: str) -> Any:
    """What the page at *url* shows in a tab of this browser."""
    async with await CdpConnection.open(endpoint, timeout=10) as browser:
        created = await browser.send("Target.createTarget", {"url": "about:blank"}, timeout=10)
        wanted = {"targetId": created["targetId"], "flatten": True}
        tab = (await browser.send("Target.attachToTarget", wanted, timeout=10))["sessionId"]
        # It answers when the page is there, so that what follows is asked of that page.
        await browser.send("Page.navigate", {"url": url}, tab, timeout=10)
        asked = {"expression": SHOWN, "awaitPromise": True, "returnByValue": True}
        value = await browser.send("Runtime.evaluate", asked, tab, timeout=20)
    return value["result"]["value"]
