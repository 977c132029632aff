"""Keys come and go while the server runs."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType

from browsercloud.server import keyring
from browsercloud.server.keyring import Keyring
from browsercloud.server.keys import hash_key, make_key
from browsercloud.server.records import now
from browsercloud.stores.memory import MemoryStore
from browsercloud.testing import IdleEngine
from tests.server.conftest import BODY, KEY, Cloud, StartCloud, Upstream, until

LEASE = "00000000-0000-4000-8000-00000000000a"


@pytest.fixture(params=[False, True], ids=["handlers-go-on", "handlers-are-cancelled"])
async def echo(
    request: pytest.FixtureRequest, start_cloud: StartCloud, upstream: Upstream
) -> Cloud:
    """A server whose browsers send back what they get, and whose leases are lost soon."""
    engine = IdleEngine(endpoint=upstream.endpoint)
    return await start_cloud(engine, lease_grace=0.1, handler_cancellation=request.param)


async def made_with(cloud: Cloud, key: str, **options: object) -> BODY:
    """A session that was made with this key."""
    status, record = await cloud.call("POST", "/v1/sessions", key=key, json=options)
    assert status == 201
    return record


async def closing(ws: ClientWebSocketResponse) -> tuple[int, str]:
    """Code and reason with which the server closes the socket."""
    message = await ws.receive(timeout=3)
    assert message.type is WSMsgType.CLOSE
    await ws.close()
    return message.data, message.extra


async def test_a_key_made_elsewhere_opens_within_a_second(cloud: Cloud) -> None:
    """And a revoked one opens nothing any more; nobody tells the server."""
    key, row = make_key("late")
    assert (await cloud.call("GET", "/v1/sessions", key=key))[0] == 401
    await cloud.store.add_key(row)
    for status in (200, 401):
        async with asyncio.timeout(1.5):
            while (await cloud.call("GET", "/v1/sessions", key=key))[0] != status:
                await asyncio.sleep(0.02)
        await cloud.store.revoke_key(row.id, now())


async def test_a_revoked_key_closes_what_is_open(echo: Cloud) -> None:
    """Sockets it opened, and those opened by a token that was handed out to it; no others."""
    key, key_id = await echo.new_key()
    record = await made_with(echo, key)
    path = f"/v1/sessions/{record['id']}"
    _, seen_by_another = await echo.call("GET", path)
    others = await echo.http.ws_connect(seen_by_another["websocketUrl"])
    sockets = [
        await echo.http.ws_connect(record["websocketUrl"]),
        await echo.http.ws_connect(f"{echo.url}{path}/cdp?apiKey={key}"),
        await echo.http.ws_connect(f"{echo.url}/?sessionId={record['id']}&apiKey={key}"),
        await echo.http.ws_connect(f"{echo.url}/v1/leases/{LEASE}?apiKey={key}"),
    ]
    await echo.store.revoke_key(key_id, now())
    ends = await asyncio.gather(*map(closing, sockets))
    assert ends == [(1008, "the API key was revoked")] * len(sockets)
    await others.send_str("still there")
    assert await others.receive_str() == "still there"
    await others.close()
    assert await echo.refused(record["websocketUrl"].removeprefix(f"ws://{echo.host}")) == 401
    assert await echo.refused(f"{path}/cdp?apiKey={key}") == 401
    status, answer = await echo.call("GET", f"{path}?token={echo.token(record)}", key=None)
    assert (status, "revoked" in answer["message"]) == (401, True)
    assert (await echo.call("GET", path))[1]["status"] == "live"


async def test_a_token_hands_out_tokens_of_the_same_key(echo: Cloud) -> None:
    """Else one could outlive the revocation by asking in time."""
    key, key_id = await echo.new_key()
    record = await made_with(echo, key)
    path = f"/v1/sessions/{record['id']}"
    _, again = await echo.call("GET", f"{path}?token={echo.token(record)}", key=None)
    assert echo.token(again) == echo.token(record)
    await echo.revoke(key_id)
    for forged in (echo.token(record).partition(".")[0], f".{key_id}", "x.y", "%FF.%FF", "."):
        assert (await echo.call("GET", f"{path}?token={forged}", key=None))[0] == 401


async def test_a_session_outlives_its_key_until_its_lease_is_lost(echo: Cloud) -> None:
    """Its project owns it; a client that can no longer hold its lease loses it."""
    key, key_id = await echo.new_key()
    lease = await echo.http.ws_connect(f"{echo.url}/v1/leases/{LEASE}?apiKey={key}")
    leased = await made_with(echo, key, leaseId=LEASE)
    free = await made_with(echo, key)
    await echo.revoke(key_id)
    assert (await closing(lease))[0] == 1008
    await until(lambda: leased["id"] in echo.engine.stops)
    assert (await echo.call("GET", f"/v1/sessions/{free['id']}"))[1]["status"] == "live"


async def test_the_configured_key_works_beside_the_others(cloud: Cloud) -> None:
    """It belongs to the project `default`, as does a key made for that."""
    record = await cloud.create()
    key, _ = await cloud.new_key()
    assert (await cloud.call("GET", f"/v1/sessions/{record['id']}", key=key))[0] == 200
    assert hash_key(KEY) not in {row.hash for row in await cloud.store.keys()}


async def test_the_last_use_is_noted(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a minute while the server runs, and when it stops; an unused key has none."""
    key, used = await cloud.new_key()
    _, idle = await cloud.new_key()
    await cloud.call("GET", "/v1/sessions", key=key)
    await cloud.server.stop()
    uses = {row.id: row.used_at for row in await cloud.store.keys()}
    assert uses[idle] is None
    assert uses[used] is not None
    assert now() - uses[used] < timedelta(minutes=1)
    monkeypatch.setattr(keyring, "NOTE_EVERY", 0)
    ring = Keyring(cloud.store, check_every=0.01)
    await ring.open()
    ring.by_id(idle)
    async with asyncio.timeout(5):
        while None in {row.used_at for row in await cloud.store.keys() if row.prefix}:
            await asyncio.sleep(0.01)
    await ring.close()
    await ring.close()


class FaultyStore(MemoryStore):
    """A store that cannot be read for a while."""

    faulty = False

    async def access_version(self) -> int:
        """Fail, or answer."""
        if self.faulty:
            raise OSError("the disk is gone")
        return await super().access_version()


async def test_a_store_in_trouble_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What is known stays in force, the trouble is logged, and afterwards it goes on."""
    store = FaultyStore()
    ring = Keyring(store, check_every=0.01)
    key, row = make_key("p")
    await store.add_key(row)
    await ring.open()
    store.faulty = True
    await store.revoke_key(row.id, now())
    await until(lambda: "the disk is gone" in caplog.text)
    assert ring.find(key) is not None
    store.faulty = False
    await until(lambda: ring.find(key) is None)
    await ring.close()


async def test_a_server_whose_keys_are_all_revoked_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It makes no new one by itself: somebody meant it."""
    caplog.set_level(logging.WARNING)
    store = MemoryStore()
    _, row = make_key("p")
    await store.add_key(row)
    await store.revoke_key(row.id, now())
    ring = Keyring(store)
    assert await ring.make_first() is None
    assert "browsercloud keys create" in caplog.text


def test_keys_are_random_and_recognisable() -> None:
    """256 bits each; what is stored shows how it begins, and not more."""
    made = [make_key("p") for _ in range(50)]
    assert len({key for key, _ in made}) == len({row.id for _, row in made}) == 50
    for key, row in made:
        assert key.startswith("bc_")
        assert len(key) == 46
        assert row.hash == hash_key(key)
        assert key.startswith(row.prefix)
        assert len(row.prefix) == 10
