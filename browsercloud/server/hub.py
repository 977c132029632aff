"""`/wd/hub`: a session of ours by WebDriver alone. It begins with New Session and ends with DELETE.

The id that a client is given, `SESSION.WEBDRIVER.TOKEN`, holds all that the next command needs: our
session, chromedriver's, and the token, as many clients send their key with the first request only.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid

from aiohttp import web

from browsercloud._aio import settle
from browsercloud.errors import NoCapacity, SessionEnded, SessionNotFound
from browsercloud.models import CreateRequest
from browsercloud.options import Adapter
from browsercloud.server.active import ActiveSession, not_found
from browsercloud.server.capabilities import read_capabilities
from browsercloud.server.logs import about
from browsercloud.server.parts import CALLER, active, parts, project, read_json
from browsercloud.server.trust import Opens
from browsercloud.server.webdriver import answer, ask, attach, relay
from browsercloud.wire import invalid, read_create, read_session_id

log = logging.getLogger(__name__)

START_PATIENCE = 110.0
"""Seconds for which New Session waits for a browser: most clients wait for two minutes."""

RELEASE_PATIENCE = 30.0


async def status(request: web.Request) -> web.Response:
    """Whether New Session can be asked for: as long as there is an answer at all."""
    return answer({"ready": True, "message": "POST /wd/hub/session makes a session", "nodes": []})


async def create(request: web.Request) -> web.Response:
    """New Session: one of ours, and chromedriver attached to it."""
    wanted = read_capabilities(await read_json(request))
    trust = parts(request).trust
    request[CALLER] = trust.admit(request, Opens.KEY, None, key=wanted.key)
    owner = project(request)
    if "sessionId" in wanted.options or "leaseId" in wanted.options:
        raise invalid([("browsercloud:options", "the id is chosen here, and there is no lease")])
    asked = read_create({**wanted.options, "adapter": Adapter.SELENIUM.value})
    with about(session_id=asked.session_id):
        try:
            session = await _begin(request, owner, asked)
            attached = await attach(request, session, wanted)
            _require_client(request)
        except BaseException:
            await settle(
                lambda: _release(request, owner, asked.session_id), patience=RELEASE_PATIENCE
            )
            raise
    token = trust.token(session.id, request[CALLER].key_id)
    hub_id = f"{uuid.UUID(session.id).hex}.{attached.webdriver_session_id}.{token}"
    return answer({"sessionId": hub_id, "capabilities": attached.capabilities})


async def command(request: web.Request) -> web.StreamResponse:
    """Every other command."""
    session, webdriver_session_id = await _session(request)
    path = f"/session/{webdriver_session_id}{_rest(request)}"
    if request.method == "DELETE" and _rest(request) == "/window":
        return await _close_window(request, session, path)
    return await relay(request, session, path)


async def delete(request: web.Request) -> web.Response:
    """Delete Session: ends ours. Again is fine, as it is when something else has ended it."""
    try:
        session, _ = await _session(request)
    except SessionEnded as error:
        log.debug("asked to end what is over: %s", error)
    else:
        await _end(request, session)
    return answer(None)


async def _close_window(
    request: web.Request, session: ActiveSession, path: str
) -> web.StreamResponse:
    """Close Window. By the protocol the last one ends the session."""
    status, body = await ask(request, session, "DELETE", path)
    if status == 200 and json.loads(body)["value"] == []:
        await _end(request, session)
    return web.Response(status=status, body=body, content_type="application/json")


async def _begin(request: web.Request, owner: str, asked: CreateRequest) -> ActiveSession:
    """The session, live. One that has to wait for its turn keeps its place in the line."""
    sessions = parts(request).sessions
    try:
        async with asyncio.timeout(START_PATIENCE):
            while True:
                try:
                    await sessions.create(owner, asked)
                except NoCapacity:
                    if sessions.live(asked.session_id) is None:
                        raise
                    continue
                return await active(request, asked.session_id)
    except TimeoutError:
        raise NoCapacity(
            f"no browser became free within {START_PATIENCE:g} s; try again later", retry_after=5
        ) from None


def _require_client(request: web.Request) -> None:
    if request.transport is None or request.transport.is_closing():
        raise ConnectionResetError("the client hung up, so nobody would ever end the session")


async def _release(request: web.Request, owner: str, session_id: str) -> None:
    try:
        await parts(request).sessions.release(owner, session_id)
    except SessionNotFound:
        log.debug("session %s: there was nothing to release", session_id)


async def _end(request: web.Request, session: ActiveSession) -> None:
    await settle(
        lambda: _release(request, session.project, session.id),
        patience=RELEASE_PATIENCE,
        what=f"releasing session {session.id}",
    )


async def _session(request: web.Request) -> tuple[ActiveSession, str]:
    """Our session and chromedriver's id of its own. The id in the path is what lets in."""
    text, _, rest = request.match_info["hub_id"].partition(".")
    webdriver_session_id, _, token = rest.partition(".")
    try:
        wanted = read_session_id(text)
    except ValueError:
        raise not_found("with this id") from None
    request[CALLER] = parts(request).trust.admit(request, Opens.SESSION, wanted, token=token)
    return await active(request, wanted), webdriver_session_id


def _rest(request: web.Request) -> str:
    """What follows the id, as it came."""
    after = request.rel_url.raw_path.partition("/wd/hub/session/")[2]
    _, slash, rest = after.partition("/")
    return slash + rest
