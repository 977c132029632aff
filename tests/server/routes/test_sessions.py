"""`/v1/sessions`: what it accepts, what it refuses, and what it answers."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest

from browsercloud.options import LATER_OPTIONS
from browsercloud.testing import NeverEngine
from tests.server.conftest import KEY, OTHER_KEY, Cloud, StartCloud, until

NOBODY = "00000000-0000-4000-8000-000000000000"

BAD_BODIES: list[tuple[str, bytes, str]] = [
    ("unknown option", b'{"colour": "red"}', "colour"),
    ("misspelt option", b'{"time_out": 1000}', "time_out"),
    ("timeout 0", b'{"timeout": 0}', "timeout"),
    ("timeout negative", b'{"timeout": -1}', "timeout"),
    ("timeout beyond 24 h", b'{"timeout": 300000000}', "timeout"),
    ("timeout huge", b'{"timeout": 1e300}', "timeout"),
    ("timeout NaN", b'{"timeout": NaN}', ""),
    ("timeout as text", b'{"timeout": "300000"}', "timeout"),
    ("timeout as truth", b'{"timeout": true}', "timeout"),
    ("timeout with a fraction", b'{"timeout": 1.5}', "timeout"),
    ("headless as text", b'{"headless": "false"}', "headless"),
    ("unknown browser", b'{"browser": "netscape"}', "browser"),
    ("a window without one", b'{"browser": "headless-shell", "headless": false}', "headless"),
    ("dimensions as list", b'{"dimensions": [1, 2]}', "dimensions"),
    ("width missing", b'{"dimensions": {"height": 600}}', "dimensions.width"),
    ("width too small", b'{"dimensions": {"width": 1, "height": 600}}', "dimensions.width"),
    ("width as text", b'{"dimensions": {"width": "800", "height": 600}}', "dimensions.width"),
    ("depth", b'{"dimensions": {"width": 800, "height": 600, "depth": 1}}', "dimensions.depth"),
    ("user agent with a line break", b'{"userAgent": "a\\r\\nb"}', "userAgent"),
    ("metadata with a number", b'{"metadata": {"a": 1}}', "metadata"),
    ("id no UUID", b'{"sessionId": "../../etc"}', "sessionId"),
    ("id a number", b'{"sessionId": 7}', "sessionId"),
    ("lease no UUID", b'{"leaseId": "mine"}', "leaseId"),
    ("a list", b"[]", ""),
    ("a text", b'"create"', ""),
    ("null", b"null", ""),
    ("malformed", b'{"timeout": ', ""),
    ("two values", b"{}{}", ""),
    ("a field twice", b'{"name": "a", "name": "b"}', ""),
    ("not UTF-8", b'{"name": "\xff"}', ""),
    ("half a surrogate", b'{"name": "\\ud800"}', ""),
    ("nested without end", b"[" * 100_000, ""),
    ("a number without end", b'{"timeout": ' + b"9" * 5_000 + b"}", ""),
]


@pytest.mark.parametrize(
    ("body", "path"), [case[1:] for case in BAD_BODIES], ids=[case[0] for case in BAD_BODIES]
)
async def test_a_bad_body_is_refused_with_its_path(cloud: Cloud, body: bytes, path: str) -> None:
    """Whatever is wrong with a body is 400 with the field's path, and nothing is started."""
    headers = {"Content-Type": "application/json"}
    status, answer = await cloud.call("POST", "/v1/sessions", data=body, headers=headers)
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert path in [problem["path"] for problem in answer["error"]["details"]]
    assert answer["message"] == answer["error"]["message"]
    await nothing_was_started(cloud)


@pytest.mark.parametrize("option", sorted(LATER_OPTIONS))
async def test_an_option_not_offered_is_refused_by_name(cloud: Cloud, option: str) -> None:
    """An option of the contract that this version lacks is refused, never ignored."""
    status, answer = await cloud.call("POST", "/v1/sessions", json={option: "x"})
    assert (status, [problem["path"] for problem in answer["error"]["details"]]) == (400, [option])
    await nothing_was_started(cloud)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/sessions?limit=0",
        "/v1/sessions?limit=101",
        "/v1/sessions?limit=ten",
        "/v1/sessions?limit=1e1",
        "/v1/sessions?limit=5&limit=6",
        "/v1/sessions?status=alive",
        "/v1/sessions?cursorId=first",
        f"/v1/sessions?cursorId={NOBODY}",
        "/v1/sessions?state=live",
        "/v1/sessions?apiKey=x",
        "/healthz?verbose=1",
    ],
)
async def test_a_bad_parameter_is_refused_with_its_name(cloud: Cloud, path: str) -> None:
    """A query is as strict as a body."""
    status, answer = await cloud.call("GET", path)
    name = path.partition("?")[2].partition("=")[0]
    assert (status, answer["error"]["details"][0]["path"]) == (400, name)


async def test_another_charset_is_refused(cloud: Cloud) -> None:
    """JSON is UTF-8; a body that says otherwise is not guessed at."""
    headers = {"Content-Type": "application/json; charset=utf-16"}
    status, _ = await cloud.call("POST", "/v1/sessions", data=b"{}", headers=headers)
    assert status == 400
    await nothing_was_started(cloud)


async def test_an_empty_body_is_all_defaults(cloud: Cloud) -> None:
    """No body with a JSON content type makes a session with every default."""
    headers = {"Content-Type": "application/json"}
    status, record = await cloud.call("POST", "/v1/sessions", headers=headers)
    assert (status, record["status"], record["timeout"]) == (201, "live", 300_000)
    assert (record["dimensions"], record["browser"]) == ({"width": 1280, "height": 720}, "chromium")


async def test_a_record_has_the_urls_of_the_address_that_was_used(cloud: Cloud) -> None:
    """URLs are built from the request's Host, carry a token and never the key."""
    port = cloud.host.rpartition(":")[2]
    async with cloud.http.post(
        f"http://localhost:{port}/v1/sessions", headers={"x-api-key": KEY}
    ) as reply:
        record = await reply.json()
    begin = f"ws://localhost:{port}/v1/sessions/{record['id']}/cdp?token="
    assert record["websocketUrl"].startswith(begin)
    assert record["debugUrl"].startswith(f"http://localhost:{port}/sessions/{record['id']}?token=")
    assert "/viewer?token=" in record["sessionViewerUrl"]
    assert KEY not in json.dumps(record)


async def test_creating_again_with_the_same_id_makes_no_second_one(cloud: Cloud) -> None:
    """The same id and options is 200 with the same session; other options are a conflict."""
    wanted = str(uuid.uuid4())
    first = await cloud.create(sessionId=wanted, name="a")
    again, same = await cloud.call("POST", "/v1/sessions", json={"sessionId": wanted, "name": "a"})
    assert (again, same["websocketUrl"]) == (200, first["websocketUrl"])
    other, error = await cloud.call("POST", "/v1/sessions", json={"sessionId": wanted, "name": "b"})
    assert (other, error["error"]["code"]) == (409, "conflict")
    assert cloud.engine.starts == [wanted]


async def test_not_waiting_answers_at_once(start_cloud: StartCloud) -> None:
    """`wait=false` is 202 with a session that is still starting; release cancels the start."""
    cloud = await start_cloud(NeverEngine())
    status, record = await cloud.call("POST", "/v1/sessions?wait=false")
    assert (status, record["status"]) == (202, "starting")
    await until(lambda: bool(cloud.engine.starts))
    status, released = await cloud.call("DELETE", f"/v1/sessions/{record['id']}")
    assert (status, released["success"]) == (200, True)
    assert cloud.engine.cancelled == [record["id"]]


@pytest.mark.parametrize("cancellation", [False, True])
async def test_a_create_that_was_hung_up_on_can_be_released(
    start_cloud: StartCloud, *, cancellation: bool
) -> None:
    """The client goes away in the middle of create: its session is there to release by its id."""
    cloud = await start_cloud(NeverEngine(), handler_cancellation=cancellation)
    wanted = str(uuid.uuid4())
    creating = asyncio.create_task(cloud.call("POST", "/v1/sessions", json={"sessionId": wanted}))
    await until(lambda: bool(cloud.engine.starts))
    creating.cancel()
    await asyncio.wait({creating})
    status, released = await cloud.call("DELETE", f"/v1/sessions/{wanted}")
    assert (status, released["success"]) == (200, True)
    assert cloud.engine.cancelled == [wanted]


async def test_a_list_is_newest_first_in_pages(cloud: Cloud) -> None:
    """`cursorId` goes on strictly after that id; the last page has no cursor."""
    ids = [(await cloud.create())["id"] for _ in range(5)][::-1]
    _, first = await cloud.call("GET", "/v1/sessions?limit=3")
    assert [record["id"] for record in first["sessions"]] == ids[:3]
    assert (first["nextCursor"], first["totalCount"]) == (ids[2], 5)
    await cloud.call("DELETE", f"/v1/sessions/{ids[2]}")
    _, rest = await cloud.call("GET", f"/v1/sessions?limit=3&cursorId={ids[2]}")
    assert [record["id"] for record in rest["sessions"]] == ids[3:]
    assert rest["nextCursor"] is None
    _, empty = await cloud.call("GET", f"/v1/sessions?cursorId={ids[4]}")
    assert empty["sessions"] == []


async def test_a_list_filters_by_status_and_labels(cloud: Cloud) -> None:
    """`status` and every `metadata.KEY` must match."""
    mine = await cloud.create(metadata={"team": "a", "run": "1"})
    await cloud.create(metadata={"team": "b", "run": "1"})
    gone = await cloud.create(metadata={"team": "a", "run": "1"})
    await cloud.call("DELETE", f"/v1/sessions/{gone['id']}")
    path = "/v1/sessions?status=live&metadata.team=a&metadata.run=1"
    _, answer = await cloud.call("GET", path)
    assert [record["id"] for record in answer["sessions"]] == [mine["id"]]


async def test_a_list_holds_no_token(cloud: Cloud) -> None:
    """Nothing secret is in a listing; its socket URL still takes `&apiKey=` at its end."""
    record = await cloud.create()
    _, answer = await cloud.call("GET", "/v1/sessions")
    assert cloud.token(record) not in json.dumps(answer)
    assert answer["sessions"][0]["websocketUrl"].endswith("/cdp?")


async def test_a_released_session_is_still_found(cloud: Cloud) -> None:
    """The record of an ended session says why it ended; releasing again is fine and says so."""
    record = await cloud.create()
    path = f"/v1/sessions/{record['id']}"
    assert (await cloud.call("DELETE", path))[1]["alreadyEnded"] is False
    status, again = await cloud.call("POST", f"{path}/release", json={})
    assert (status, again["success"], again["alreadyEnded"]) == (200, True, True)
    _, ended = await cloud.call("GET", path)
    assert (ended["status"], ended["releaseReason"]) == ("released", "user_requested")
    assert cloud.engine.stops == [record["id"]]


async def test_releasing_an_id_never_seen_forbids_its_create(cloud: Cloud) -> None:
    """A release that overtakes its create is 404 and leaves a tombstone."""
    wanted = str(uuid.uuid4())
    status, answer = await cloud.call("DELETE", f"/v1/sessions/{wanted}")
    assert (status, answer["error"]["code"]) == (404, "session_not_found")
    status, answer = await cloud.call("POST", "/v1/sessions", json={"sessionId": wanted})
    assert (status, answer["error"]["code"]) == (409, "conflict")
    await nothing_was_started(cloud)


@pytest.mark.parametrize(("method", "path"), [("DELETE", ""), ("POST", "/release")])
async def test_release_all_ends_the_projects_sessions_only(
    cloud: Cloud, method: str, path: str
) -> None:
    """Another project's sessions live on."""
    mine = await cloud.create()
    _, other = await cloud.call("POST", "/v1/sessions", key=OTHER_KEY)
    status, answer = await cloud.call(method, f"/v1/sessions{path}")
    assert (status, answer["success"]) == (200, True)
    assert cloud.engine.stops == [mine["id"]]
    _, still = await cloud.call("GET", f"/v1/sessions/{other['id']}", key=OTHER_KEY)
    assert still["status"] == "live"


async def test_a_release_takes_no_options(cloud: Cloud) -> None:
    """A field in the body of a release is refused by its name, and the session lives on."""
    record = await cloud.create()
    path = f"/v1/sessions/{record['id']}"
    status, answer = await cloud.call("DELETE", path, json={"force": True})
    assert (status, answer["error"]["details"][0]["path"]) == (400, "force")
    assert (await cloud.call("GET", path))[1]["status"] == "live"


async def test_extend_sets_a_new_life_from_now(cloud: Cloud) -> None:
    """The answer has the new timeout in ms and the new end."""
    record = await cloud.create(timeout=60_000)
    path = f"/v1/sessions/{record['id']}/extend"
    status, longer = await cloud.call("POST", path, json={"timeout": 600_000})
    assert (status, longer["timeout"]) == (200, 600_000)
    assert longer["expiresAt"] > record["expiresAt"]


@pytest.mark.parametrize(
    "body", [{}, {"timeout": 0}, {"timeout": 10**9}, {"timeout": "1"}, {"t": 1}]
)
async def test_extend_is_as_strict_as_create(cloud: Cloud, body: dict[str, Any]) -> None:
    """A life that create would refuse is refused by extend."""
    record = await cloud.create()
    status, _ = await cloud.call("POST", f"/v1/sessions/{record['id']}/extend", json=body)
    assert status == 400


async def test_a_timeout_ends_the_session_and_says_so(cloud: Cloud) -> None:
    """The server's own clock ends it; what comes later is 410 with the reason."""
    record = await cloud.create(timeout=50)
    await until(lambda: cloud.engine.stops == [record["id"]])
    path = f"/v1/sessions/{record['id']}"
    status, answer = await cloud.call("POST", f"{path}/extend", json={"timeout": 1000})
    assert (status, answer["error"]["code"]) == (410, "session_ended")
    assert answer["error"]["releaseReason"] == "timeout"
    assert (await cloud.call("GET", f"{path}/live"))[0] == 410


@pytest.mark.parametrize("wanted", ["nobody", "..%2F..%2Fetc", "%00", NOBODY])
async def test_a_session_that_is_not_there_is_404(cloud: Cloud, wanted: str) -> None:
    """An id that is no UUID names no session; it is not an error of its own."""
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/live"), ("GET", "/json/version")]:
        status, answer = await cloud.call(method, f"/v1/sessions/{wanted}{path}")
        assert (status, answer["error"]["code"]) == (404, "session_not_found"), (method, path)


async def test_another_projects_session_is_404(cloud: Cloud) -> None:
    """A stranger's key cannot tell a session of others from none at all."""
    record = await cloud.create()
    path = f"/v1/sessions/{record['id']}"
    calls = [("GET", ""), ("DELETE", ""), ("GET", "/live"), ("POST", "/release")]
    for method, more in calls:
        status, answer = await cloud.call(method, path + more, key=OTHER_KEY)
        assert (status, answer["error"]["code"]) == (404, "session_not_found"), (method, more)
    status, _ = await cloud.call("POST", f"{path}/extend", key=OTHER_KEY, json={"timeout": 1})
    assert status == 404
    assert (await cloud.call("GET", "/v1/sessions", key=OTHER_KEY))[1]["totalCount"] == 0
    assert (await cloud.call("GET", path))[1]["status"] == "live"


async def test_live_details_list_the_open_pages(real_cloud: Cloud) -> None:
    """Pages only, with title, address and a viewer of their own."""
    record = await real_cloud.create(browser="headless-shell")
    status, details = await real_cloud.call("GET", f"/v1/sessions/{record['id']}/live")
    assert status == 200
    (page,) = details["pages"]
    assert (page["url"], page["favicon"]) == ("about:blank", None)
    assert f"pageId={page['id']}" in page["sessionViewerUrl"]
    assert "showControls=false" in page["sessionViewerFullscreenUrl"]
    assert details["wsUrl"] == record["websocketUrl"]
    _, same = await real_cloud.call("GET", f"/v1/sessions/{record['id']}/live-details")
    # Not all of it: an empty page gets its title when it likes.
    assert [other["id"] for other in same["pages"]] == [page["id"]]


async def nothing_was_started(cloud: Cloud) -> None:
    """The engine was not asked for anything, and there is no record."""
    assert cloud.engine.starts == []
    assert (await cloud.call("GET", "/v1/sessions"))[1]["totalCount"] == 0
