"""Whether the server answers, and whether it takes sessions."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from browsercloud.server.routes import health
from tests.server.conftest import Cloud

READY = {"status": "ready", "reasons": []}


async def test_ready_asks_for_no_key(cloud: Cloud) -> None:
    """A load balancer has none."""
    assert await cloud.call("GET", "/readyz", key=None) == (200, READY)


async def test_health_tells_status_and_version(cloud: Cloud) -> None:
    """And stays good while the server is not ready."""
    await cloud.parts.sessions.close_down()
    status, answer = await cloud.call("GET", "/healthz", key=None)
    assert (status, answer["status"], sorted(answer)) == (200, "ok", ["status", "version"])


async def test_a_server_that_ends_is_not_ready(cloud: Cloud) -> None:
    """503 with the code that a create would get."""
    await cloud.parts.sessions.close_down()
    status, answer = await cloud.call("GET", "/readyz", key=None)
    assert (status, answer["status"]) == (503, "not_ready")
    assert [reason["code"] for reason in answer["reasons"]] == ["shutting_down"]
    assert (await cloud.call("POST", "/v1/sessions"))[1]["error"]["code"] == "shutting_down"


async def test_a_store_that_fails_is_named_and_not_quoted(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the store says may name files: it goes to the log."""

    async def fail() -> int:
        raise OSError("cannot read /home/secret/browsercloud.db")

    monkeypatch.setattr(cloud.store, "access_version", fail)
    status, answer = await cloud.call("GET", "/readyz", key=None)
    assert (status, [reason["code"] for reason in answer["reasons"]]) == (
        503,
        ["store_unavailable"],
    )
    assert "secret" not in json.dumps(answer)
    monkeypatch.undo()
    assert await cloud.call("GET", "/readyz", key=None) == (200, READY)


async def test_a_store_that_hangs_is_given_up(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer comes in bounded time, with every reason."""

    async def hang() -> Any:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(health, "STORE_PATIENCE", 0.05)
    monkeypatch.setattr(cloud.store, "access_version", hang)
    await cloud.parts.sessions.close_down()
    async with asyncio.timeout(5):
        status, answer = await cloud.call("GET", "/readyz", key=None)
    assert status == 503
    assert [reason["code"] for reason in answer["reasons"]] == [
        "shutting_down",
        "store_unavailable",
    ]
