"""`adapter="selenium"`: a real driver, awaited, and released whatever its calls do."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from selenium.common.exceptions import NoSuchElementException, WebDriverException
from selenium.webdriver import Remote
from selenium.webdriver.common.by import By

from browsercloud import BrowserCloud, ConnectionFailed, LaunchFailed, UsageError
from browsercloud.client.adapters import selenium as module
from browsercloud.models import SessionStatus
from tests.browser.test_chromedriver import drivers, program
from tests.conftest import Site
from tests.leaks import browsers, nothing_is_left


@pytest.fixture
async def client() -> AsyncIterator[BrowserCloud]:
    """A client with an embedded server."""
    async with BrowserCloud(pool=0) as client:
        yield client


async def test_a_session_has_a_real_driver(client: BrowserCloud, site: Site) -> None:
    """Its calls can be awaited, in order and in one thread; what they raise comes out."""
    async with client.session(adapter="selenium", browser="headless-shell") as session:
        assert isinstance(session.driver, Remote)
        await session.run(session.driver.get, site.url)
        assert "Home" == await session.run(lambda: session.driver.title)
        found = await session.run(session.driver.find_element, By.TAG_NAME, value="h1")
        assert "Home" == await session.run(lambda: found.text)
        with pytest.raises(NoSuchElementException):
            await session.run(session.driver.find_element, By.ID, "nothing")
        threads = {await session.run(threading.get_ident) for _ in range(3)}
        assert 1 == len(threads)
        assert threading.get_ident() not in threads
        assert "selenium" == session.info.adapter
        for attribute in ("page", "context", "browser"):
            with pytest.raises(UsageError, match="adapter='selenium'"):
                getattr(session, attribute)
        with pytest.raises(UsageError, match="adapter='selenium'"):
            await session.reconnect()
    with pytest.raises(UsageError, match="released"):
        _ = session.driver


async def test_a_release_does_not_wait_for_a_call_that_blocks(
    client: BrowserCloud, root: Path
) -> None:
    """Given up by a cancellation or by leaving; the session is gone within its bound."""
    async with client.session(adapter="selenium", browser="headless-shell") as session:
        await session.run(session.driver.set_script_timeout, 100)
        blocked = asyncio.create_task(
            session.run(session.driver.execute_async_script, "window.begun = 1")
        )
        await asyncio.sleep(0.3)  # time for the call to get there; it would end earlier otherwise
        begun = time.monotonic()
        blocked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await blocked
        assert time.monotonic() - begun < 0.5
    assert time.monotonic() - begun < 8
    await session.release(wait=True)
    record = await client.sessions.retrieve(session.id)
    assert SessionStatus.RELEASED is record.status
    assert [] == drivers(root)


async def test_a_call_under_way_is_answered_by_the_end(client: BrowserCloud) -> None:
    """Somebody who still waits for it is told, and does not wait for ever."""
    async with client.session(adapter="selenium", browser="headless-shell") as session:
        await session.run(session.driver.set_script_timeout, 100)
        blocked = asyncio.create_task(
            session.run(session.driver.execute_async_script, "window.begun = 1")
        )
        await asyncio.sleep(0.3)
        await session.release()
        async with asyncio.timeout(5):
            with pytest.raises(WebDriverException, match="user_requested"):
                await blocked


async def test_a_body_that_raises_is_released_too(client: BrowserCloud, root: Path) -> None:
    """The body's error comes out, nothing is left of browser and chromedriver."""
    with pytest.raises(ZeroDivisionError):
        async with client.session(adapter="selenium", browser="headless-shell") as session:
            assert 1 == len(drivers(root))
            _ = 1 / 0
    await session.release(wait=True)
    assert [] == drivers(root)
    assert SessionStatus.RELEASED is (await client.sessions.retrieve(session.id)).status


async def test_sessions_by_id(client: BrowserCloud, site: Site) -> None:
    """`client.selenium.connect` attaches and detaches; a listed session opens nothing."""
    session = await client.sessions.create(browser="headless-shell")
    async with await client.selenium.connect(session) as connection:
        await connection.run(connection.driver.get, site.url)
        assert "Home" == await connection.run(lambda: connection.driver.title)
    with pytest.raises(UsageError):
        await connection.run(print)
    assert SessionStatus.LIVE is (await client.sessions.retrieve(session.id)).status
    (listed,) = (await client.sessions.list()).sessions
    with pytest.raises(UsageError, match="hold no token"):
        await client.selenium.connect(listed)
    assert session.webdriver_url not in repr(session)
    await client.sessions.release(session.id)
    with pytest.raises(ConnectionFailed) as caught:
        await client.selenium.connect(session)
    assert session.webdriver_url.rpartition("/")[2] not in str(caught.value)


async def test_without_the_extra_it_says_which(
    client: BrowserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, with nothing sent."""
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert importlib.util.find_spec("selenium") is not None
    with pytest.raises(UsageError, match=r"pip install 'browsercloud\[selenium\]'"):
        client.session(adapter="selenium")
    assert 0 == (await client.sessions.list()).total_count


async def test_a_chromedriver_that_cannot_be_had_says_what_to_do(root: Path) -> None:
    """None at the path that was given, or one of another version; no browser is started for it."""
    other = program(root / "other", "echo ChromeDriver 99.0.0.1")
    for path, says in (
        (root / "none", "which is no program"),
        (other, r"99\.0\.0\.1.*does not fit"),
    ):
        async with BrowserCloud(chromedriver=path, pool=0) as client:
            with pytest.raises(LaunchFailed, match=f"(?s){says}.*browsercloud install"):
                async with client.session(adapter="selenium", browser="headless-shell"):
                    pass
            assert [] == browsers(root)


async def test_puppeteer_has_no_driver_in_python(client: BrowserCloud) -> None:
    """A socket for somebody else's program, and a release like any other."""
    async with client.session(adapter="puppeteer", browser="headless-shell") as session:
        assert session.websocket_url.startswith("ws://")
        with pytest.raises(UsageError, match="adapter='puppeteer'"):
            _ = session.page
        with pytest.raises(UsageError, match="ask for the session with adapter='selenium'"):
            _ = session.driver
        with pytest.raises(UsageError, match="ask for the session with adapter='selenium'"):
            await session.run(print)
    await session.release(wait=True)
    assert SessionStatus.RELEASED is (await client.sessions.retrieve(session.id)).status


async def test_a_cancelled_start_leaves_nothing(root: Path) -> None:
    """Whenever it comes: no browser, no chromedriver, no thread."""
    for after in (0.05, 0.3, 0.6):
        async with BrowserCloud() as client:

            async def use(client: BrowserCloud = client) -> None:
                async with client.session(adapter="selenium", browser="headless-shell"):
                    await asyncio.Event().wait()

            task = asyncio.create_task(use())
            await asyncio.sleep(after)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [] == drivers(root)
    await nothing_is_left(root, 5)
