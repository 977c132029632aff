"""The first page of a browser and the size of its window."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from browsercloud.cdp.connection import CdpConnection
from browsercloud.options import Dimensions

POLL_INTERVAL = 0.01
RESIZE_PATIENCE = 2.0
GLANCE = 0.002
"""Seconds between two looks at a size that is about to change."""

log = logging.getLogger(__name__)


async def wait_for_page(cdp: CdpConnection) -> str:
    """The target id of the first page, as soon as there is one. Not bounded in time."""
    while True:
        targets = (await cdp.send("Target.getTargets"))["targetInfos"]
        for target in targets:
            if target["type"] == "page":
                found: str = target["targetId"]
                return found
        await asyncio.sleep(POLL_INTERVAL)


async def fit_window(cdp: CdpConnection, page: str, wanted: Dimensions) -> int:
    """Resize the page's window until its viewport has the *wanted* size.

    Returns how much higher than the viewport the window has to be, in pixels.
    """
    attached = await cdp.send("Target.attachToTarget", {"targetId": page, "flatten": True})
    session: str = attached["sessionId"]
    try:
        window = await cdp.send("Browser.getWindowForTarget", {"targetId": page})
        viewport = await _viewport(cdp, session)
        if viewport != (wanted.width, wanted.height):
            await _resize(cdp, session, window, viewport, wanted)
        bounds = await cdp.send("Browser.getWindowForTarget", {"targetId": page})
        height: int = bounds["bounds"]["height"]
        return height - (await _viewport(cdp, session))[1]
    finally:
        if not cdp.closed.done():
            await cdp.send("Target.detachFromTarget", {"sessionId": session})


async def _viewport(cdp: CdpConnection, session: str) -> tuple[int, int]:
    metrics = await cdp.send("Page.getLayoutMetrics", cdp_session_id=session)
    viewport = metrics["cssLayoutViewport"]
    return viewport["clientWidth"], viewport["clientHeight"]


async def _resize(
    cdp: CdpConnection,
    session: str,
    window: dict[str, Any],
    viewport: tuple[int, int],
    wanted: Dimensions,
) -> None:
    bounds = {
        "width": window["bounds"]["width"] + wanted.width - viewport[0],
        "height": window["bounds"]["height"] + wanted.height - viewport[1],
    }
    await cdp.send("Browser.setWindowBounds", {"windowId": window["windowId"], "bounds": bounds})
    await until_viewport(cdp, session, wanted)


async def until_viewport(cdp: CdpConnection, session: str, wanted: Dimensions) -> None:
    """Return when the page's viewport has the *wanted* size; a page that never gets it is logged.

    *session* is the CDP session of the page.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + RESIZE_PATIENCE
    while (viewport := await _viewport(cdp, session)) != (wanted.width, wanted.height):
        if loop.time() > end:
            log.warning("the viewport is %s and not %s", viewport, wanted)
            return
        await asyncio.sleep(GLANCE)
