"""`browsercloud view`: look at a session in a browser of one's own."""

from __future__ import annotations

import asyncio
import webbrowser
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from browsercloud import BrowserCloud, UsageError


def view(
    session_id: str,
    /,
    *,
    only_look: Annotated[bool, Parameter(negative="")] = False,
    only_print: Annotated[bool, Parameter(name="--print", negative="")] = False,
    url: str | None = None,
    api_key: str | None = None,
) -> None:
    """Open the live viewer of a session, and print its address, which is good for an hour.

    Parameters
    ----------
    session_id
        The session's id.
    only_look
        A viewer that cannot reach into the browser.
    only_print
        Open nothing.
    url
        Where the server is; else BROWSERCLOUD_URL.
    api_key
        The key; else BROWSERCLOUD_API_KEY.
    """
    address = asyncio.run(_link(session_id, url, api_key, not only_look))
    Console(highlight=False).print(address, markup=False, soft_wrap=True)
    if not only_print:
        webbrowser.open(address)


async def _link(session_id: str, url: str | None, api_key: str | None, interactive: bool) -> str:
    client = BrowserCloud(url=url, api_key=api_key)
    if client.config.url is None:
        raise UsageError("say where the session's server is: --url, or BROWSERCLOUD_URL")
    async with client:
        return await client.sessions.viewer_link(session_id, interactive=interactive)
