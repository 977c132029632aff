"""`client.session(...)`: what is there inside, what is shared, what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Error as PlaywrightError

from browsercloud import (
    BrowserCloud,
    BrowserCrashed,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    ReleasedElsewhere,
    ReleaseReason,
    ServiceError,
    Session,
    SessionEnded,
    SessionStatus,
    SessionTimedOut,
    UsageError,
)
from browsercloud.local import LocalServer
from tests.conftest import Site
from tests.faults import DROP_BEFORE, faulty
from tests.leaks import browsers
from tests.processes import drivers
from tests.server.test_sessions import IdleEngine, StickyEngine

ID = "5b5b1f0e-6a0e-4a9e-9b3e-0d3c1f3f5a11"


@pytest.fixture
async def client() -> AsyncIterator[BrowserCloud]:
    """A client with an embedded server."""
    async with BrowserCloud() as client:
        yield client


async def ended(client: BrowserCloud, session_id: str) -> Session:
    """The record of a session that is about to end by itself, once it has."""
    async with asyncio.timeout(10):
        while not (record := await client.sessions.retrieve(session_id)).status.ended:
            await asyncio.sleep(0.02)
    return record


@pytest.mark.usefixtures("pool")
async def test_the_main_job(site: Site) -> None:
    """The first three lines of the README, with full Chromium."""
    async with BrowserCloud() as client:
        async with client.session() as session:
            await session.page.goto(site.url)
            assert await session.page.title() == "Home"
            assert session.context is session.page.context
            assert session.browser is session.context.browser


async def test_what_a_session_has(client: BrowserCloud) -> None:
    """Id, URLs and record; nothing that opens it is in a repr."""
    async with client.session(browser="headless-shell", name="n", metadata={"k": "v"}) as session:
        info = session.info
        assert info.status is SessionStatus.LIVE
        assert (info.id, info.name, info.metadata) == (session.id, "n", {"k": "v"})
        assert session.websocket_url.startswith(f"ws{client.url[4:]}/v1/sessions/{session.id}/cdp?")
        assert session.debug_url.startswith(f"{client.url}/sessions/{session.id}?")
        assert session.session_viewer_url.startswith(f"{client.url}/sessions/{session.id}/viewer?")
        token = session.websocket_url.partition("token=")[2]
        assert len(token) >= 40
        assert token not in repr(session) + repr(info) + repr(await client.sessions.list())


async def test_dimensions_are_the_viewport(client: BrowserCloud) -> None:
    """The first page and later ones are as large as asked for, in both browsers."""
    for browser in ("chromium", "headless-shell"):
        async with client.session(browser=browser, dimensions=(1000, 600)) as session:  # type: ignore[arg-type]
            other = await session.context.new_page()
            for page in (session.page, other):
                assert await page.evaluate("[innerWidth, innerHeight]") == [1000, 600]


async def test_user_agent_with_client_hints(client: BrowserCloud, site: Site) -> None:
    """The agent is the one asked for, in requests and scripts, and the hints agree with it."""
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0.0.0 Safari/537.36"
    async with client.session(user_agent=agent) as session:
        await session.page.goto(site.url)
        assert await session.page.evaluate("navigator.userAgent") == agent
        brands = await session.page.evaluate("navigator.userAgentData.brands.map(b => b.version)")
        assert "120" in brands
        assert session.info.user_agent == agent
    headers = {name.lower(): value for name, value in site.seen[0][1].items()}
    assert headers["user-agent"] == agent
    assert '"120"' in headers["sec-ch-ua"]


async def test_sessions_share_one_driver(client: BrowserCloud) -> None:
    """Several at once through one Playwright driver, each with a Chromium of its own."""
    async with (
        client.session(browser="headless-shell") as one,
        client.session(browser="headless-shell") as two,
    ):
        assert client.playwright.start().result() is client.playwright.start().result()
        assert one.browser is not two.browser
        assert one.page.context.browser is not two.page.context.browser
        await asyncio.gather(one.page.goto("about:blank#1"), two.page.goto("about:blank#2"))
        assert [one.page.url, two.page.url] == ["about:blank#1", "about:blank#2"]


async def test_sessions_are_isolated(client: BrowserCloud, site: Site) -> None:
    """Cookies, localStorage and service workers of one are not in the other."""
    site.scripts["/sw.js"] = "self.addEventListener('fetch', () => {})"
    write = """async () => {
        document.cookie = 'who=one'; localStorage.who = 'one';
        await navigator.serviceWorker.register('/sw.js');
        await navigator.serviceWorker.ready;
    }"""
    read = """async () => [document.cookie, localStorage.who ?? null,
        (await navigator.serviceWorker.getRegistrations()).length]"""
    async with client.session() as one, client.session() as two:
        await asyncio.gather(one.page.goto(site.url), two.page.goto(site.url))
        await one.page.evaluate(write)
        assert await one.page.evaluate(read) == ["who=one", "one", 1]
        assert await two.page.evaluate(read) == ["", None, 0]
        await two.page.reload()
        assert await two.page.evaluate(read) == ["", None, 0]


async def test_reconnect_finds_the_same_tab(client: BrowserCloud, site: Site) -> None:
    """After the socket was lost, `page` is the same tab: URL, scroll position, its variables."""
    site.pages["/long"] = "<!doctype html><title>Long</title><div style='height: 5000px'>"
    async with client.session() as session:
        decoy = await session.context.new_page()
        await decoy.goto(site.url)
        await session.page.goto(site.url + "/long")
        await session.page.evaluate("scrollTo(0, 1234); window.kept = 'yes'")
        await decoy.bring_to_front()
        await session.browser.close()  # over CDP this drops the socket, and nothing else
        with pytest.raises(PlaywrightError):
            await session.page.title()
        page = await session.reconnect()
        assert page is session.page
        assert await page.evaluate("[document.title, scrollY, kept]") == ["Long", 1234, "yes"]
        assert len(session.context.pages) == 2


async def test_reconnect_after_the_end_says_why(client: BrowserCloud) -> None:
    """When there is nothing to attach to, the reason is the error."""
    async with client.session(browser="headless-shell") as session:
        await client.sessions.release(session.id)
        with pytest.raises(ReleasedElsewhere) as caught:
            await session.reconnect()
        assert caught.value.reason == "user_requested"


async def test_release_inside_the_body(client: BrowserCloud, root: object) -> None:
    """Released early, again, and by leaving: all fine, and it is gone after the first."""
    async with client.session(browser="headless-shell") as session:
        first = await session.release()
        assert (first.success, first.already_ended) == (True, False)
        assert await session.release() is first
    record = await client.sessions.retrieve(session.id)
    assert record.release_reason is ReleaseReason.USER_REQUESTED


async def test_timeout_says_why(client: BrowserCloud) -> None:
    """When time runs out under the body, leaving raises `SessionTimedOut` from its error."""
    with pytest.raises(SessionTimedOut) as caught:
        async with client.session(browser="headless-shell") as session:
            await client.sessions.extend(session.id, timeout=0.3)
            await session.page.wait_for_selector("#never")
    assert isinstance(caught.value.__cause__, PlaywrightError)
    assert caught.value.session is not None
    assert caught.value.session.release_reason is ReleaseReason.TIMEOUT


async def test_an_end_unnoticed_by_the_body_is_told(client: BrowserCloud) -> None:
    """A body that ended well did not have its browser all the time: leaving says so."""
    with pytest.raises(SessionTimedOut):
        async with client.session(browser="headless-shell") as session:
            await client.sessions.extend(session.id, timeout=0.1)
            await ended(client, session.id)


async def test_released_elsewhere(client: BrowserCloud) -> None:
    """Somebody else's release under the body is told from its error, and else is no surprise."""
    async with client.session(browser="headless-shell") as session:
        await client.sessions.release(session.id)
    with pytest.raises(ReleasedElsewhere):
        async with client.session(browser="headless-shell") as session:
            await client.sessions.release(session.id)
            while True:
                await session.page.title()


async def test_browser_closed_by_the_body(client: BrowserCloud) -> None:
    """`Browser.close` over CDP ends the session as `browser_closed`."""
    async with client.session(browser="headless-shell") as session:
        cdp = await session.browser.new_browser_cdp_session()
        await cdp.send("Browser.close")
        record = await ended(client, session.id)
    assert (record.status, record.release_reason) == ("released", "browser_closed")


async def test_own_id_and_conflict(client: BrowserCloud) -> None:
    """The same id with other options is a conflict, and the first session is not touched by it."""
    async with client.session(browser="headless-shell", session_id=ID) as session:
        assert session.id == ID
        with pytest.raises(Conflict):
            async with client.session(browser="headless-shell", session_id=ID, timeout=60):
                raise AssertionError("it must not open")
        assert await session.page.evaluate("1 + 1") == 2


async def test_closing_the_client_releases(root: object) -> None:
    """Sessions still open when the client is closed are released with it."""
    async with BrowserCloud() as client:
        session = client.session(browser="headless-shell")
        await session.__aenter__()
    assert (await session.release()).success
    with pytest.raises(UsageError, match="closed"):
        await client.sessions.list()


async def test_closed_client() -> None:
    """A client that is not open, or not any more, says so before anything is sent."""
    client = BrowserCloud()
    with pytest.raises(UsageError, match="not open"):
        await client.sessions.create()
    async with client:
        pass
    await client.close()
    for call in (client.session().__aenter__, client.sessions.list, client.open):
        with pytest.raises(UsageError):
            await call()


async def test_unused_live_session() -> None:
    """Before it is entered it has no page, and says how it is meant."""
    session = BrowserCloud().session()
    for name in ("page", "context", "browser", "info", "websocket_url"):
        with pytest.raises(UsageError, match="async with"):
            getattr(session, name)


async def test_a_session_is_used_once(client: BrowserCloud) -> None:
    """Entering it again is a mistake, and told."""
    session = client.session(browser="headless-shell")
    async with session:
        pass
    with pytest.raises(UsageError, match="used once"):
        await session.__aenter__()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"colour": "red"}, UsageError, "colour: there is no such option"),
        ({"time_out": 5}, UsageError, "did you mean timeout"),
        ({"timeout": 300_000}, UsageError, "seconds.*did you mean 300"),
        ({"timeout": 0}, InvalidRequest, "timeout: must be more than 0"),
        ({"timeout": -1}, InvalidRequest, "timeout: must be more than 0"),
        ({"timeout": "60"}, InvalidRequest, "timeout: must be a number of seconds"),
        ({"timeout": True}, InvalidRequest, "timeout: must be a number of seconds"),
        ({"timeout": float("nan")}, InvalidRequest, "timeout: must be a number of seconds"),
        ({"timeout": float("inf")}, UsageError, "more than 24 hours"),
        ({"dimensions": (1, 1)}, InvalidRequest, "dimensions.width: must be between"),
        ({"dimensions": (800.5, 600)}, InvalidRequest, "dimensions.width: must be a whole"),
        ({"dimensions": "800x600"}, InvalidRequest, r"dimensions: must be \(width, height\)"),
        ({"browser": "firefox"}, InvalidRequest, "browser: must be one of"),
        ({"headless": "no"}, InvalidRequest, "headless: must be true or false"),
        ({"browser": "headless-shell", "headless": False}, InvalidRequest, "headless: "),
        ({"user_agent": "a\nb"}, InvalidRequest, "user_agent: must be printable"),
        ({"metadata": {"a": 1}}, InvalidRequest, "metadata: 'a' must be a text"),
        ({"proxy": "http://p"}, InvalidRequest, "proxy: this version does not offer it"),
        (
            {"stealth": {"humanise": True}},
            InvalidRequest,
            "stealth.humanise: unknown field",
        ),
        ({"session_id": "seven"}, UsageError, "session_id: must be a UUID"),
    ],
)
def test_bad_options(options: dict[str, object], error: type[Exception], words: str) -> None:
    """Refused when the session is described, by name, with nothing started and nothing sent."""
    with pytest.raises(error, match=words):
        BrowserCloud().session(**options)  # type: ignore[arg-type]


async def test_unreachable_server(root: object) -> None:
    """After the retries: `ConnectionFailed` that names the URL; nothing is left."""
    async with BrowserCloud("http://127.0.0.1:9", api_key="k") as client:
        with pytest.raises(ConnectionFailed, match=r"http://127\.0\.0\.1:9") as caught:
            async with client.session():
                raise AssertionError("it must not open")
        assert caught.value.endpoint == "http://127.0.0.1:9"


async def test_playwright_connect(client: BrowserCloud, site: Site) -> None:
    """A session made by `create` can be driven; detaching leaves it, its page included."""
    session = await client.sessions.create(browser="headless-shell")
    async with await client.playwright.connect(session) as connection:
        await connection.page.goto(site.url)
    async with await client.playwright.connect(session) as connection:
        assert await connection.page.title() == "Home"
    pages = (await client.sessions.live(session.id)).pages
    assert [(page.title, page.url) for page in pages] == [("Home", site.url + "/")]
    assert (await client.sessions.release(session.id)).success


async def test_connect_to_a_listed_session(client: BrowserCloud) -> None:
    """A listing opens nothing: the error says where to get the URL that does."""
    session = await client.sessions.create(browser="headless-shell")
    (listed,) = (await client.sessions.list()).sessions
    with pytest.raises(UsageError, match="sessions.retrieve"):
        await client.playwright.connect(listed)
    found = await client.sessions.retrieve(session.id)
    async with await client.playwright.connect(found) as connection:
        assert await connection.page.evaluate("1 + 1") == 2


async def test_connect_to_an_ended_session(client: BrowserCloud) -> None:
    """It is told as such, in one line."""
    session = await client.sessions.create(browser="headless-shell")
    await client.sessions.release(session.id)
    with pytest.raises(SessionEnded, match=r"^the session has ended: user_requested$"):
        await client.playwright.connect(session)


async def test_connect_to_nothing(client: BrowserCloud) -> None:
    """The error names the endpoint, is one line, and shows no token."""
    url = "ws://127.0.0.1:9/v1/sessions/x/cdp?token=very-secret"
    nowhere = Session(
        id=ID, status=SessionStatus.LIVE, created_at=datetime.now(UTC), websocket_url=url
    )
    with pytest.raises(ConnectionFailed, match=r"^[^\n]*127\.0\.0\.1:9[^\n]*$") as caught:
        await client.playwright.connect(nowhere)
    assert "very-secret" not in str(caught.value) + caught.value.endpoint
    assert caught.value.endpoint == url.partition("?")[0]
    with pytest.raises(UsageError, match="takes a Session"):
        await client.playwright.connect(ID)  # type: ignore[arg-type]


async def test_a_tab_behind_another_can_be_pictured(client: BrowserCloud, site: Site) -> None:
    """Also when it has been in the background for a while."""
    async with client.session() as session:
        await session.page.goto(site.url)
        front = await session.context.new_page()
        await front.goto(site.url)
        await asyncio.sleep(3)  # so long it takes until Chromium gives its surface up
        assert await session.page.screenshot(timeout=10_000)


async def test_a_session_beyond_a_block(client: BrowserCloud, root: Path) -> None:
    """`open` and `release`, as in the cells of a notebook; its end shows in what is left of it."""
    session = await client.session(browser="headless-shell").open()
    assert await session.page.evaluate("1 + 1") == 2
    assert (await session.release()).success
    assert (session.info.status, session.info.release_reason) == ("releasing", "user_requested")
    released = await session.release(wait=True)
    assert (released.success, released.already_ended) == (True, False)
    assert (session.info.status, session.info.release_reason) == ("released", "user_requested")
    assert browsers(root) == []
    with pytest.raises(UsageError, match="has been released"):
        print(session.page)
    with pytest.raises(UsageError, match="has been released"):
        await session.reconnect()


async def test_blocked_loop_loses_nothing(root: object) -> None:
    """A body that blocks its loop for longer than the grace keeps its session."""
    import time

    async with (
        LocalServer(lease_grace=0.3) as server,
        BrowserCloud(server.url, api_key=server.api_key) as client,
        client.session(browser="headless-shell") as session,
    ):
        time.sleep(1.5)  # the point of the test
        assert await session.page.evaluate("1 + 1") == 2


async def test_dead_driver_is_replaced(client: BrowserCloud) -> None:
    """When Playwright's Node process dies, `reconnect` and later sessions get another one."""
    async with client.session(browser="headless-shell") as session:
        await session.page.evaluate("window.kept = 7")
        (driver,) = drivers()
        driver.kill()
        driver.wait(5)
        with pytest.raises(PlaywrightError):
            await session.page.title()
        page = await session.reconnect()
        assert await page.evaluate("kept") == 7
    async with client.session(browser="headless-shell") as session:
        assert await session.page.evaluate("1 + 1") == 2


async def test_release_that_leaves_something(root: object) -> None:
    """What the server could not remove is told to whoever waits for it, and in the record."""
    async with (
        LocalServer(engine=StickyEngine()) as server,
        BrowserCloud(server.url, api_key=server.api_key) as client,
    ):
        session = client.session()
        session._owner.adopt(session)
        session._begun = True
        await client.sessions.start(session._options, session_id=session.id)
        assert (await session.release()).success
        with pytest.raises(ServiceError, match="a folder cannot be removed") as caught:
            await session.release(wait=True)
        assert caught.value.code == "cleanup_failed"
        record = await client.sessions.retrieve(session.id)
        assert record.error is not None
        assert (record.status, record.error.code) == ("failed", "cleanup_failed")


async def test_a_failing_close_does_not_hide_the_body() -> None:
    """What the body of the client raised comes out; what closing could not do is a note of it."""
    async with LocalServer(engine=IdleEngine()) as server:
        async with faulty(server.url, "DELETE", [DROP_BEFORE] * 99) as proxy:
            with pytest.raises(ZeroDivisionError) as caught:
                async with BrowserCloud(
                    proxy.url, api_key=server.api_key, release_timeout=0.5
                ) as client:
                    session = client.session()
                    client.adopt(session)
                    session._begun = True
                    await client.sessions.start(session._options, session_id=session.id)
                    raise ZeroDivisionError
        session._left = True  # the server's end releases it
        assert ["closing the client failed too" in note for note in caught.value.__notes__] == [
            True
        ]


async def test_two_clients_at_once(root: object) -> None:
    """Two embedded clouds in one process do not see each other."""
    async with BrowserCloud() as one, BrowserCloud() as two:
        assert one.url != two.url
        async with one.session(browser="headless-shell"):
            assert (await two.sessions.list()).total_count == 0
            assert len(browsers(root)) == 1  # type: ignore[arg-type]


async def test_no_chromium(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that leads nowhere is named, and nothing is started."""
    from browsercloud import BrowserCloudError

    with pytest.raises(BrowserCloudError, match="/nowhere/chromium"):
        async with BrowserCloud(chromium="/nowhere/chromium"):
            raise AssertionError("it must not open")


def test_session_ended_is_raised_from_the_body() -> None:
    """The classes of endings are `SessionEnded`, so one `except` catches them."""
    assert issubclass(SessionTimedOut, SessionEnded)
    assert issubclass(ReleasedElsewhere, SessionEnded)


async def test_a_silent_driver_loses_its_session(client: BrowserCloud) -> None:
    """Commands keep it alive; a busy page, a viewer and a look at the record do not."""
    body = "setInterval(() => console.log('busy'), 20)"
    with pytest.raises(SessionTimedOut) as caught:
        async with (
            aiohttp.ClientSession() as http,
            client.session(browser="headless-shell", idle_timeout=1.0) as session,
        ):
            await session.page.evaluate(body)
            for _ in range(8):
                await session.page.evaluate("1 + 1")
                await asyncio.sleep(0.2)
            viewer = session.session_viewer_url.replace("/viewer?", "/screenshot?")
            for _ in range(12):
                async with http.get(viewer) as reply:
                    if reply.status == 410:
                        break
                    assert reply.status == 200
                await client.sessions.retrieve(session.id)
                await asyncio.sleep(0.2)
            else:
                raise AssertionError("watching kept it alive")
    assert caught.value.reason == "inactivity_timeout"
    assert caught.value.evidence is not None
    assert caught.value.evidence.urls == ("about:blank",)
    assert (caught.value.evidence.memory or 0) > 2**20


async def test_evidence_of_a_crash(client: BrowserCloud, root: Path, site: Site) -> None:
    """The signal, what was open, without its query, and what it used."""
    with pytest.raises(BrowserCrashed) as caught:
        async with client.session() as session:
            await session.page.goto(f"{site.url}/?token=secret#part")
            await asyncio.sleep(1)  # the memory is looked at now and then
            (main,) = browsers(root)
            main.kill()
            await session.page.wait_for_selector("#never")
    evidence = caught.value.evidence
    assert evidence is not None
    assert (evidence.signal, evidence.exit_code) == ("SIGKILL", None)
    assert evidence.urls == (f"{site.url}/?…",)
    assert "secret" not in repr(evidence)
    assert (evidence.memory or 0) > 20 * 2**20
    notes = caught.value.__notes__
    assert "ended by: SIGKILL" in notes
    assert f"was open: {site.url}/?…" in notes
