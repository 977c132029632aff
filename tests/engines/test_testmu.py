"""Sessions at TestMu's cloud, against a double that speaks the real protocols."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from browsercloud import (
    BrowserCloud,
    BrowserCrashed,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    LaunchFailed,
    NoCapacity,
    NotAuthorized,
    UsageError,
)
from browsercloud.cdp.connection import CdpConnection
from browsercloud.client.config import resolve
from browsercloud.engines import testmu
from browsercloud.options import SessionOptions
from tests.conftest import Site
from tests.server.conftest import until
from tests.testmu_double import ACCESS_KEY, PLAYWRIGHT_AGENT, USER, Double


@pytest.fixture
async def vendor(root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Double]:
    """The double, and an environment that leads to it."""
    async with Double(root).running() as double:
        for name, value in double.environ().items():
            monkeypatch.setenv(name, value)
        yield double
        assert set() == double.live


@pytest.fixture(autouse=True)
def nothing_is_told(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No log line of any test, down to debug, has the access key."""
    caplog.set_level(logging.DEBUG)
    yield
    assert ACCESS_KEY not in caplog.text


async def test_playwright_drives_a_browser_there(vendor: Double, site: Site) -> None:
    """By `connect()`, with every field; the end of the session is the end there."""
    more = {
        "platformName": "Windows 11",
        "tunnel": True,
        "tunnelName": "t1",
        "geoLocation": "US",
        "region": "eu",
        "video": True,
        "console": "info",
        "network": True,
        "browserVersion": "latest-1",
    }
    async with BrowserCloud() as client:
        assert ACCESS_KEY not in repr(client) + repr(client.config)
        async with client.session(
            build="b1", name="n1", dimensions=(800, 600), idle_timeout=90, lambdatest_options=more
        ) as session:
            await session.page.goto(site.url)
            assert "Home" == await session.page.title()
            assert [800, 600] == await session.page.evaluate("[innerWidth, innerHeight]")
            assert 1 == len(vendor.live)
            info = session.info
            assert "playwright" == info.protocol
            listed = await client.sessions.list()
            told = repr(info) + repr(listed) + str(dict(info.config)) + session.websocket_url
            assert ACCESS_KEY not in told
            with pytest.raises(ConnectionFailed, match="one connection"):
                await client.playwright.connect(info)
            with pytest.raises(Conflict, match="one connection"):
                await client.sessions.live(session.id)
        await until(lambda: not vendor.live)
    (asked,) = vendor.asked
    version = PLAYWRIGHT_AGENT.partition("/")[2]
    assert {
        "browserName": "Chrome",
        "browserVersion": "latest-1",
        "LT:Options": {
            "user": USER,
            "accessKey": ACCESS_KEY,
            "build": "b1",
            "name": "n1",
            "resolution": "800x600",
            "headless": True,
            "idleTimeout": 90,
            "playwrightClientVersion": version,
            **{name: value for name, value in more.items() if name != "browserVersion"},
        },
    } == asked
    assert [PLAYWRIGHT_AGENT] == vendor.agents


async def test_any_cdp_client_drives_a_browser_there(vendor: Double, site: Site) -> None:
    """With `adapter="puppeteer"`; and Playwright's own protocol is refused with what to do."""
    async with BrowserCloud() as client:
        async with client.session(adapter="puppeteer") as session:
            own = session.websocket_url.replace("/cdp?", "/playwright?")
            assert 409 == await refused(own)
            async with await CdpConnection.open(session.websocket_url) as browser:
                made = await browser.send("Target.createTarget", {"url": site.url})
                found = (await browser.send("Target.getTargets"))["targetInfos"]
                assert made["targetId"] in {target["targetId"] for target in found}
                assert 409 == await refused(session.websocket_url)
        assert "cdp" == session.info.protocol
    assert "playwrightClientVersion" not in vendor.asked[0]["LT:Options"]


async def refused(url: str) -> int:
    """The status with which a WebSocket is refused."""
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(url)
    return caught.value.status


async def test_selenium_drives_a_browser_there(vendor: Double, site: Site) -> None:
    """By the hub; `quit` detaches, so that it can be driven again, and the release ends it."""
    async with BrowserCloud() as client:
        async with client.session(adapter="selenium", name="n1") as session:
            await session.run(session.driver.get, site.url)
            assert "Home" == await session.run(lambda: session.driver.title)
            assert ACCESS_KEY not in json.dumps(session.driver.capabilities)
            with pytest.raises(ConnectionFailed, match="in use"):
                await client.selenium.connect(session.info)
            await session.run(session.driver.quit)
            assert 1 == len(vendor.live)
            async with await client.selenium.connect(session.info) as again:
                assert "Home" == await again.run(lambda: again.driver.title)
            # An account has other sessions too, and a token opens this one.
            async with aiohttp.ClientSession() as http:
                url = f"{session.webdriver_url}/session/somebody-elses/url"
                async with http.get(url) as reply:
                    assert 404 == reply.status
        await until(lambda: not vendor.live)
    assert "n1" == vendor.asked[0]["LT:Options"]["name"]


@pytest.mark.parametrize("adapter", ["playwright", "puppeteer", "selenium"])
async def test_refusals_of_the_vendor_are_told_in_our_words(
    vendor: Double, adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full plan, credentials that are none, something that it does not offer, no answer."""
    async with BrowserCloud() as client:
        vendor.full = True
        with pytest.raises(NoCapacity, match="plan has no room"):
            await client.sessions.create(adapter=adapter)
        vendor.full = False
        with pytest.raises(LaunchFailed, match="status 400") as caught:
            await client.sessions.create(adapter=adapter, lambdatest_options={"unheard": 1})
        assert ACCESS_KEY not in str(caught.value)
        ended = await client.sessions.list()
        assert ["startup_failed"] * 2 == [str(one.release_reason) for one in ended.sessions]
    monkeypatch.setenv("LT_ACCESS_KEY", "wrong-" + ACCESS_KEY)
    async with BrowserCloud() as client:
        with pytest.raises(NotAuthorized, match="LT_ACCESS_KEY") as refused:
            await client.sessions.create(adapter=adapter)
        assert ACCESS_KEY not in str(refused.value)
    monkeypatch.setenv("LT_CDP_URL", "ws://127.0.0.1:9")
    monkeypatch.setenv("LT_HUB_URL", "http://127.0.0.1:9/wd/hub")
    async with BrowserCloud() as client:
        with pytest.raises(LaunchFailed, match=r"cannot be reached at \S+127\.0\.0\.1:9"):
            await client.sessions.create(adapter=adapter)
    assert [] == vendor.asked


async def test_a_browser_that_ends_there_ends_the_session(vendor: Double) -> None:
    """With what is known of it, from the user's own error."""
    async with BrowserCloud() as client:
        with pytest.raises(BrowserCrashed) as caught:
            async with client.session(adapter="puppeteer") as session:
                async with await CdpConnection.open(session.websocket_url) as browser:
                    await vendor.hang_up()
                    await asyncio.wait({browser.closed}, timeout=5)
                raise RuntimeError("it is gone")
        evidence = caught.value.evidence
        assert evidence is not None
        assert ("TestMu's connection closed with code 4000",) == evidence.stderr


async def test_a_start_that_is_given_up_is_undone_there(vendor: Double) -> None:
    """Also when the vendor answers after that: its browser would run on, and cost."""
    vendor.slow = 0.5
    async with BrowserCloud() as client:
        creating = asyncio.create_task(client.sessions.create(adapter="selenium"))
        await until(lambda: len(vendor.live) == 1)
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        await until(lambda: not vendor.live)


async def test_a_client_that_never_releases_costs_seconds(
    vendor: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can follow on a connection that was used, so it is not kept."""
    monkeypatch.setattr("browsercloud.engines.only.LEFT_GRACE", 0.05)
    async with BrowserCloud() as client:
        session = await client.sessions.create(adapter="puppeteer")
        async with await CdpConnection.open(session.websocket_url):
            assert 1 == len(vendor.live)
        await until(lambda: not vendor.live)
        async with asyncio.timeout(5):
            while (await client.sessions.retrieve(session.id)).release_reason is None:
                await asyncio.sleep(0.01)
        assert "browser_closed" == (await client.sessions.retrieve(session.id)).release_reason


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"browser": "headless-shell"}, "browser"),
        ({"user_agent": "me"}, "userAgent"),
        ({"lambdatest_options": {"accessKey": ACCESS_KEY}}, "lambdatestOptions.accessKey"),
        ({"lambdatest_options": {"browserName": "pw-webkit"}}, "lambdatestOptions.browserName"),
    ],
)
async def test_what_is_not_offered_there_is_refused_by_name(
    vendor: Double, options: dict[str, Any], path: str
) -> None:
    """Before the vendor is asked for anything."""
    async with BrowserCloud() as client:
        with pytest.raises(InvalidRequest) as caught:
            await client.sessions.create(**options)
    assert [path] == [one["path"] for one in caught.value.details]
    assert ACCESS_KEY not in str(caught.value)
    assert [] == vendor.asked


async def test_on_this_machine_labels_count_and_the_rest_is_refused(
    vendor: Double, site: Site
) -> None:
    """`testmu=False` runs sessions here, whatever the environment holds."""
    async with BrowserCloud(testmu=False) as client:
        labels = {"build": "b1", "name": "n1", "video": False}
        session = await client.sessions.create(browser="headless-shell", lambdatest_options=labels)
        assert ("b1", "n1", "cdp") == (session.build, session.name, session.protocol)
        with pytest.raises(InvalidRequest, match=r"lambdatestOptions\.video"):
            await client.sessions.create(lambdatest_options={"video": True})
    assert [] == vendor.asked


def test_who_decides_where_sessions_run() -> None:
    """A URL outranks TestMu, and so does a browser by its path; half of the credentials is none."""
    both = {"LT_USERNAME": USER, "LT_ACCESS_KEY": ACCESS_KEY}
    url = {"BROWSERCLOUD_URL": "http://h:1"}
    for given, environ, there in (
        ({}, {}, False),
        ({}, both, True),
        ({"testmu": True}, both, True),
        ({"testmu": False}, both, False),
        ({}, both | url, False),
        ({"url": "http://h:1"}, both, False),
        ({"chromium": "/chromium"}, both, False),
        ({"testmu": False}, {"LT_USERNAME": USER}, False),
    ):
        config = resolve(given, environ)
        assert there == config.testmu, given
        assert ACCESS_KEY not in repr(config)
    wrong: list[tuple[dict[str, Any], dict[str, str], str]] = [
        ({}, {"LT_USERNAME": USER}, "LT_ACCESS_KEY: not set"),
        ({}, {"LT_ACCESS_KEY": ACCESS_KEY}, "LT_USERNAME: not set"),
        ({"testmu": True}, {}, "LT_USERNAME and LT_ACCESS_KEY"),
        ({"testmu": True}, both | url, "leave url out"),
        ({}, both | {"LT_CDP_URL": "cdp.lambdatest.com"}, "LT_CDP_URL"),
        ({}, both | {"LT_HUB_URL": "https://me:x@h/wd/hub"}, "LT_HUB_URL"),
    ]
    for given, environ, words in wrong:
        with pytest.raises(UsageError, match=words) as caught:
            resolve(given, environ)
        assert ACCESS_KEY not in str(caught.value)


def test_the_engine_does_not_tell_its_key() -> None:
    """Nor what it asks for, when it is shown."""
    engine = testmu.TestMuEngine(USER, ACCESS_KEY)
    assert ACCESS_KEY not in repr(engine) + repr(SessionOptions())
    assert "latest" == engine.capabilities(SessionOptions())["browserVersion"]
