"""`/v1/sessions/{id}/context`: a session's cookies and storage, read, replaced and removed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import web
from attrs import frozen

from browsercloud._aio import deadline
from browsercloud.cdp import storage
from browsercloud.cdp.connection import CdpClosed, CdpConnection, CdpError
from browsercloud.context import Cookie, SessionContext
from browsercloud.errors import ServiceError
from browsercloud.server.active import ActiveSession
from browsercloud.server.operations import BROWSER_ERRORS, Operation
from browsercloud.server.parts import active, endpoint_of, query, read_json, session_id
from browsercloud.server.routes.computer import while_it_lives
from browsercloud.wire import dump, read

T = TypeVar("T")

MAX_BODY = 32 * 2**20
PATIENCE = 60.0
"""Seconds for all of a context."""


@frozen(kw_only=True)
class Cookies:
    """The cookies of a session, all of them."""

    cookies: tuple[Cookie, ...]


@frozen(kw_only=True)
class Changed:
    """It is as it was asked for."""

    success: bool = True


ERRORS = (*BROWSER_ERRORS, "too_large")
GET = Operation(answers={200: SessionContext}, errors=ERRORS)
PUT = Operation(body=SessionContext, answers={200: Changed}, errors=ERRORS)
CLEAR = Operation(answers={200: Changed}, errors=ERRORS)
GET_COOKIES = Operation(answers={200: Cookies}, errors=ERRORS)
PUT_COOKIES = Operation(body=Cookies, answers={200: Changed}, errors=ERRORS)


async def get(request: web.Request) -> web.Response:
    """The cookies, and what the origins have stored that its pages have shown."""
    query(request, ())
    found = await active(request, session_id(request))

    async def take(cdp: CdpConnection) -> SessionContext:
        given = found.request.options.session_context
        named = given.origins if given is not None else ()
        visited = [*found.seeds.origins, *reversed(found.pages.origins), *named]
        return await storage.take(cdp, visited=visited, seeded=found.seeds.items)

    return web.json_response(dump(await _with_browser(found, take)))


async def put(request: web.Request) -> web.Response:
    """Replace the cookies and all storage by these; Playwright's `storage_state` is good too."""
    query(request, ())
    found = await active(request, session_id(request))
    context = read(await read_json(request, limit=MAX_BODY), SessionContext)

    async def replace(cdp: CdpConnection) -> None:
        await storage.clear(cdp, kinds=storage.SHARED)
        await storage.put(cdp, context)
        found.seeds.origins = context.origins
        await found.seeds.change(await endpoint_of(found), context.session_storage)

    await _with_browser(found, replace)
    return web.json_response(dump(Changed()))


async def clear(request: web.Request) -> web.Response:
    """Remove the cookies and all that any origin has stored."""
    query(request, ())
    found = await active(request, session_id(request))

    async def remove(cdp: CdpConnection) -> None:
        await storage.clear(cdp)
        await found.seeds.change(await endpoint_of(found), {})

    await _with_browser(found, remove)
    return web.json_response(dump(Changed()))


async def get_cookies(request: web.Request) -> web.Response:
    """The cookies alone."""
    query(request, ())
    found = await active(request, session_id(request))
    cookies = await _with_browser(found, storage.get_cookies)
    return web.json_response(dump(Cookies(cookies=cookies)))


async def put_cookies(request: web.Request) -> web.Response:
    """Replace the cookies by these, and leave storage as it is."""
    query(request, ())
    found = await active(request, session_id(request))
    given = read(await read_json(request, limit=MAX_BODY), Cookies).cookies

    async def replace(cdp: CdpConnection) -> None:
        await storage.set_cookies(cdp, given, replace=True)

    await _with_browser(found, replace)
    return web.json_response(dump(Changed()))


async def _with_browser(session: ActiveSession, work: Callable[[CdpConnection], Awaitable[T]]) -> T:
    """Do it on a connection of its own, one after the other; it counts as driver traffic."""
    endpoint = await endpoint_of(session)

    async def do() -> T:
        async with (
            deadline(PATIENCE, "reading or writing the context"),
            session.seeds.one_at_a_time,
            await CdpConnection.open(endpoint) as cdp,
        ):
            return await work(cdp)

    loop = asyncio.get_running_loop()
    session.traffic.last = loop.time()
    try:
        return await while_it_lives(session, do())
    except CdpClosed:
        raise
    except (CdpError, TimeoutError) as error:
        raise _unresponsive(error) from error
    finally:
        session.traffic.last = loop.time()


def _unresponsive(error: Exception) -> ServiceError:
    return ServiceError(
        f"the browser does not do it: {error}", status=502, code="browser_unresponsive"
    )
