"""What one project may ask for."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from browsercloud.errors import NoCapacity
from browsercloud.server import limits
from browsercloud.server.limits import ProjectLimits
from browsercloud.stores.base import Limits
from browsercloud.testing import SlowEngine
from tests.server.conftest import OTHER_KEY, Cloud, StartCloud


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


async def test_a_project_has_so_many_sessions_at_a_time(cloud: Cloud) -> None:
    """429 `no_capacity` with the figures; the same id again is no new one; a release makes room."""
    await limited(cloud, max_sessions=2)
    first, _ = await cloud.create(), await cloud.create()
    error, retry_after = await refused(cloud)
    assert error["code"] == "no_capacity"
    (detail,) = error["details"]
    assert (detail["limit"], detail["inUse"], detail["retryable"]) == (2, 2, True)
    assert retry_after == 5
    status, _ = await cloud.call("POST", "/v1/sessions", json={"sessionId": first["id"]})
    assert status == 200
    await cloud.call("DELETE", f"/v1/sessions/{first['id']}")
    await cloud.create()


async def test_others_are_not_limited_by_it(cloud: Cloud) -> None:
    """Each project has limits of its own, and none by default."""
    await limited(cloud, max_sessions=1, rate=1)
    await cloud.create()
    for _ in range(3):
        assert (await cloud.call("POST", "/v1/sessions", key=OTHER_KEY, json={}))[0] == 201


async def test_a_limit_holds_for_creates_at_once(start_cloud: StartCloud) -> None:
    """Those that are still starting count."""
    cloud = await start_cloud(SlowEngine(0.05))
    await limited(cloud, max_sessions=3)
    calls = [cloud.call("POST", "/v1/sessions", json={}) for _ in range(10)]
    statuses = sorted(status for status, _ in await asyncio.gather(*calls))
    assert statuses == [201] * 3 + [429] * 7
    assert len(cloud.engine.starts) == 3


async def test_a_refused_id_may_come_again(cloud: Cloud) -> None:
    """Nothing of the refused create is left."""
    await limited(cloud, max_sessions=1)
    record = await cloud.create()
    wanted = str(uuid.uuid4())
    await refused(cloud, sessionId=wanted)
    assert (await cloud.call("GET", f"/v1/sessions/{wanted}"))[0] == 404
    await cloud.call("DELETE", f"/v1/sessions/{record['id']}")
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
    project = ProjectLimits(lambda _: current)

    def retry_after() -> float | None:
        with pytest.raises(NoCapacity) as caught:
            project.admit("p", 0)
        return caught.value.retry_after

    project.admit("p", 0)
    clock += 20
    project.admit("p", 0)
    clock += 20
    assert [retry_after() for _ in range(5)] == [20] * 5
    current = Limits(rate=1)
    assert retry_after() == 40
    current = Limits(rate=2)
    clock += 20
    project.admit("p", 0)
    assert retry_after() == 20
    clock += limits.WINDOW
    project.admit("p", 0)
    project.admit("p", 0)
    assert retry_after() == 60
