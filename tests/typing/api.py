"""The public API as a user's code sees it: checked by mypy --strict, never run."""

from contextlib import aclosing

from playwright.async_api import Browser as PlaywrightBrowser
from playwright.async_api import BrowserContext, Page
from selenium.webdriver import Remote

import browsercloud
from browsercloud import (
    Browser,
    BrowserCloud,
    BrowserCrashed,
    Coordinates,
    Dimensions,
    Frame,
    LiveDetails,
    LiveSession,
    Permission,
    Record,
    Released,
    Session,
    SessionEnded,
    SessionEvent,
    SessionList,
    SessionOptions,
    SessionStatus,
    Stealth,
)


async def existing_scripts(client: BrowserCloud, session: Session) -> int:
    """Scripts in a session of their own, or in a given one."""
    code: int = await client.puppeteer.run("script.js", args=["--fast"], timeout=60, node="node")
    async with client.session(session_context={"cookies": []}) as live:
        await live.set_context(await live.get_context())
        code += await client.puppeteer.run("script.js", live, ["--fast"])
    async with client.puppeteer.start("script.py", session, python="python3") as running:
        return code + await running.wait()


async def sessions() -> None:
    """A live session, with every option."""
    options = SessionOptions(browser=Browser.HEADLESS_SHELL, dimensions=Dimensions(800, 600))
    async with BrowserCloud(url="http://127.0.0.1:8700", api_key="k", create_timeout=5) as client:
        async with client.session() as session:
            live: LiveSession = session
            page: Page = live.page
            context: BrowserContext = live.context
            browser: PlaywrightBrowser = live.browser
            urls: list[str] = [live.websocket_url, live.debug_url, live.session_viewer_url, live.id]
            info: Session = live.info
            again: Page = await live.reconnect()
            over: Released = await live.release()
            print(page, context, browser, urls, info, again, over)
        async with client.session(
            options,
            session_id="5b5b1f0e-6a0e-4a9e-9b3e-0d3c1f3f5a11",
            timeout=60,
            browser="chromium",
            dimensions=(1024, 768),
            headless=True,
            user_agent="agent/1.0",
            device="mobile",
            locale="pt-BR",
            timezone="Europe/Berlin",
            geo_location=Coordinates(latitude=1, longitude=2),
            extra_headers={"X-Key": "k"},
            permissions=["camera", Permission.MIDI],
            record=Record.NONE,
            start_url="https://example.com",
            name="n",
            build="b",
            metadata={"k": "v"},
            stealth=Stealth(humanize_interactions=True),
        ) as second:
            print(second.page)


async def with_selenium(client: BrowserCloud) -> None:
    """The driver, and its calls awaited with their own types."""
    async with client.session(adapter="selenium") as session:
        driver: Remote = session.driver
        await session.run(driver.get, "https://example.com")
        picture: bytes = await session.run(driver.get_screenshot_as_png)
        url: str = session.webdriver_url
        print(picture, url)
    async with await client.selenium.connect(await client.sessions.create()) as connection:
        title: str = await connection.run(lambda: connection.driver.title)
        print(title)


async def by_id(client: BrowserCloud) -> None:
    """The resource, and Playwright on a session made by `create`."""
    session: Session = await client.sessions.create(timeout=1.5)
    found: Session = await client.sessions.retrieve(session.id)
    page: SessionList = await client.sessions.list(status=SessionStatus.LIVE, metadata={"k": "v"})
    live: LiveDetails = await client.sessions.live(found.id)
    longer: Session = await client.sessions.extend(session.id, timeout=60)
    async with await client.playwright.connect(session) as connection:
        await connection.page.goto("https://example.com")
    events: tuple[SessionEvent, ...] = await client.sessions.events(found.id, after=1, limit=10)
    async for event in client.sessions.events(found.id):
        told: SessionEvent = event
        print(told.number)
    async for event in client.sessions.follow(found.id, after=0):
        kind: str = event.type
        print(event.number, event.at, kind, dict(event.details))
    link: str = await client.sessions.viewer_link(found.id, interactive=True, expires_in=60)
    picture: bytes = await client.sessions.screenshot(found.id, format="jpeg", page_id=link)
    count: int = await client.sessions.release_all()
    print(page, live, longer, events, picture, count)


async def watched(session: LiveSession) -> None:
    """Pictures, once and as they come, and a link to give away."""
    picture: bytes = await session.screenshot(format="jpeg")
    async with aclosing(session.frames(max_fps=5)) as frames:
        async for frame in frames:
            one: Frame = frame
            size: tuple[float, float] = one.width, one.height
            print(one.picture == picture, size, one.page_id)
    link: str = await session.viewer_url(interactive=True, expires_in=None)
    print(link)


def refused(client: BrowserCloud) -> None:
    """What mypy must not let through: each of these would be an unused ignore otherwise."""
    client.session(adapter="cypress")  # type: ignore[arg-type]
    client.session(timeout="60")  # type: ignore[arg-type]
    client.session(browser="firefox")  # type: ignore[arg-type]
    client.session(dimensions=(1, 2, 3))  # type: ignore[arg-type]
    client.session(device="tv")  # type: ignore[arg-type]
    BrowserCloud(defaults=5)  # type: ignore[arg-type]
    client.session(colour="red")  # type: ignore[call-arg]
    client.sessions.follow("id", after="1")  # type: ignore[arg-type]


def errors(error: SessionEnded) -> None:
    """What an ended session tells."""
    reason: str | None = error.reason
    if isinstance(error, BrowserCrashed) and error.session and error.session.error:
        lines: tuple[str, ...] = error.session.error.stderr
        print(reason, lines)


def names() -> None:
    """What is loaded when it is asked for has its type all the same, and what is not there none."""
    client: browsercloud.BrowserCloud = BrowserCloud(defaults={"locale": "de"})
    client = BrowserCloud(defaults=SessionOptions(geo_location="US"))
    version: str = browsercloud.__version__
    browsercloud.BrowserClout()  # type: ignore[attr-defined]
    print(client, version)
