"""`/wd/hub`: a session that begins and ends with WebDriver, with nothing but a URL."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import InvalidSessionIdException, SessionNotCreatedException

from browsercloud._aio import stop_task
from browsercloud.engines.local import LocalEngine
from browsercloud.server import hub
from browsercloud.testing import FailingEngine, IdleEngine, NeverEngine
from tests.browser.test_chromedriver import drivers, program
from tests.conftest import Site
from tests.processes import until
from tests.server.conftest import KEY, Cloud, StartCloud
from tests.server.driving import connect, driven
from tests.serving import serving

SHELL = {"browser": "headless-shell"}
ENDED = ("released", "failed")


async def sessions(cloud: Cloud) -> list[dict[str, Any]]:
    """Every record."""
    _, listed = await cloud.call("GET", "/v1/sessions")
    found: list[dict[str, Any]] = listed["sessions"]
    return found


async def test_a_url_is_all_it_takes(real_cloud: Cloud, site: Site) -> None:
    """New Session makes one of ours, its options in capabilities; quit ends it."""
    options = {**SHELL, "name": "n", "dimensions": {"width": 640, "height": 480}}
    url = f"{real_cloud.url}/wd/hub"
    driver = await driven(lambda: connect(url, key=KEY, browsercloud__options=options))
    (record,) = await sessions(real_cloud)
    assert ("live", "selenium", "n") == (record["status"], record["adapter"], record["name"])
    assert record["id"] == driver.capabilities["browsercloud:sessionId"]
    assert f"/sessions/{record['id']}/viewer?" in driver.capabilities["browsercloud:viewerUrl"]
    await driven(lambda: driver.get(site.url))
    assert "Home" == await driven(lambda: driver.title)
    size = "return [innerWidth, innerHeight]"
    assert [640, 480] == await driven(lambda: driver.execute_script(size))
    await driven(driver.quit)
    (record,) = await sessions(real_cloud)
    assert ("released", "user_requested") == (record["status"], record["releaseReason"])
    assert [] == drivers(Path(real_cloud.engine.data_dir))


async def test_a_key_in_the_capabilities_lets_in(real_cloud: Cloud) -> None:
    """And the commands after it need none: the id they carry opens this session."""
    options = {"accessKey": KEY, "user": "me", "build": "b1"}
    url = f"{real_cloud.url}/wd/hub"
    more = {"LT__Options": options, "browsercloud__options": SHELL}
    driver = await driven(lambda: connect(url, **more))
    assert "" == await driven(lambda: driver.title)
    (record,) = await sessions(real_cloud)
    assert "b1" == record["build"]
    assert KEY not in str(record)
    await driven(driver.quit)


async def test_a_wrong_key_makes_nothing(cloud: Cloud) -> None:
    """401 in the protocol's form; with a challenge, as some clients wait for it."""
    body = {"capabilities": {"alwaysMatch": {"LT:Options": {"accessKey": "wrong"}}}}
    for key in (None, "wrong"):
        status, answer = await cloud.call("POST", "/wd/hub/session", key=key, json=body)
        assert (401, "session not created") == (status, answer["value"]["error"])
    assert [] == await sessions(cloud)


async def test_an_id_opens_its_own_session_only(real_cloud: Cloud) -> None:
    """Neither another token nor another session with this token; one without a token is none."""
    url = f"{real_cloud.url}/wd/hub"
    driver = await driven(lambda: connect(url, key=KEY, browsercloud__options=SHELL))
    other = await real_cloud.create(**SHELL)
    ours, theirs, token = str(driver.session_id).split(".", 2)
    wrong = (
        f"{ours}.{theirs}.{real_cloud.token(other)}",
        f"{other['id'].replace('-', '')}.{theirs}.{token}",
        f"{ours}.{theirs}.",
    )
    for session_id in wrong:
        status, _ = await real_cloud.call("GET", f"/wd/hub/session/{session_id}/url", key=None)
        assert 401 == status
    status, answer = await real_cloud.call("GET", "/wd/hub/session/nonsense/url", key=None)
    assert (404, "invalid session id") == (status, answer["value"]["error"])
    await driven(driver.quit)


async def test_an_id_dies_with_the_key_that_it_was_given_for(real_cloud: Cloud) -> None:
    """Revoked, neither the hub's id nor the session's URL opens anything."""
    key, key_id = await real_cloud.new_key()
    url = f"{real_cloud.url}/wd/hub"
    driver = await driven(lambda: connect(url, key=key, browsercloud__options=SHELL))
    path = f"/wd/hub/session/{driver.session_id}/url"
    assert 200 == (await real_cloud.call("GET", path, key=None))[0]
    await real_cloud.revoke(key_id)
    assert 401 == (await real_cloud.call("GET", path, key=None))[0]
    driver.command_executor.close()


async def test_the_last_window_ends_the_session(real_cloud: Cloud) -> None:
    """By the protocol; and quitting afterwards is fine."""
    url = f"{real_cloud.url}/wd/hub"
    driver = await driven(lambda: connect(url, key=KEY, browsercloud__options=SHELL))
    await driven(lambda: driver.switch_to.new_window("tab"))
    await driven(driver.close)
    assert ["live"] == [record["status"] for record in await sessions(real_cloud)]
    await driven(lambda: driver.switch_to.window(driver.window_handles[0]))
    await driven(driver.close)
    assert ["released"] == [record["status"] for record in await sessions(real_cloud)]
    await driven(driver.quit)


async def test_a_session_that_ended_is_told_with_its_reason(real_cloud: Cloud) -> None:
    """A client that vanishes leaves its session to the timeout, which ends it."""
    url = f"{real_cloud.url}/wd/hub"
    options = {**SHELL, "timeout": 1500}
    driver = await driven(lambda: connect(url, key=KEY, browsercloud__options=options))
    end = asyncio.get_running_loop().time() + 10
    while (await sessions(real_cloud))[0]["status"] != "released":
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.05)
    with pytest.raises(InvalidSessionIdException, match="has ended: timeout"):
        await driven(lambda: driver.title)
    await driven(driver.quit)


@pytest.mark.parametrize("engine", [FailingEngine(), IdleEngine()])
async def test_what_cannot_start_leaves_nothing(start_cloud: StartCloud, engine: Any) -> None:
    """No browser, or no chromedriver for it: `session not created`, and the session is released."""
    cloud = await start_cloud(engine)
    body = {"capabilities": {"alwaysMatch": {}}}
    status, answer = await cloud.call("POST", "/wd/hub/session", json=body)
    assert (500, "session not created") == (status, answer["value"]["error"])
    assert {} == dict(engine.running())
    (record,) = await sessions(cloud)
    assert record["status"] in ("released", "failed")


async def test_a_browser_that_does_not_come_is_not_waited_for_for_ever(
    start_cloud: StartCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start is given up, and what was begun of it is gone."""
    monkeypatch.setattr(hub, "START_PATIENCE", 0.2)
    engine = NeverEngine()
    cloud = await start_cloud(engine)
    body: dict[str, Any] = {"capabilities": {"alwaysMatch": {}}}
    status, answer = await cloud.call("POST", "/wd/hub/session", json=body)
    assert (429, "session not created") == (status, answer["value"]["error"])
    assert "no browser became free" in answer["value"]["message"]
    assert engine.starts == engine.cancelled


@pytest.mark.parametrize("cancelling", [False, True])
async def test_a_client_that_hangs_up_while_it_begins_leaves_nothing(
    start_cloud: StartCloud, root: Path, cancelling: bool
) -> None:
    """Nobody would ever end the session: it is released, with and without cancellation."""
    slow = program(root / "slow", 'case "$1" in --port*) sleep 1;; esac; exec chromedriver "$@"')
    engine = LocalEngine(root / "data", chromedriver=slow)
    cloud = await start_cloud(engine, handler_cancellation=cancelling)
    # Longer than the test waits: something else has to end it.
    options = {**SHELL, "timeout": 60_000}
    body = {"capabilities": {"alwaysMatch": {"browsercloud:options": options}}}
    begun: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: any(cloud.parts.sessions.counts().values()), "the session is there"),
        (lambda: drivers(root), "chromedriver runs"),
    )
    for number, (condition, what) in enumerate(begun, 1):
        asking = asyncio.create_task(cloud.call("POST", "/wd/hub/session", json=body))
        await until(condition, what)
        await stop_task(asking)
        end = asyncio.get_running_loop().time() + 10
        while number > sum(record["status"] in ENDED for record in await sessions(cloud)):
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.02)
        assert {} == dict(cloud.engine.running())
        assert [] == drivers(root)


@pytest.mark.parametrize(
    ("options", "status"),
    [({"proxyUrl": "http://x"}, 400), ({"timeout": 0}, 400), ({"sessionId": "x"}, 400)],
)
async def test_options_are_checked_as_those_of_create(
    cloud: Cloud, options: dict[str, Any], status: int
) -> None:
    """By name, before anything is started."""
    body = {"capabilities": {"alwaysMatch": {"browsercloud:options": options}}}
    found, answer = await cloud.call("POST", "/wd/hub/session", json=body)
    assert (status, "invalid argument") == (found, answer["value"]["error"])
    assert [] == await sessions(cloud)


async def test_status_and_unknown_commands(cloud: Cloud) -> None:
    """Ready without a key; what is no command is said to be none."""
    status, answer = await cloud.call("GET", "/wd/hub/status", key=None)
    assert (200, True) == (status, answer["value"]["ready"])
    for method, path in (("GET", "/wd/hub"), ("GET", "/wd/hub/sessions"), ("PUT", "/wd/hub/x/y")):
        status, answer = await cloud.call(method, path)
        assert (404, "unknown command") == (status, answer["value"]["error"])


async def test_the_door_speaks_the_protocol_too(start_cloud: StartCloud) -> None:
    """Who is not let in, asks too much or has to wait gets its status, in the protocol's form."""
    body: dict[str, Any] = {"capabilities": {"alwaysMatch": {}}}
    cloud = await start_cloud(max_sessions=1, max_queue=1)
    await cloud.create()
    await cloud.call("POST", "/v1/sessions?wait=false", json={})
    open_cloud = await start_cloud(no_auth=True, api_key=None)
    foreign = {"Origin": "http://elsewhere"}
    for where, expected, more in (
        (cloud, 401, {"key": "wrong", "json": body}),
        (open_cloud, 403, {"key": None, "headers": foreign, "json": body}),
        (cloud, 413, {"data": io.BytesIO(b" " * (2**20 + 1))}),
        (cloud, 429, {"json": body}),
        (cloud, 400, {"data": b"{"}),
        (cloud, 400, {"json": {"capabilities": "chrome"}}),
    ):
        status, answer = await where.call("POST", "/wd/hub/session", **more)
        word = "invalid argument" if expected == 400 else "session not created"
        assert (expected, word) == (status, answer["value"]["error"])
        assert {"error", "message", "stacktrace"} == answer["value"].keys()
    status, answer = await open_cloud.call("GET", "/wd/hub/status", key=None, headers=foreign)
    assert (403, "unknown error") == (status, answer["value"]["error"])


async def test_an_edge_is_refused_by_name(cloud: Cloud) -> None:
    """With what there is instead."""
    with pytest.raises(SessionNotCreatedException, match=r"browserName: must be one of chrome"):
        await driven(lambda: connect(f"{cloud.url}/wd/hub", key=KEY, browserName="MicrosoftEdge"))


async def test_nothing_outlives_a_killed_server(root: Path) -> None:
    """SIGKILL: the guard ends browser and chromedriver, and removes the folder."""
    with serving(root, "--orphan-grace", "0") as server:
        driver = await driven(
            lambda: connect(f"{server.url}/wd/hub", key=server.key, browsercloud__options=SHELL)
        )
        assert 1 == len(drivers(root))
        server.kill()
        await until(lambda: not drivers(root), "chromedriver is gone")
        await until(lambda: not list((root / "data/sessions").glob("*")), "the folder is gone")
        driver.command_executor.close()
