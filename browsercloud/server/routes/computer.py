"""`/v1/sessions/{id}/computer`: a hand on mouse and keyboard, as Steel's programs ask for it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiohttp import web
from attrs import frozen

from browsercloud._aio import stop_task
from browsercloud.cdp.actions import Action, GetCursorPosition, TakeScreenshot, read_action
from browsercloud.cdp.connection import CdpClosed
from browsercloud.cdp.input import perform
from browsercloud.server.active import ActiveSession
from browsercloud.server.operations import BROWSER_ERRORS, Operation
from browsercloud.server.parts import active, endpoint_of, parts, query, read_json, session_id
from browsercloud.server.routes.pages import take_picture
from browsercloud.server.routes.sessions import front_page
from browsercloud.wire import dump

T = TypeVar("T")

END_PATIENCE = 5.0
"""How long to wait for the reason once the browser has hung up, in seconds."""


@frozen(kw_only=True)
class Done:
    """What was done, and what the page looks like now."""

    output: str
    base64_image: str | None = None
    """A PNG of the viewport, if one was asked for."""


COMPUTER = Operation(body=Action, answers={200: Done}, errors=("page_not_found", *BROWSER_ERRORS))


async def computer(request: web.Request) -> web.Response:
    """Move, click, scroll, type or look, in the tab that was last in front.

    An action that goes on when the session ends is broken off. Each counts as driver traffic.
    """
    query(request, ())
    found = await active(request, session_id(request))
    action = read_action(await read_json(request))
    endpoint = await endpoint_of(found)
    loop = asyncio.get_running_loop()
    found.traffic.last = loop.time()
    found.reached_in(type(action).__name__.lower())
    try:
        done = await while_it_lives(found, _do(request, endpoint, action, found))
    finally:
        found.traffic.last = loop.time()
    return web.json_response(dump(done))


async def _do(request: web.Request, endpoint: str, action: Action, session: ActiveSession) -> Done:
    page_id = await front_page(parts(request).http, endpoint)
    output = await perform(endpoint, page_id, action, session.mouse)
    look = isinstance(action, TakeScreenshot) or (
        not isinstance(action, GetCursorPosition) and action.screenshot
    )
    if not look:
        return Done(output=output)
    # Again, as a click may have opened a tab.
    page_id = await front_page(parts(request).http, endpoint)
    picture = await take_picture(endpoint, page_id, "png")
    return Done(output=output, base64_image=base64.b64encode(picture).decode())


async def while_it_lives(session: ActiveSession, work: Coroutine[Any, Any, T]) -> T:
    """The result of *work*; raises `SessionEnded` when the session ends before it is done."""
    doing = asyncio.create_task(work, name="computer")
    try:
        either: set[asyncio.Future[Any]] = {doing, session.ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if doing.done() and isinstance(doing.exception(), CdpClosed):
            # A browser that dies hangs up first; why it did is known a moment later.
            await asyncio.wait({session.ended}, timeout=END_PATIENCE)
        await endpoint_of(session)  # raises if it has ended
        return doing.result()
    finally:
        await stop_task(doing)
