"""The trust boundary: what opens what, and who is kept out."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import uuid
from typing import Any

import pytest

from browsercloud.errors import UsageError
from browsercloud.server.app import make_app
from browsercloud.server.config import ServerConfig
from browsercloud.server.keyring import Keyring
from browsercloud.server.keys import hash_key
from browsercloud.server.trust import Trust
from browsercloud.stores.memory import MemoryStore
from browsercloud.testing import IdleEngine
from tests.server.conftest import KEY, OTHER_KEY, Cloud, StartCloud, Upstream

SECRET = b"s" * 32


def basic(password: str) -> str:
    """The header for a user and this password."""
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": KEY},
        {"steel-api-key": KEY},
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
        {"Authorization": basic(KEY)},
        {"x-api-key": "left-over-from-elsewhere", "Authorization": f"Bearer {KEY}"},
    ],
)
async def test_a_key_is_taken_from_each_header(cloud: Cloud, headers: dict[str, str]) -> None:
    """Every form of wire.md 1 opens the project."""
    status, _ = await cloud.call("GET", "/v1/sessions", key=None, headers=headers)
    assert status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": "wrong"},
        {"x-api-key": KEY[:-1]},
        {"x-api-key": KEY.upper()},
        {"Authorization": KEY},
        {"Authorization": f"Digest {KEY}"},
        {"Authorization": "Basic ####"},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe").decode()},
        {"Authorization": basic("")},
    ],
)
async def test_without_a_good_key_nothing_opens(cloud: Cloud, headers: dict[str, str]) -> None:
    """401 for each call, the same for a session that is there and for one that is not."""
    record = await cloud.create()
    for method, path in [
        ("GET", "/v1/sessions"),
        ("POST", "/v1/sessions"),
        ("DELETE", "/v1/sessions"),
        ("GET", f"/v1/sessions/{record['id']}"),
        ("DELETE", f"/v1/sessions/{record['id']}"),
        ("GET", f"/v1/sessions/{uuid.uuid4()}"),
    ]:
        status, answer = await cloud.call(method, path, key=None, headers=headers)
        assert (status, answer["error"]["code"]) == (401, "not_authorized"), (method, path)
    assert (len(cloud.engine.starts), cloud.engine.stops) == (1, [])


async def test_a_key_in_the_query_is_for_sockets_only(cloud: Cloud) -> None:
    """`?apiKey=` on a plain call opens nothing: addresses are logged by others."""
    status, _ = await cloud.call("GET", f"/v1/sessions?apiKey={KEY}", key=None)
    assert status == 401
    ws = await cloud.http.ws_connect(f"{cloud.url}/v1/leases/{uuid.uuid4()}?apiKey={KEY}")
    await ws.close()


async def test_a_token_opens_its_session_and_nothing_else(cloud: Cloud) -> None:
    """Reading its own record: yes. Release, extend, list, create, another session: no."""
    record, other = await cloud.create(), await cloud.create()
    token = cloud.token(record)
    own, foreign = f"/v1/sessions/{record['id']}", f"/v1/sessions/{other['id']}"
    status, same = await cloud.call("GET", f"{own}?token={token}", key=None)
    assert (status, same["id"]) == (200, record["id"])
    for method, path in [
        ("DELETE", own),
        ("POST", f"{own}/release"),
        ("POST", f"{own}/extend"),
        ("GET", "/v1/sessions"),
        ("POST", "/v1/sessions"),
        ("DELETE", "/v1/sessions"),
        ("GET", foreign),
        ("GET", f"{foreign}/live"),
        ("GET", f"{foreign}/json/version"),
        ("GET", f"/sessions/{other['id']}/screenshot"),
    ]:
        status, _ = await cloud.call(method, f"{path}?token={token}", key=None)
        assert status == 401, (method, path)
    assert await cloud.refused(f"{foreign}/cdp?token={token}") == 401
    assert await cloud.refused(f"/?sessionId={other['id']}&token={token}") == 401
    assert await cloud.refused(f"/v1/leases/{uuid.uuid4()}?token={token}") == 401
    assert cloud.engine.stops == []


async def test_a_token_dies_with_its_session(cloud: Cloud) -> None:
    """Afterwards it is 410 with the reason, while the key still finds the record."""
    record = await cloud.create()
    path, token = f"/v1/sessions/{record['id']}", cloud.token(record)
    await cloud.call("DELETE", path)
    status, answer = await cloud.call("GET", f"{path}?token={token}", key=None)
    assert (status, answer["error"]["code"]) == (410, "session_ended")
    assert answer["error"]["releaseReason"] == "user_requested"
    assert await cloud.refused(f"{path}/cdp?token={token}") == 410
    status, _ = await cloud.call("GET", f"{path}?token=wrong", key=None)
    assert status == 401
    assert (await cloud.call("GET", path))[0] == 200


async def test_a_wrong_token_opens_nothing(cloud: Cloud) -> None:
    """Not even beside a good key, and whatever characters it has."""
    record = await cloud.create()
    path, token = f"/v1/sessions/{record['id']}", cloud.token(record)
    for wrong in ("", "x", token[:-1], token + "=", "%FF", "%C3%A4", f"{token}%00"):
        status, _ = await cloud.call("GET", f"{path}?token={wrong}")
        assert status == 401, wrong
        assert await cloud.refused(f"{path}/cdp?token={wrong}") == 401
    assert await cloud.refused(f"{path}/cdp") == 401
    assert await cloud.refused(f"{path}/cdp?apiKey=wrong") == 401


async def test_a_key_beside_a_good_token_is_ignored(
    start_cloud: StartCloud, upstream: Upstream
) -> None:
    """Programs append `&apiKey=…` to the URL they were given, with whatever they have."""
    cloud = await start_cloud(IdleEngine(endpoint=upstream.endpoint))
    record = await cloud.create()
    for key in ("wrong", OTHER_KEY, ""):
        ws = await cloud.http.ws_connect(f"{record['websocketUrl']}&apiKey={key}")
        await ws.close()


async def test_another_projects_key_finds_no_socket(cloud: Cloud) -> None:
    """404, as for every other call."""
    record = await cloud.create()
    assert await cloud.refused(f"/v1/sessions/{record['id']}/cdp?apiKey={OTHER_KEY}") == 404
    assert await cloud.refused(f"/?sessionId={record['id']}&apiKey={OTHER_KEY}") == 404


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        (None, "rebound.example", 101),
        ("http://{host}", None, 101),
        ("http://localhost:8700", "localhost:8700", 101),
        ("http://LOCALHOST:8700", "localhost:8700", 101),
        ("https://browsers.example", "browsers.example", 101),
        ("http://browsers.example", "browsers.example:80", 101),
        (f"http://{socket.gethostname()}:1", f"{socket.gethostname()}:1", 101),
        ("http://[::1]:8700", "[::1]:8700", 101),
        ("http://evil.example", None, 403),
        ("http://localhost:1", "localhost:8700", 403),
        ("http://rebound.example:8700", "rebound.example:8700", 403),
        ("http://browsers.example.evil.example", "browsers.example.evil.example", 403),
        ("null", None, 403),
        ("file://", None, 403),
        ("", None, 403),
        ("http://[", None, 403),
        ("http://localhost:99999", "localhost:8700", 403),
    ],
)
async def test_an_upgrade_from_a_foreign_page_is_refused(
    start_cloud: StartCloud, origin: str | None, host: str | None, status: int
) -> None:
    """An Origin must be this server's own, under a name that cannot have been rebound to it."""
    cloud = await start_cloud(allowed_hosts=("browsers.example",))
    headers = {"Host": host} if host else {}
    if origin is not None:
        headers["Origin"] = origin.format(host=cloud.host)
    path = f"/v1/leases/{uuid.uuid4()}?apiKey={KEY}"
    if status == 101:
        await (await cloud.http.ws_connect(cloud.url + path, headers=headers)).close()
    else:
        assert await cloud.refused(path, **headers) == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Host": "localhost:1"}, 201),
        ({"Host": "rebound.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_without_auth_every_request_is_checked(
    start_cloud: StartCloud, headers: dict[str, str], status: int
) -> None:
    """No page in a browser of this machine may use a server that asks for no key."""
    cloud = await start_cloud(api_key=None, no_auth=True)
    found, _ = await cloud.call("POST", "/v1/sessions", key=None, headers=headers)
    assert found == status
    assert len(cloud.engine.starts) == (status == 201)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_no_auth_is_accepted_on_loopback(host: str) -> None:
    """Where only this machine can reach it."""
    assert ServerConfig(host=host, no_auth=True).no_auth


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_no_auth_is_refused_elsewhere(host: str) -> None:
    """The message names the setting and the remedy."""
    with pytest.raises(UsageError, match=r"--no-auth.*127\.0\.0\.1"):
        ServerConfig(host=host, no_auth=True)


def test_a_server_without_a_key_is_refused() -> None:
    """It would be of use to nobody, or open to all."""
    with pytest.raises(UsageError, match="key"):
        make_app(ServerConfig(), IdleEngine(), MemoryStore())


def trust(config: ServerConfig) -> Trust:
    """Trust on an empty store."""
    return Trust(config, Keyring(MemoryStore(), config.api_key))


def test_a_token_depends_on_secret_and_session() -> None:
    """The same again after a restart with the same secret; another for each session and secret."""
    config = ServerConfig(api_key=KEY, token_secret=SECRET)
    first, second, other = trust(config), trust(config), trust(ServerConfig(api_key=KEY))
    assert first.token("a") == second.token("a")
    tokens = {first.token("a"), first.token("b"), other.token("a"), first.token("a", "k")}
    assert len({*tokens, first.token("a.k"), first.token("a", "l")}) == 6
    assert first.token("a").replace("-", "").replace("_", "").isalnum()


def test_secrets_are_in_no_repr() -> None:
    """Neither the key, nor its hash, nor the token secret."""
    config = ServerConfig(api_key=KEY, token_secret=SECRET)
    keyring = Keyring(MemoryStore(), KEY)
    shown = repr([config, Trust(config, keyring), keyring, keyring.find(KEY)])
    assert not any(secret in shown for secret in (KEY, hash_key(KEY)[:8], "sss"))


async def test_secrets_are_in_no_log(
    start_cloud: StartCloud, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither keys nor tokens, for calls that work and for such that do not; not even malformed."""
    caplog.set_level(logging.DEBUG)
    cloud = await start_cloud(IdleEngine(endpoint=upstream.endpoint))
    record = await cloud.create()
    token = cloud.token(record)
    ws = await cloud.http.ws_connect(f"{record['websocketUrl']}&apiKey={KEY}")
    await ws.close()
    await cloud.call("GET", f"/v1/sessions?token={token}&apiKey={KEY}")
    await cloud.call("GET", f"/nowhere?token={token}&apiKey={KEY}")
    _, port = cloud.host.split(":")
    await malformed(int(port), f"GET /?token={token}&apiKey={KEY} HTTP/x\r\nx-api-key: {KEY}")
    await cloud.call("DELETE", f"/v1/sessions/{record['id']}")
    assert "/cdp 101" in caplog.text
    assert "/nowhere 404" in caplog.text
    assert "refused what a client sent" in caplog.text
    assert not any(secret in caplog.text for secret in (KEY, token, upstream.endpoint))


async def test_a_record_names_no_secret(cloud: Cloud) -> None:
    """The options as given come back, and neither key nor lease are among them."""
    record = await cloud.create(name="a", leaseId=str(uuid.uuid4()))
    assert record["config"] == {"name": "a"}
    assert KEY not in json.dumps(record)


async def malformed(port: int, text: str) -> Any:
    """Send what is no HTTP and wait for the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode() + b"\r\n\r\n")
    await reader.read()
    writer.close()
    await writer.wait_closed()
