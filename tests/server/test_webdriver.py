"""The WebDriver bridge: real Selenium, real chromedriver, real Chromium."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cdp_use.client import CDPClient
from playwright.async_api import async_playwright
from selenium.common.exceptions import (
    InvalidSessionIdException,
    NoSuchElementException,
    SessionNotCreatedException,
    WebDriverException,
)
from selenium.webdriver.common.by import By
from yarl import URL

from browsercloud.engines.local import LocalEngine
from tests.browser.test_chromedriver import drivers, program
from tests.conftest import Site
from tests.nodes import NODE, node_modules
from tests.processes import until
from tests.server.conftest import KEY, OTHER_KEY, Cloud, StartCloud
from tests.server.driving import connect, driven

PAGE = """<!doctype html><title>First</title><button onclick="document.title='clicked'">b</button>
<a href="/second">next</a><script>document.cookie = 'seen=yes'</script>"""
SHELL = {"browser": "headless-shell"}


async def test_a_session_is_driven_by_its_url_alone(real_cloud: Cloud, site: Site) -> None:
    """Title, click, find, cookies, script, alert, window, picture: as Selenium's users do."""
    site.pages["/first"] = PAGE
    record = await real_cloud.create(**SHELL)

    def work() -> None:
        driver = connect(record["webdriverUrl"])
        driver.get(f"{site.url}/first")
        assert "First" == driver.title
        driver.find_element(By.TAG_NAME, "button").click()
        assert "clicked" == driver.title
        assert {"seen": "yes"} == {c["name"]: c["value"] for c in driver.get_cookies()}
        with pytest.raises(NoSuchElementException):
            driver.find_element(By.ID, "nothing")
        later = "const done = arguments[1]; setTimeout(() => done(arguments[0] + 1), 10)"
        assert 3 == driver.execute_async_script(later, 2)
        driver.execute_script("setTimeout(() => confirm('sure?'), 0)")
        alert = driver.switch_to.alert
        assert "sure?" == alert.text
        alert.accept()
        assert driver.get_screenshot_as_png().startswith(b"\x89PNG")
        first = driver.current_window_handle
        driver.switch_to.new_window("tab")
        assert 2 == len(driver.window_handles)
        driver.close()
        driver.switch_to.window(first)
        assert record["id"] == driver.capabilities["browsercloud:sessionId"]
        assert driver.capabilities["se:cdp"] == record["websocketUrl"]
        driver.quit()

    await driven(work)
    status, after = await real_cloud.call("GET", f"/v1/sessions/{record['id']}")
    assert (200, "live") == (status, after["status"])


async def test_two_drivers_drive_one_session(real_cloud: Cloud, site: Site) -> None:
    """Ending one leaves the other; both see the same page, through one chromedriver."""
    record = await real_cloud.create(**SHELL)

    def work() -> None:
        one, two = connect(record["webdriverUrl"]), connect(record["webdriverUrl"])
        one.get(site.url)
        assert "Home" == two.title
        one.quit()
        assert "Home" == two.title
        two.quit()

    await driven(work)
    assert 1 == len(drivers(Path(real_cloud.engine.data_dir)))


PUPPETEER = """
const puppeteer = require('puppeteer-core');
(async () => {
  const browser = await puppeteer.connect({browserWSEndpoint: process.env.ADDRESS});
  const page = await browser.newPage();
  await page.goto(process.argv[2]);
  console.log('open');
  for await (const line of process.stdin) {
    console.log(JSON.stringify((await browser.pages()).map(one => one.url()).sort()));
    await browser.disconnect();
    break;
  }
})();
"""


@asynccontextmanager
async def puppeteer(root: Path, address: str, url: str) -> AsyncIterator[Process]:
    """Puppeteer in Node with a page at *url*; told something, it says what is open, and leaves."""
    (root / "node_modules").symlink_to(node_modules())
    script = root / "puppeteer.cjs"
    script.write_text(PUPPETEER)
    node = await asyncio.create_subprocess_exec(
        NODE, str(script), url, stdin=PIPE, stdout=PIPE, env=os.environ | {"ADDRESS": address}
    )
    try:
        assert node.stdout is not None
        assert b"open\n" == await node.stdout.readline()
        yield node
    finally:
        if node.returncode is None:
            node.kill()
        await node.communicate()


async def test_all_tools_at_once_see_the_same_tabs(
    real_cloud: Cloud, site: Site, root: Path
) -> None:
    """Two Playwrights, Puppeteer, Selenium and browser-use's CDP on one session: all see all."""
    site.pages.update({f"/{n}": f"<title>{n}</title>" for n in ("one", "two", "node", "driver")})
    record = await real_cloud.create(**SHELL)
    address = record["websocketUrl"]
    async with (
        async_playwright() as playwright,
        puppeteer(root, address, f"{site.url}/node") as node,
    ):
        first, second = [await playwright.chromium.connect_over_cdp(address) for _ in range(2)]
        driver = await driven(lambda: connect(record["webdriverUrl"]))
        await driven(lambda: driver.switch_to.new_window("tab"))
        await driven(lambda: driver.get(f"{site.url}/driver"))
        for browser, name in ((first, "one"), (second, "two")):
            await (await browser.contexts[0].new_page()).goto(f"{site.url}/{name}")
        tabs = sorted(
            ["about:blank", *(f"{site.url}/{n}" for n in ("driver", "node", "one", "two"))]
        )
        for browser in (first, second):
            seen = browser.contexts[0]
            await until(lambda: tabs == sorted(page.url for page in seen.pages), "all see it")  # noqa: B023
        async with CDPClient(address) as cdp:
            targets = (await cdp.send.Target.getTargets())["targetInfos"]
            assert tabs == sorted(each["url"] for each in targets if each["type"] == "page")
        told, _ = await node.communicate(b"now\n")
        assert (0, tabs) == (node.returncode, json.loads(told))

        def urls() -> list[str]:
            found = []
            for handle in driver.window_handles:
                driver.switch_to.window(handle)
                found.append(driver.current_url)
            driver.quit()
            return sorted(found)

        assert tabs == await driven(urls)
        await first.close()
        await second.close()


async def test_a_key_or_a_basic_token_opens_it_and_nothing_else(real_cloud: Cloud) -> None:
    """The key of the project, the token as a password; not another's key, not another's token."""
    record, other = await real_cloud.create(**SHELL), await real_cloud.create(**SHELL)
    plain = f"{real_cloud.url}/v1/sessions/{record['id']}/webdriver"
    token = real_cloud.token(record)

    def work() -> None:
        for password in (KEY, token):
            connect(plain, key=password).quit()
        for password in (None, "wrong", real_cloud.token(other)):
            with pytest.raises(WebDriverException, match="Authorization"):
                connect(plain, key=password)
        with pytest.raises(InvalidSessionIdException, match="no session"):
            connect(plain, key=OTHER_KEY)

    await driven(work)
    wrong = record["webdriverUrl"].replace(token, real_cloud.token(other))
    async with real_cloud.http.get(f"{wrong}/session/x/url") as reply:
        assert 401 == reply.status
        assert reply.headers["WWW-Authenticate"].startswith("Basic ")


async def test_errors_are_the_protocols(real_cloud: Cloud) -> None:
    """Status and word are those of the W3C's text, whoever found the fault."""
    record = await real_cloud.create(**SHELL)
    edge, slow = '{"browserName": "MicrosoftEdge"}', '{"pageLoadStrategy": "slow"}'
    other = '{"browsercloud:options": {"userAgent": "x"}}'
    for method, path, body, status, error in (
        ("GET", "session/0123456789abcdef/url", None, 404, "invalid session id"),
        ("GET", "nothing", None, 404, "unknown command"),
        ("POST", "session", "{", 400, "invalid argument"),
        ("POST", "session", "{}", 400, "invalid argument"),
        ("POST", "session", asking(edge), 500, "session not created"),
        ("POST", "session", asking(slow), 400, "invalid argument"),
        ("POST", "session", asking(other), 500, "session not created"),
    ):
        url = f"{record['webdriverUrl']}/{path}"
        async with real_cloud.http.request(method, url, data=body) as reply:
            value = (await reply.json())["value"]
            assert (status, error) == (reply.status, value["error"]), (path, body)


def asking(capabilities: str) -> str:
    """The body of New Session."""
    return f'{{"capabilities": {{"alwaysMatch": {capabilities}}}}}'


async def test_nothing_but_commands_reaches_chromedriver(real_cloud: Cloud) -> None:
    """Its own New Session would start any program of the machine."""
    record = await real_cloud.create(**SHELL)
    body = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"binary": "/bin/true"}}}}
    for path in (
        "session/",
        "session/x/../../session",
        "session/x/%2e%2e/%2e%2e/session",
        "session//",
        "session/%2e%2e/session",
        "session/a%2f..%2f../url",
        "shutdown",
    ):
        url = URL(f"{record['webdriverUrl']}/{path}", encoded=True)
        async with real_cloud.http.post(url, json=body) as reply:
            value = (await reply.json())["value"]
            assert (404, "unknown command") == (reply.status, value["error"]), path


async def test_an_ended_session_is_no_session(real_cloud: Cloud) -> None:
    """`invalid session id`, with the reason; also for a command that was under way."""
    record = await real_cloud.create(**SHELL)
    driver = await driven(lambda: connect(record["webdriverUrl"]))
    await driven(lambda: driver.set_script_timeout(60))
    blocked = asyncio.create_task(driven(lambda: driver.execute_async_script("void 0")))
    await asyncio.sleep(0.3)  # it has to be on its way; earlier, the end would come before it
    assert not blocked.done()
    status, _ = await real_cloud.call("DELETE", f"/v1/sessions/{record['id']}")
    assert 200 == status
    async with asyncio.timeout(5):
        with pytest.raises(InvalidSessionIdException, match="user_requested"):
            await blocked
    with pytest.raises(InvalidSessionIdException, match="user_requested"):
        await driven(lambda: driver.title)
    driver.command_executor.close()


async def test_a_mismatch_names_both_versions(start_cloud: StartCloud, root: Path) -> None:
    """In the protocol's words for Selenium, in ours for a create."""
    fake = program(root / "driver", "echo ChromeDriver 99.0.0.1")
    cloud = await start_cloud(LocalEngine(root / "data", chromedriver=fake))
    status, answer = await cloud.call("POST", "/v1/sessions", json={"adapter": "selenium"})
    assert (502, "launch_failed") == (status, answer["error"]["code"])
    assert "99.0.0.1" in answer["message"]
    with pytest.raises(SessionNotCreatedException, match=r"99\.0\.0\.1.*browsercloud install"):
        await driven(lambda: connect(f"{cloud.url}/wd/hub", key=KEY))
    assert {} == dict(cloud.engine.running())


async def test_commands_are_driver_traffic(real_cloud: Cloud, site: Site) -> None:
    """Each counts, with its bytes, and sets the time."""
    record = await real_cloud.create(**SHELL)
    driver = await driven(lambda: connect(record["webdriverUrl"]))
    active = real_cloud.parts.sessions.live(record["id"])
    assert active is not None
    both = (active.traffic, real_cloud.parts.totals)
    active.traffic.last = 0.0
    before = [(traffic.messages_in, traffic.messages_out) for traffic in both]
    await driven(lambda: driver.get(site.url))
    assert active.traffic.last > 0
    for traffic, (sent, got) in zip(both, before, strict=True):
        assert (sent + 1, got + 1) == (traffic.messages_in, traffic.messages_out)
        assert traffic.bytes_in > len(site.url)
        assert traffic.bytes_out > 0
    await driven(driver.quit)


async def test_large_bodies_pass(real_cloud: Cloud) -> None:
    """Several megabytes each way, beyond every limit that other routes have."""
    record = await real_cloud.create(**SHELL)
    driver = await driven(lambda: connect(record["webdriverUrl"]))
    text = "x" * 5_000_000
    assert text == await driven(lambda: driver.execute_script("return arguments[0]", text))
    await driven(driver.quit)


async def test_no_token_reaches_the_log(
    real_cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the one in a session's URL nor the one in a hub's id; nor a listing."""
    caplog.set_level(logging.DEBUG, logger="browsercloud")
    record = await real_cloud.create(**SHELL)

    def work() -> str:
        driver = connect(record["webdriverUrl"])
        assert "" == driver.title
        driver.quit()
        hub = connect(f"{real_cloud.url}/wd/hub", key=KEY, browsercloud__options=SHELL)
        assert "" == hub.title
        hub.quit()
        return str(hub.session_id).partition(".")[2].partition(".")[2]

    hub_token = await driven(work)
    assert "/webdriver/…/session" in caplog.text
    for secret in (real_cloud.token(record), hub_token, KEY):
        assert secret
        assert secret not in caplog.text
    _, listed = await real_cloud.call("GET", "/v1/sessions")
    for one in listed["sessions"]:
        assert one["webdriverUrl"].endswith(f"/v1/sessions/{one['id']}/webdriver")


async def test_a_client_that_hangs_up_does_not_disturb(start_cloud: StartCloud, root: Path) -> None:
    """With handler cancellation too: the command is given up, the next one works."""
    cloud = await start_cloud(LocalEngine(root / "data"), handler_cancellation=True)
    record = await cloud.create(**SHELL)
    driver = await driven(lambda: connect(record["webdriverUrl"]))
    url = f"{record['webdriverUrl']}/session/{driver.session_id}/execute/async"
    body: dict[str, Any] = {"script": "setTimeout(arguments[0], 700)", "args": []}
    with pytest.raises(TimeoutError):
        await cloud.http.post(url, json=body, timeout=aiohttp.ClientTimeout(total=0.3))
    assert "" == await driven(lambda: driver.title)
    await driven(driver.quit)
