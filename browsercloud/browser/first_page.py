"""What the first page of a session shows when the session is there."""

from __future__ import annotations

from browsercloud.cdp.connection import CdpConnection, CdpError
from browsercloud.cdp.window import wait_for_page
from browsercloud.errors import LaunchFailed
from browsercloud.options import place_of

COMMIT_PATIENCE = 15.0
"""Seconds for the server behind a first page to begin its answer."""


async def show(endpoint: str, url: str) -> None:
    """Send the first page of the browser at *endpoint* to *url*; returns when it is there.

    It may load on. Raises `LaunchFailed` if it cannot be had; only the place of the URL is named.
    """
    if url == "about:blank":
        return
    try:
        async with await CdpConnection.open(endpoint) as cdp:
            target = {"targetId": await wait_for_page(cdp), "flatten": True}
            session = (await cdp.send("Target.attachToTarget", target))["sessionId"]
            went = await cdp.send("Page.navigate", {"url": url}, session, timeout=COMMIT_PATIENCE)
            why = went.get("errorText")
    except CdpError as error:
        why = str(error)
    if why:
        raise LaunchFailed(
            f"startUrl: the first page at {place_of(url)} cannot be opened ({why}); is it right, "
            "and can the browser's machine reach it? Leave it out to begin with a blank page"
        )
