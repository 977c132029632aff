"""The lease: a socket that says its client is alive."""

from __future__ import annotations

import asyncio
import socket
import uuid
from typing import Any

import aiohttp
import pytest

from browsercloud.server.parts import PARTS
from browsercloud.server.routes import leases
from tests.server.conftest import KEY, OTHER_KEY, Cloud, StartCloud, until

HEADERS = {"x-api-key": KEY}


class Counted:
    """What was told to the leases, in order."""

    def __init__(self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str, str]] = []
        here = cloud.server._app[PARTS].sessions.leases
        for name in ("connected", "disconnected"):
            monkeypatch.setattr(here, name, self._counting(name, getattr(here, name)))

    def _counting(self, name: str, real: Any) -> Any:
        def count(project: str, lease_id: str) -> None:
            self.calls.append((name, project, lease_id))
            real(project, lease_id)

        return count


@pytest.mark.parametrize("cancellation", [False, True])
@pytest.mark.parametrize("goodbye", [False, True])
async def test_each_socket_connects_and_disconnects_once(
    start_cloud: StartCloud, monkeypatch: pytest.MonkeyPatch, *, goodbye: bool, cancellation: bool
) -> None:
    """Exactly once each, whether it says goodbye or vanishes, cancelled handler or not."""
    cloud = await start_cloud(handler_cancellation=cancellation)
    counted = Counted(cloud, monkeypatch)
    lease = str(uuid.uuid4())
    ws = await hold(cloud, lease)
    assert counted.calls == [("connected", "default", lease)]
    if goodbye:
        await ws.close()
    else:
        ws._response.connection.transport.abort()
    await until(lambda: len(counted.calls) == 2)
    await cloud.server.stop()
    assert counted.calls[1:] == [("disconnected", "default", lease)]


async def test_a_lost_lease_ends_its_sessions_after_the_grace(start_cloud: StartCloud) -> None:
    """Only its own, and the record says `lease_lost`."""
    cloud = await start_cloud(lease_grace=0.1)
    lease = str(uuid.uuid4())
    ws = await hold(cloud, lease)
    mine = await cloud.create(leaseId=lease)
    free = await cloud.create()
    await ws.close()
    await until(lambda: cloud.engine.stops == [mine["id"]])
    await until_ended(cloud, mine["id"], "lease_lost")
    assert (await cloud.call("GET", f"/v1/sessions/{free['id']}"))[1]["status"] == "live"


async def test_coming_back_within_the_grace_keeps_the_sessions(start_cloud: StartCloud) -> None:
    """A dropped socket is not the end of its client."""
    cloud = await start_cloud(lease_grace=0.3)
    lease = str(uuid.uuid4())
    ws = await hold(cloud, lease)
    mine = await cloud.create(leaseId=lease)
    await ws.close()
    again = await hold(cloud, lease)
    await asyncio.sleep(0.5)  # longer than the grace: what must not happen has had its time
    assert (await cloud.call("GET", f"/v1/sessions/{mine['id']}"))[1]["status"] == "live"
    await again.close()


async def test_a_lease_belongs_to_a_project(start_cloud: StartCloud) -> None:
    """A stranger's socket with the same id holds nothing of ours."""
    cloud = await start_cloud(lease_grace=0.1)
    lease = str(uuid.uuid4())
    stranger = await cloud.http.ws_connect(
        f"{cloud.url}/v1/leases/{lease}", headers={"x-api-key": OTHER_KEY}
    )
    mine = await cloud.create(leaseId=lease)
    await until_ended(cloud, mine["id"], "lease_lost")
    await stranger.close()


async def test_the_kernel_watches_the_connection(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TCP keep-alive has our times, so a dead host is found without asking the client anything."""
    seen: list[int] = []
    real = leases.keep_alive

    def spy(found: Any, **times_of_ours: int) -> None:
        real(found, **times_of_ours)
        seen.append(found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        times = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        seen.extend(found.getsockopt(socket.IPPROTO_TCP, option) for option in times)

    monkeypatch.setattr(leases, "keep_alive", spy)
    ws = await hold(cloud, str(uuid.uuid4()))
    await until(lambda: len(seen) == 4)
    assert seen == [1, 15, 5, 3]
    await ws.close()


async def test_a_lease_needs_an_upgrade_and_a_good_id(cloud: Cloud) -> None:
    """A plain request is 426, an id that is no UUID is 400."""
    assert (await cloud.call("GET", f"/v1/leases/{uuid.uuid4()}"))[0] == 426
    assert (await cloud.call("GET", "/v1/leases/mine"))[0] == 400
    assert await cloud.refused("/v1/leases/mine", **HEADERS) == 400
    assert await cloud.refused(f"/v1/leases/{uuid.uuid4()}") == 401


async def test_stopping_the_server_hangs_up(cloud: Cloud) -> None:
    """An open lease does not hold up the stop; its client hears 1001."""
    ws = await hold(cloud, str(uuid.uuid4()))
    stopping = asyncio.create_task(cloud.server.stop())
    message = await ws.receive(5)
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
    async with asyncio.timeout(3):
        await stopping


async def hold(cloud: Cloud, lease: str) -> aiohttp.ClientWebSocketResponse:
    """A socket that holds the lease."""
    return await cloud.http.ws_connect(f"{cloud.url}/v1/leases/{lease}", headers=HEADERS)


async def until_ended(cloud: Cloud, session_id: str, reason: str) -> None:
    """Return when the record says that it ended for this reason."""
    async with asyncio.timeout(5):
        while True:
            _, record = await cloud.call("GET", f"/v1/sessions/{session_id}")
            if record["endedAt"] is not None:
                assert record["releaseReason"] == reason
                return
            await asyncio.sleep(0.01)
