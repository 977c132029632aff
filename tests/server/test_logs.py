"""The server's log: what each line carries, how it is written, and what never stands in it."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from browsercloud.server.logs import about, current_ids, formatter
from browsercloud.testing import FailingEngine
from tests.server.conftest import Cloud, StartCloud
from tests.serving import KEY as SERVE_KEY
from tests.serving import Serving, serving

ONE, OTHER = str(uuid.uuid4()), str(uuid.uuid4())


class Lines(logging.Handler):
    """Keeps what it would write."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(form)
        self.written: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        self.written.append(self.format(record))

    def read(self) -> list[dict[str, Any]]:
        """Every line as an object."""
        return [json.loads(line) for line in self.written]

    def last(self) -> dict[str, Any]:
        """The last one."""
        return self.read()[-1]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What is logged, as JSON."""
    yield from collect(Lines(formatter(for_people=False)))


def collect(handler: Lines) -> Iterator[Lines]:
    """Let the package's lines go there for a while."""
    logger = logging.getLogger("browsercloud")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.setLevel(before)
    logger.removeHandler(handler)


log = logging.getLogger("browsercloud.of_this_test")


def test_a_line_is_an_object(lines: Lines) -> None:
    """Time in UTC, level, logger and message, in this order; nothing that is not known."""
    log.warning("what %s", "happened")
    (line,) = lines.read()
    assert list(line) == ["time", "level", "logger", "message"]
    assert re.fullmatch(r"[0-9-]{10}T[0-9:.]+Z", line["time"])
    said = (line["level"], line["logger"], line["message"])
    assert said == ("warning", "browsercloud.of_this_test", "what happened")


def test_an_exception_is_a_field_without_values(lines: Lines) -> None:
    """The whole traceback in one line, and none of the variables, which may hold anything."""
    password = "of-great-secrecy"
    try:
        raise ZeroDivisionError(len(password))
    except ZeroDivisionError:
        log.exception("it failed")
    line = lines.last()
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ZeroDivisionError: 16")
    assert password not in lines.written[0]
    assert "\n" not in lines.written[0]


def test_lines_carry_what_they_are_about(lines: Lines) -> None:
    """The innermost block counts, and nothing is left when it ends."""
    with about(request_id="r", session_id=ONE):
        log.info("outer")
        with about(session_id=OTHER):
            log.info("inner")
        log.info("outer again")
    log.info("after")
    found = [(line.get("requestId"), line.get("sessionId")) for line in lines.read()]
    assert found == [("r", ONE), ("r", OTHER), ("r", ONE), (None, None)]


def test_a_line_that_names_its_session_carries_it(lines: Lines) -> None:
    """Also when it is logged on behalf of another one."""
    with about(request_id="r", session_id=OTHER):
        log.info("session %s: releasing", ONE)
    line = lines.last()
    assert (line["requestId"], line["sessionId"]) == ("r", ONE)
    assert line["message"] == f"session {ONE}: releasing"


async def test_ids_reach_tasks_and_not_what_comes_later(lines: Lines) -> None:
    """A task of a request is part of it; what goes off after the answer is not."""
    over, later = asyncio.Event(), asyncio.Event()

    def late() -> None:
        log.info("late")
        later.set()

    async def work() -> None:
        log.info("during")
        await over.wait()
        log.info("afterwards")

    with about(request_id="r", session_id=ONE):
        task = asyncio.create_task(work())
        asyncio.get_running_loop().call_later(0.01, late)
        await asyncio.sleep(0)
    over.set()
    await task
    await later.wait()
    found = {line["message"]: line.get("requestId") for line in lines.read()}
    assert found == {"during": "r", "afterwards": None, "late": None}
    assert current_ids() == {}


@pytest.mark.parametrize(
    "text",
    [
        "GET /?token=SECRET&x=1",
        "ws://h/v1/sessions/x/cdp?apiKey=SECRET",
        "%3Ftoken%3DSECRET",
        "cannot connect to ws://127.0.0.1:1/devtools/browser/SECRET",
        "bc_SECRET" + "x" * 40,
        f"http://h/v1/sessions/x/webdriver/SECRET{'x' * 40}/session",
        f"http://h/v1/sessions/x/webdriver%2FSECRET{'x' * 40}%2Fsession",
        f"no {'0' * 32}.0123456789abcdef.SECRET{'x' * 40} here",
    ],
)
def test_a_foreign_errors_secret_is_taken_out(lines: Lines, text: str) -> None:
    """The last guard, for words that no line of ours says."""
    try:
        raise OSError(text)
    except OSError as error:
        log.exception("failed: %s", error)
    assert "SECRET" not in lines.written[0]
    assert "failed: " in lines.last()["message"]


def test_people_get_a_line_that_reads_well() -> None:
    """Time, level, message and ids; what the message says already is not repeated."""
    fields = {"method": "GET", "path": "/x", "status": 200, "milliseconds": 3}
    lines = Lines(formatter(for_people=True))
    for _ in collect(lines):
        with about(request_id="r", session_id=ONE):
            log.info("GET /x 200 3 ms", extra=fields)
    (line,) = lines.written
    assert re.match(
        r"[0-9:.]{15} \[info +\] GET /x 200 3 ms +\[browsercloud\.of_this_test\] ", line
    )
    assert line.endswith(f"requestId=r sessionId={ONE}")
    assert "\x1b" not in line


def test_a_terminal_gets_colours() -> None:
    """The same words between escape sequences."""
    lines = Lines(formatter(for_people=True, colour=True))
    for _ in collect(lines):
        log.error("red")
    assert re.search(r"\x1b\[3[0-9]m", lines.written[0])
    assert "red" in lines.written[0]


async def test_a_request_and_its_session_are_in_its_lines(cloud: Cloud, lines: Lines) -> None:
    """The access line has its fields; a close says which request asked for it."""
    record = await cloud.create()
    path = f"/v1/sessions/{record['id']}"
    await cloud.call("DELETE", path, headers={"X-Request-Id": "mine"})
    found = {line["message"]: line for line in lines.read() if line.get("requestId") == "mine"}
    (released,) = [line for words, line in found.items() if "releasing (user_requested)" in words]
    assert released["sessionId"] == record["id"]
    (access,) = [line for line in found.values() if line["logger"] == "browsercloud.access"]
    assert (access["method"], access["path"], access["status"]) == ("DELETE", path, 200)
    assert access["sessionId"] == record["id"]
    assert isinstance(access["milliseconds"], int)


async def test_a_session_that_ends_by_itself_belongs_to_no_request(
    cloud: Cloud, lines: Lines
) -> None:
    """Its timer was set in a create that was answered long ago."""
    record = await cloud.create(timeout=50)
    ended = cloud.parts.sessions.live(record["id"])
    assert ended is not None
    await ended.ended
    while not any("releasing (timeout)" in line["message"] for line in lines.read()):
        await asyncio.sleep(0.005)
    (line,) = [line for line in lines.read() if "releasing (timeout)" in line["message"]]
    assert line["sessionId"] == record["id"]
    assert "requestId" not in line


async def test_a_hubs_lines_carry_the_session(start_cloud: StartCloud, lines: Lines) -> None:
    """That of New Session, which has chosen the id itself, and those of a command."""
    cloud = await start_cloud(FailingEngine())
    body = {"capabilities": {"alwaysMatch": {}}}
    await cloud.call("POST", "/wd/hub/session", json=body, headers={"X-Request-Id": "new"})
    (row,) = (await cloud.call("GET", "/v1/sessions"))[1]["sessions"]
    hub_id = f"{row['id'].replace('-', '')}.x.{'t' * 43}"
    url = f"/wd/hub/session/{hub_id}/url"
    assert (await cloud.call("GET", url, headers={"X-Request-Id": "go"}))[0] == 401
    of_new = [line for line in lines.read() if line.get("requestId") == "new"]
    assert row["id"] in {line.get("sessionId") for line in of_new}
    (access,) = [line for line in lines.read() if line.get("requestId") == "go"]
    assert access["sessionId"] == row["id"]
    assert access["path"] == f"/wd/hub/session/{row['id'].replace('-', '')}.…/url"


async def test_an_inner_failure_has_its_ids(
    cloud: Cloud, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line with the traceback can be found by the id that the caller was given."""

    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cloud.store, "get", fail)
    _, answer = await cloud.call("GET", f"/v1/sessions/{ONE}")
    (line,) = [line for line in lines.read() if line["level"] == "error"]
    assert (line["requestId"], line["sessionId"]) == (answer["error"]["requestId"], ONE)
    assert "ZeroDivisionError" in line["exception"]


@pytest.mark.parametrize(("form", "is_json"), [("auto", True), ("json", True), ("human", False)])
def test_a_process_logs_in_the_form_that_is_set(form: str, *, is_json: bool) -> None:
    """Where there is no terminal, auto is JSON; warnings of Python are lines, too; stdout stays."""
    program = (
        "import logging, warnings, sys; from browsercloud.server import logs;"
        f"logs.set_up({form!r}, 'warning');"
        "logging.getLogger('a').info('quiet'); logging.getLogger('a').warning('loud');"
        "warnings.warn('careful'); print('out')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "out\n"
    assert "quiet" not in done.stderr
    assert "loud" in done.stderr
    assert "careful" in done.stderr
    if is_json:
        assert [json.loads(line)["level"] for line in done.stderr.splitlines()] == ["warning"] * 2
    else:
        assert not done.stderr.startswith("{")


WRONG = "a-wrong-key-that-nobody-may-read"
USER_AGENT = "an-agent-of-mine"


def raw(server: Serving, request: bytes) -> None:
    """Send bytes, and wait for the answer."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        assert connection.recv(1000)


def webdriver_paths(session_id: str, token: str) -> Iterator[str]:
    """Where WebDriver has its token in the path, also encoded in every way that is understood."""
    bridge = f"/v1/sessions/{session_id}/webdriver/{token}/session/x/url"
    hub = f"/wd/hub/session/{session_id.replace('-', '')}.x.{token}/url"
    for path in (bridge, hub, hub.replace("-", ""), f"/wd/hub/session/{session_id}.x.{token}/url"):
        yield path
        for slash in ("%2F", "%2f", "%252F"):
            yield "/" + path[1:].replace("/", slash)
        yield path.replace("session", "%73ession").replace("webdriver", "web%64river")
    yield bridge.replace("/webdriver/", "//webdriver//")
    yield bridge.removesuffix("/session/x/url")


async def knock(server: Serving, http: aiohttp.ClientSession) -> list[str]:
    """Use the server with secrets in every place; returns those that were in use."""
    mine = {"x-api-key": SERVE_KEY}
    options = {"browser": "headless-shell", "userAgent": USER_AGENT}
    async with http.post(f"{server.url}/v1/sessions", headers=mine, json=options) as reply:
        record = await reply.json()
        assert reply.status == 201, record
    token = record["websocketUrl"].partition("token=")[2]
    one = f"{server.url}/v1/sessions/{record['id']}"
    basic = base64.b64encode(f"user:{WRONG}".encode()).decode()
    for url, headers in (
        (f"{one}?token={token}", {}),
        (f"{one}?token={WRONG}", {}),
        (f"{one}?apiKey={SERVE_KEY}&x=1", {}),
        (f"{one}%3Ftoken={token}", {}),
        (f"{one}/live?token={token}", {}),
        (f"{one}/json/version?token={token}", {}),
        (f"{server.url}/v1/sessions?apiKey={SERVE_KEY}", {}),
        (f"{server.url}/nowhere?token={token}", {"x-api-key": WRONG}),
        (f"{server.url}/v1/sessions", {"Authorization": f"Bearer {WRONG}"}),
        (f"{server.url}/v1/sessions", {"Authorization": f"Basic {basic}"}),
        (f"{server.url}/v1/sessions", {"steel-api-key": SERVE_KEY}),
        (record["debugUrl"], {}),
        (record["sessionViewerUrl"], {}),
        (f"{server.url}/sessions/{record['id']}/screenshot?token={token}", {}),
        (f"{server.url}/?token={token}", {}),
        (f"{server.url}/metrics?token={WRONG}", mine),
        *((f"{server.url}{path}", {}) for path in webdriver_paths(record["id"], token)),
    ):
        async with http.get(URL(url, encoded=True), headers=headers) as reply:
            await reply.read()
    for url in (
        record["websocketUrl"],
        f"{one}/cdp?apiKey={SERVE_KEY}",
        f"{one}/cdp?token={token}&apiKey={WRONG}",
        f"{server.url}/?sessionId={record['id']}&apiKey={SERVE_KEY}",
        f"{server.url}/v1/leases/{ONE}?apiKey={SERVE_KEY}",
    ):
        async with http.ws_connect(url):
            pass
    for url in (f"{one}/cdp?token={WRONG}", f"{server.url}/?sessionId={ONE}&apiKey={WRONG}"):
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await http.ws_connect(url)
    body = {"timeout": -1, "proxy": f"http://u:{WRONG}@p", "token": WRONG}
    async with http.post(f"{server.url}/v1/sessions", headers=mine, json=body) as reply:
        assert reply.status == 400
    raw(server, f"GET /?token={token} HTTP/1.1\r\nHost: a\r\nx-api-key {WRONG}\r\n\r\n".encode())
    raw(server, f"GET http://u:{WRONG}@h/?token={token} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    raw(server, f"{WRONG}\r\n\r\n".encode())
    return [SERVE_KEY, WRONG, token, basic, USER_AGENT]


@pytest.mark.parametrize("form", ["json", "human"])
async def test_no_secret_is_ever_in_the_log(root: Path, form: str) -> None:
    """Not at the lowest level, whatever the route, the place and the mistake; nor an endpoint."""
    with serving(root, "--log-level", "debug", "--log-format", form) as server:
        async with aiohttp.ClientSession() as http:
            secrets = await knock(server, http)
    written = (root / "serve.log").read_text()
    assert "releasing (shutdown)" in written
    assert "refused what a client sent" in written
    assert "/v1/sessions" in written
    assert [secret for secret in secrets if secret in written] == []
    assert not re.search(r"devtools/browser/\w|[?&]\w+=", written)
    if form == "json":
        assert all("message" in json.loads(line) for line in written.splitlines())
