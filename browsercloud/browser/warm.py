"""A browser that was started ahead: warmed while nobody waits, fitted to a session when taken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from attrs import evolve, frozen

from browsercloud.browser.flags import screen_around
from browsercloud.browser.launch import (
    Launched,
    agent_of,
    look_of,
    resized,
    session_overrides,
    window_size,
)
from browsercloud.cdp.connection import CdpConnection
from browsercloud.cdp.storage import put
from browsercloud.cdp.window import until_viewport, wait_for_page
from browsercloud.options import Browser, Dimensions, SessionOptions
from browsercloud.stealth import disguised

SIGN_OF_LIFE = 1.0
"""Seconds within which a browser has to answer to count as alive."""

DRAWN = {
    "expression": "new Promise(done => requestAnimationFrame(() => done()))",
    "awaitPromise": True,
}


@frozen
class Kind:
    """What a browser that is started ahead can become, as far as a start decides it."""

    browser: Browser
    stealth: bool = False

    @classmethod
    def of(cls, options: SessionOptions) -> Kind:
        """The kind that fits."""
        return cls(options.browser, disguised(options.stealth))

    def options(self) -> SessionOptions:
        """What to start it with."""
        return SessionOptions(browser=self.browser, stealth=self.stealth)


@frozen(kw_only=True, eq=False)
class Warm:
    """A browser with the default options of its kind, and what is known of its only window.

    `cdp` stays open until somebody takes the browser: it answers there at once, or it is dead.
    """

    launched: Launched
    kind: Browser
    cdp: CdpConnection
    session: str
    """The CDP session of the page, as long as the connection is open."""

    window: int
    screen: str
    frame: int
    """How much higher than the viewport the window is, in pixels."""


def needs_fresh(options: SessionOptions) -> bool:
    """Whether only launch switches can do what is asked for."""
    return not options.headless


async def warm(launched: Launched, kind: Browser, frame: int) -> Warm:
    """Attach to the first page and have it drawn once. Raises `CdpError`.

    The page keeps nothing of it. Cancelled, the connection is closed, and the browser as it was.
    """
    cdp = await CdpConnection.open(launched.endpoint)
    try:
        page = await wait_for_page(cdp)
        attached = await cdp.send("Target.attachToTarget", {"targetId": page, "flatten": True})
        session: str = attached["sessionId"]
        window = await cdp.send("Browser.getWindowForTarget", {"targetId": page})
        screens = await cdp.send("Emulation.getScreenInfos", cdp_session_id=session)
        await cdp.send("Runtime.evaluate", DRAWN, session)
    except BaseException:
        await cdp.close()
        raise
    return Warm(
        launched=launched,
        kind=kind,
        cdp=cdp,
        session=session,
        window=window["windowId"],
        screen=screens["screenInfos"][0]["id"],
        frame=frame,
    )


async def fit(browser: Warm, options: SessionOptions, session_id: str) -> Launched:
    """Make of it what a start with *options* would have made; asks for a sign of life first.

    Raises `CdpError` when it does not answer: then it is of no use. What has to be said is said at
    once and not one by one. `browser.cdp` is the result's, if that has overrides.
    """
    said: list[Awaitable[Any]] = [browser.cdp.send("Browser.getVersion", timeout=SIGN_OF_LIFE)]
    look = look_of(options, browser.launched.product, session_id)
    if resized(options):
        said.append(_resize(browser, options))
        if look.viewport is not None:
            # First, as a window that changes its size takes an emulated viewport along.
            await _all(said)
            said = []
    if options.session_context is not None:
        await _all([*said, put(browser.cdp, options.session_context, at="sessionContext")])
        said = []
    overrides = session_overrides(browser.cdp, options, look, pooled=True, frame=browser.frame)
    if overrides is not None:
        said.append(overrides.apply())
    await _all(said)
    return evolve(
        browser.launched,
        user_agent=agent_of(look, browser.launched.user_agent),
        overrides=overrides,
    )


async def _resize(browser: Warm, options: SessionOptions) -> None:
    """Screen and window of the first page, as the switches of a start would have set them."""
    cdp, size = browser.cdp, options.size
    window = window_size(size, browser.kind, browser.frame)
    screen = screen_around(window, options.stealth)
    where = {"screenId": browser.screen, "width": screen.width, "height": screen.height}
    bounds = {"width": window.width, "height": window.height}
    await _all(
        [
            cdp.send("Emulation.updateScreen", where, browser.session),
            cdp.send("Browser.setWindowBounds", {"windowId": browser.window, "bounds": bounds}),
            until_viewport(cdp, browser.session, Dimensions(window.width, size.height)),
        ]
    )


async def _all(said: list[Awaitable[Any]]) -> None:
    """Say all at once and wait for each, so that none is left behind; then raise the first error.

    `gather` alone, given an error, would leave the others running.
    """
    for answer in await asyncio.gather(*said, return_exceptions=True):
        if isinstance(answer, BaseException):
            raise answer
