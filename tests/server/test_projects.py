"""Projects are strangers to each other: by any route, with any key."""

from __future__ import annotations

import re
import uuid

import pytest

from browsercloud.server.routes import TABLE, Route
from browsercloud.server.routes.later import NOT_YET
from browsercloud.server.trust import Opens
from tests.server.conftest import KEY, OTHER_KEY, Cloud

GUARDED = [route for route in TABLE if route.opens is not Opens.ANYONE]
NAMES = [f"{route.method} {route.path}" for route in GUARDED]
SOCKETS = (
    "/v1/sessions/{session_id}/cdp",
    "/v1/sessions/{session_id}/playwright",
    "/",
    "/v1/leases/{lease_id}",
)


async def ask(cloud: Cloud, route: Route, session_id: str, key: str | None) -> int:
    """The status of one call of the route, for this session where it takes one."""
    path = re.sub(r"{(\w+)}", lambda name: _named(name[1], session_id), route.path)
    if path == "/":
        path = f"/?sessionId={session_id}"
    headers = {} if key is None else {"x-api-key": key}
    if route.path not in SOCKETS:
        body = {"timeout": 60_000} if path.endswith(("/extend", "/v1/sessions")) else None
        async with cloud.http.request(
            route.method,
            cloud.url + path,
            headers=headers,
            json=body if route.method == "POST" else None,
        ) as reply:
            text = await reply.text()
            assert session_id not in text.replace(f"no session {session_id}", "")
            return reply.status
    if route.path == "/v1/leases/{lease_id}" and key == OTHER_KEY:
        await (await cloud.http.ws_connect(cloud.url + path, headers=headers)).close()
        return 101
    return await cloud.refused(path, **headers)


def _named(name: str, session_id: str) -> str:
    return session_id if name == "session_id" else str(uuid.uuid4())


async def untouched(cloud: Cloud, session_id: str) -> bool:
    """Whether the session is there as if nobody had asked."""
    status, record = await cloud.call("GET", f"/v1/sessions/{session_id}")
    return (status, record["status"]) == (200, "live") and session_id not in cloud.engine.stops


@pytest.mark.parametrize("route", GUARDED, ids=NAMES)
async def test_without_a_good_key_no_route_opens(cloud: Cloud, route: Route) -> None:
    """No key, a wrong one, a revoked one: 401, and nothing happens."""
    revoked, key_id = await cloud.new_key()
    await cloud.revoke(key_id)
    record = await cloud.create()
    for key in (None, "wrong", revoked, KEY + "x"):
        assert await ask(cloud, route, record["id"], key) == 401, key
        assert await ask(cloud, route, str(uuid.uuid4()), key) == 401, key
    assert await untouched(cloud, record["id"])
    assert len(cloud.engine.starts) == 1


@pytest.mark.parametrize("route", GUARDED, ids=NAMES)
async def test_another_projects_key_finds_nothing(cloud: Cloud, route: Route) -> None:
    """404 where a session is named, the same as for none; elsewhere only what is its own."""
    record = await cloud.create()
    own = {
        ("POST", "/v1/sessions"): 201,
        ("GET", "/v1/sessions"): 200,
        ("DELETE", "/v1/sessions"): 200,
        ("POST", "/v1/sessions/release"): 200,
        ("GET", "/v1/leases/{lease_id}"): 101,
        ("GET", "/v1/capacity"): 200,
        ("GET", "/metrics"): 200,
        ("GET", "/puppeteer"): 426,  # a socket, for a session of its own
        **{(later.method, later.path): 501 for later in NOT_YET},
    }
    expected = own.get((route.method, route.path), 404)
    assert await ask(cloud, route, record["id"], OTHER_KEY) == expected
    assert await ask(cloud, route, str(uuid.uuid4()), OTHER_KEY) == expected
    assert await untouched(cloud, record["id"])


async def test_a_list_holds_the_projects_own(cloud: Cloud) -> None:
    """Neither sessions nor their number nor a place among them can be had from elsewhere."""
    mine = await cloud.create(metadata={"a": "1"})
    _, theirs = await cloud.call("POST", "/v1/sessions", key=OTHER_KEY, json={})
    _, found = await cloud.call("GET", "/v1/sessions", key=OTHER_KEY)
    assert ([one["id"] for one in found["sessions"]], found["totalCount"]) == ([theirs["id"]], 1)
    _, found = await cloud.call("GET", "/v1/sessions?metadata.a=1", key=OTHER_KEY)
    assert (found["sessions"], found["totalCount"]) == ([], 0)
    status, _ = await cloud.call("GET", f"/v1/sessions?cursorId={mine['id']}", key=OTHER_KEY)
    assert status == 400


async def test_a_foreign_id_cannot_be_taken(cloud: Cloud) -> None:
    """409 without a word about the session behind it, alive or ended."""
    record = await cloud.create(name="private")
    for _ in range(2):
        status, answer = await cloud.call(
            "POST", "/v1/sessions", key=OTHER_KEY, json={"sessionId": record["id"]}
        )
        assert (status, answer["error"]["code"]) == (409, "conflict")
        assert "private" not in str(answer)
        await cloud.call("DELETE", f"/v1/sessions/{record['id']}")
