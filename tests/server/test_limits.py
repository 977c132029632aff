"""What one project may ask for."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from browsercloud.errors import NoCapacity
from browsercloud.server import limits
from browsercloud.server.limits import Rates
from browsercloud.stores.base import Limits
from browsercloud.testing import SlowEngine
from tests.server.conftest import OTHER_KEY, Cloud, StartCloud, until


async def limited(cloud: Cloud, **given: int) -> None:
    """Limit the project `default`."""
    await cloud.store.set_limits("default", Limits(**given))
    await cloud.parts.keyring.refresh()


async def refused(cloud: Cloud, **options: object) -> tuple[Any, int]:
    """The error of a create, and its `Retry-After`."""
    headers = {"x-api-key": "the-key-of-these-tests"}
    async with cloud.http.post(f"{cloud.url}/v1/sessions", json=options, headers=headers) as reply:
        assert reply.status == 429
        return (await reply.json())["error"], int(reply.headers["Retry-After"])


async def test_a_project_has_so_many_sessions_at_a_time(start_cloud: StartCloud) -> None:
    """The next one waits, is told the figures, keeps its place, and a release lets it in."""
    cloud = await start_cloud(create_wait=0.05)
    await limited(cloud, max_sessions=2)
    first, _ = await cloud.create(), await cloud.create()
    wanted = str(uuid.uuid4())
    for _ in range(2):
        error, retry_after = await refused(cloud, sessionId=wanted)
        assert error["code"] == "no_capacity"
        (detail,) = error["details"]
        assert (detail["limit"], detail["inUse"], detail["retryable"]) == (2, 2, True)
        assert (detail["place"], retry_after) == (1, 1)
    status, _ = await cloud.call("POST", "/v1/sessions", json={"sessionId": first["id"]})
    assert status == 200
    await cloud.call("DELETE", f"/v1/sessions/{first['id']}")
    status, record = await cloud.call("POST", "/v1/sessions", json={"sessionId": wanted})
    assert (status, record["id"], record["status"]) == (200, wanted, "live")


async def test_others_are_not_limited_by_it(cloud: Cloud) -> None:
    """Each project has limits of its own, and none by default."""
    await limited(cloud, max_sessions=1, rate=1)
    await cloud.create()
    for _ in range(3):
        assert (await cloud.call("POST", "/v1/sessions", key=OTHER_KEY, json={}))[0] == 201


async def test_a_limit_holds_for_creates_at_once(start_cloud: StartCloud) -> None:
    """Those that are still starting count."""
    cloud = await start_cloud(SlowEngine(0.05), create_wait=1.0)
    await limited(cloud, max_sessions=3)
    calls = [cloud.call("POST", "/v1/sessions", json={}) for _ in range(10)]
    statuses = sorted(status for status, _ in await asyncio.gather(*calls))
    assert statuses == [201] * 3 + [429] * 7
    assert len(cloud.engine.starts) == 3


async def test_a_raised_limit_lets_in_who_waits(cloud: Cloud) -> None:
    """At once, without a release."""
    await limited(cloud, max_sessions=1)
    await cloud.create()
    waiting = asyncio.create_task(cloud.create())
    await until(lambda: cloud.parts.sessions.admission.length == 1)
    await limited(cloud, max_sessions=2)
    assert (await waiting)["status"] == "live"


async def test_a_refused_id_may_come_again(start_cloud: StartCloud) -> None:
    """When not even the line has room, nothing of the refused create is left."""
    cloud = await start_cloud(max_sessions=1, max_queue=1)
    record = await cloud.create()
    waiting = asyncio.create_task(cloud.create())
    await until(lambda: cloud.parts.sessions.admission.length == 1)
    wanted = str(uuid.uuid4())
    error, retry_after = await refused(cloud, sessionId=wanted)
    assert (error["code"], retry_after) == ("no_capacity", 5)
    assert (await cloud.call("GET", f"/v1/sessions/{wanted}"))[0] == 404
    await cloud.call("DELETE", f"/v1/sessions/{record['id']}")
    await cloud.call("DELETE", f"/v1/sessions/{(await waiting)['id']}")
    assert (await cloud.create(sessionId=wanted))["id"] == wanted


async def test_a_project_begins_so_many_in_a_minute(cloud: Cloud) -> None:
    """429 `rate_limited`, and when to come again; releasing does not help."""
    await limited(cloud, rate=2)
    for _ in range(2):
        record = await cloud.create()
        await cloud.call("DELETE", f"/v1/sessions/{record['id']}")
    error, retry_after = await refused(cloud)
    assert error["code"] == "rate_limited"
    assert (error["details"][0]["limit"], error["details"][0]["inUse"]) == (2, 2)
    assert 55 < retry_after <= 60
    await limited(cloud)
    await cloud.create()


async def test_the_rate_is_that_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room comes back one by one, what was refused does not count, and the rate may change."""
    clock = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock)
    current = Limits(rate=2)
    project = Rates(lambda _: current)

    def retry_after() -> float | None:
        with pytest.raises(NoCapacity) as caught:
            project.count("p")
        return caught.value.retry_after

    project.count("p")
    clock += 20
    project.count("p")
    clock += 20
    assert [retry_after() for _ in range(5)] == [20] * 5
    current = Limits(rate=1)
    assert retry_after() == 40
    current = Limits(rate=2)
    clock += 20
    project.count("p")
    assert retry_after() == 20
    clock += limits.WINDOW
    project.count("p")
    project.count("p")
    assert retry_after() == 60
