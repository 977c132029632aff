"""The WebDriver bridge: `/v1/sessions/{id}/webdriver`, passed on to a chromedriver at the browser.

Bodies go through unread and without a limit. A WebDriver session is a way to drive: several may
be open on one session, and ending one does not end the session. (`hub.py` has the other kind.)
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
from aiohttp import ClientTimeout, web
from aiohttp.typedefs import Handler
from attrs import frozen
from yarl import URL

from browsercloud._aio import stop_task
from browsercloud.errors import ServiceError, SessionEnded
from browsercloud.server import middleware
from browsercloud.server.active import ActiveSession
from browsercloud.server.capabilities import (
    Wanted,
    for_chromedriver,
    for_client,
    read_capabilities,
    refused,
    require_same,
)
from browsercloud.server.parts import CALLER, active, endpoint_of, parts, read_json, session_id
from browsercloud.server.trust import Opens
from browsercloud.server.urls import Urls

log = logging.getLogger(__name__)

ATTACH_TIMEOUT = 60.0
"""Seconds that chromedriver may take to attach: it waits for a page that is busy."""

CONNECT_TIMEOUT = 10.0

_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_W3C = {
    "invalid_request": (400, "invalid argument"),
    "session_ended": (404, "invalid session id"),
    "session_not_found": (404, "invalid session id"),
    "not_found": (404, "unknown command"),
    "method_not_allowed": (405, "unknown method"),
    "session_not_created": (500, "session not created"),
    "unknown_command": (404, "unknown command"),
}
_OURS = (401, 403, 413, 429)
"""Statuses that the protocol has no words for; they keep their meaning beside a word of it."""


@frozen
class Attached:
    """A WebDriver session at a chromedriver."""

    webdriver_session_id: str
    capabilities: dict[str, Any]


def errors_as_w3c(handler: Handler) -> Handler:
    """Let *handler*'s errors be those of the W3C's text: `{"value": {"error", …}}`."""

    async def wrapped(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:
            return _error(request, error)

    return wrapped


async def create(request: web.Request) -> web.Response:
    """New Session on a session that exists."""
    wanted = read_capabilities(await read_json(request))
    found = await _let_in(request)
    require_same(wanted, found.request.options)
    attached = await attach(request, found, wanted)
    return answer(
        {"sessionId": attached.webdriver_session_id, "capabilities": attached.capabilities}
    )


async def status(request: web.Request) -> web.Response:
    """Whether the session is there to be driven."""
    found = await _let_in(request)
    return answer({"ready": True, "message": f"session {found.id} is {found.session.status}"})


async def command(request: web.Request) -> web.StreamResponse:
    """Every other command."""
    found = await _let_in(request)
    await endpoint_of(found)
    path = request.rel_url.raw_path.partition("/webdriver")[2]
    return await relay(request, found, path[path.index("/session/") :])


async def unknown(request: web.Request) -> web.Response:
    """What is no address of the protocol."""
    raise _unknown(request)


def answer(value: Any) -> web.Response:
    """A reply of the protocol."""
    return web.json_response({"value": value}, headers={"Cache-Control": "no-cache"})


async def attach(request: web.Request, session: ActiveSession, wanted: Wanted) -> Attached:
    """Let the session's chromedriver attach to its browser.

    Raises `LaunchFailed` when there is none that fits, and what `refused` makes with
    chromedriver's own words when it will not.
    """
    debugger = urlsplit(await endpoint_of(session)).netloc
    address = await _address(request, session)
    try:
        async with parts(request).http.post(
            f"{address}/session",
            json=for_chromedriver(wanted, debugger),
            timeout=ClientTimeout(total=ATTACH_TIMEOUT),
        ) as reply:
            told = (await reply.json(content_type=None))["value"]
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _broken(session, error) from None
    _count(request, session)
    if reply.status != 200:
        # It names the address of the browser, which is nobody's business.
        said = str(told.get("message", "")).partition("\n")[0].replace(debugger, "the browser")
        if told.get("error") == "invalid argument":
            raise ServiceError(said, status=400, code="invalid_request")
        raise refused("chromedriver", said)
    urls = Urls(request, session.id)
    shown = for_client(told["capabilities"], wanted, session.id, urls.cdp(), urls.viewer())
    return Attached(webdriver_session_id=told["sessionId"], capabilities=shown)


async def relay(request: web.Request, session: ActiveSession, path: str) -> web.StreamResponse:
    """Pass one command on to the session's chromedriver, and the answer back, piece by piece.

    A command may take as long as the session lives; the end of the session answers it.
    """
    if not _is_command(path):
        raise _unknown(request)
    address = await _address(request, session)
    _count(request, session, inward=request.content_length or 0)
    call = asyncio.create_task(_send(request, URL(address + path, encoded=True)))
    ends: set[asyncio.Future[Any]] = {call, session.ended}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not call.done():
            raise _over(session)
        async with call.result() as reply:
            return await _pass_back(request, session, reply)
    except (aiohttp.ClientError, OSError) as error:
        raise _broken(session, error) from None
    finally:
        await _let_go(call)


async def ask(
    request: web.Request, session: ActiveSession, method: str, path: str
) -> tuple[int, bytes]:
    """One command without a body; its status and its whole answer, which we have to understand."""
    if not _is_command(path):
        raise _unknown(request)
    url = URL(await _address(request, session) + path, encoded=True)
    _count(request, session, inward=0)
    timeout = ClientTimeout(total=ATTACH_TIMEOUT)
    try:
        async with parts(request).http.request(method, url, timeout=timeout) as reply:
            body = await reply.read()
    except (aiohttp.ClientError, OSError) as error:
        raise _broken(session, error) from None
    _count(request, session, outward=len(body))
    return reply.status, body


def _is_command(path: str) -> bool:
    """Whether *path* is one below a WebDriver session, however it is read.

    chromedriver itself starts any program as a browser for who can reach its New Session.
    """
    words = [unquote(word) for word in path.split("/")]
    plain = all(word not in ("", ".", "..") for word in words[1:])
    return plain and words[:2] == ["", "session"] and _ID.fullmatch(words[2]) is not None


def _unknown(request: web.Request) -> ServiceError:
    return ServiceError(
        f"{request.method}: there is no such command here; POST …/session begins",
        status=404,
        code="unknown_command",
    )


async def _send(request: web.Request, url: URL) -> aiohttp.ClientResponse:
    headers = {"Content-Type": request.headers.get("Content-Type", "application/json")}
    body: Any = None
    if request.can_read_body:
        # chromedriver reads no chunked bodies: one of known length is streamed, another collected.
        length = request.content_length
        body = request.content if length is not None else await request.content.read()
        if length is not None:
            headers["Content-Length"] = str(length)
    return await parts(request).http.request(
        request.method,
        url,
        data=body,
        headers=headers,
        allow_redirects=False,
        timeout=ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
    )


async def _let_go(call: asyncio.Task[aiohttp.ClientResponse]) -> None:
    """Give up what is still under way, and the connection of an answer that nobody has read."""
    await stop_task(call)
    if not call.cancelled() and call.exception() is None:
        call.result().close()


async def _pass_back(
    request: web.Request, session: ActiveSession, reply: aiohttp.ClientResponse
) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers={"Cache-Control": "no-cache"})
    response.content_type = reply.content_type
    response.content_length = reply.content_length
    await response.prepare(request)
    size = 0
    try:
        async for piece in reply.content.iter_any():
            size += len(piece)
            await response.write(piece)
        await response.write_eof()
    except (aiohttp.ClientError, OSError) as error:
        # The head is out, so there is no other way to say that the rest will not come.
        log.debug("session %s: an answer broke off: %r", session.id, error)
        if request.transport is not None:
            request.transport.abort()
    _count(request, session, outward=size)
    return response


async def _let_in(request: web.Request) -> ActiveSession:
    """The session in the path, for a key of its project or its token: in the path, or in Basic."""
    wanted = session_id(request)
    token = request.match_info["token"].lstrip("/") or None
    request[CALLER] = parts(request).trust.admit(request, Opens.SESSION, wanted, token=token)
    return await active(request, wanted)


async def _address(request: web.Request, session: ActiveSession) -> str:
    if session.handle is None or session.ended.done():
        raise _over(session)
    return await parts(request).engine.webdriver(session.handle)


def _count(
    request: web.Request, session: ActiveSession, *, inward: int | None = None, outward: int = 0
) -> None:
    """A command and its answer are driver traffic, as those of CDP are."""
    for traffic in (session.traffic, parts(request).totals):
        traffic.last = asyncio.get_running_loop().time()
        if inward is not None:
            traffic.messages_in += 1
            traffic.bytes_in += inward
        else:
            traffic.messages_out += 1
            traffic.bytes_out += outward


def _over(session: ActiveSession) -> SessionEnded:
    reason = session.ended.result() if session.ended.done() else None
    return SessionEnded(f"session {session.id} has ended: {reason}", reason=reason)


def _broken(session: ActiveSession, error: Exception) -> Exception:
    """What a broken connection to chromedriver means. Its text names the address: not shown."""
    if session.ended.done():
        return _over(session)
    log.warning("session %s: chromedriver is not there: %s", session.id, type(error).__name__)
    return ServiceError(
        "the session's chromedriver did not answer; begin a new WebDriver session",
        status=500,
        code="browser_unresponsive",
    )


def _error(request: web.Request, error: Exception) -> web.Response:
    ours, problem, headers = middleware.describe(request, error)
    begins = request.method == "POST" and request.path.endswith("/session")
    status, name = _W3C.get(
        problem["code"],
        (ours if ours in _OURS else 500, "session not created" if begins else "unknown error"),
    )
    if status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="browsercloud"'  # Java's client waits for it
    value = {"error": name, "message": problem["message"], "stacktrace": ""}
    return web.json_response({"value": value}, status=status, headers=headers)
