"""What handlers work with, and what each of them asks of a request."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from aiohttp import ClientError, ClientSession, WSCloseCode, web
from attrs import define, field

from browsercloud._aio import join, stop_task
from browsercloud.engines.base import BrowserHandle, Engine
from browsercloud.errors import Conflict, ServiceError, SessionEnded
from browsercloud.models import Session, SessionStatus
from browsercloud.server.active import ActiveSession, not_found
from browsercloud.server.journal import Journal
from browsercloud.server.keyring import Keyring
from browsercloud.server.metrics import Metrics
from browsercloud.server.screencasts import Screencasts
from browsercloud.server.sessions import Sessions
from browsercloud.server.traffic import Traffic
from browsercloud.server.trust import Caller, Trust, is_upgrade
from browsercloud.stores.base import Store
from browsercloud.wire import invalid, read_session_id

log = logging.getLogger(__name__)

STARTING_PATIENCE = 60.0
"""How long a socket waits for its session to become live, in seconds."""

REVOKED = b"the API key was revoked"
"""What a socket is told that ends with its key, beside code 1008."""

_UTF8 = ("utf-8", "utf8")


@define(eq=False)
class Parts:
    """The server's collaborators, as handlers see them."""

    sessions: Sessions
    store: Store
    trust: Trust
    keyring: Keyring
    engine: Engine
    journal: Journal
    metrics: Metrics
    totals: Traffic
    """What all sessions' drivers have sent and got, ended sessions too."""

    interface: Callable[[], str]
    """The interface's description as JSON; made when it is first asked for."""

    http: ClientSession = field(init=False, repr=False)
    """For the browsers' endpoints; there while the application runs."""

    screencasts: Screencasts = field(factory=Screencasts, repr=False)
    """What viewers look at."""

    sockets: set[web.WebSocketResponse] = field(factory=set, repr=False)
    """Sockets that end with the server, not with a session."""


PARTS: web.AppKey[Parts] = web.AppKey("parts", Parts)
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)


def parts(request: web.Request) -> Parts:
    """The server's collaborators."""
    return request.app[PARTS]


def project(request: web.Request) -> str:
    """The caller's project, on a route that asks for a key."""
    found = request[CALLER].project
    if found is None:
        raise RuntimeError("this route lets tokens in, which belong to no project")
    return found


def revoked(request: web.Request) -> asyncio.Future[None]:
    """Done when the key is revoked that the caller came with, directly or by a token."""
    return request[CALLER].revoked or asyncio.get_running_loop().create_future()


@asynccontextmanager
async def open_until_revoked(
    request: web.Request, held: web.WebSocketResponse
) -> AsyncIterator[None]:
    """Close *held*, which stays open in the block, when the caller's key is revoked."""
    gone = revoked(request)

    async def close() -> None:
        await asyncio.wait({gone})
        try:
            await held.close(code=WSCloseCode.POLICY_VIOLATION, message=REVOKED)
        except (ClientError, OSError) as error:
            log.debug("a socket broke while it was closed: %r", error)

    closing = asyncio.create_task(close(), name="until revoked")
    try:
        yield
    finally:
        try:
            if gone.done():
                await join(closing)  # the goodbye is on its way
        finally:
            await stop_task(closing)


def session_id(request: web.Request) -> str:
    """The id in the path. One that is no UUID names no session, so that is 404 like any other."""
    text = request.match_info["session_id"]
    try:
        return read_session_id(text)
    except ValueError:
        raise not_found(text) from None


async def record(request: web.Request, wanted: str) -> Session:
    """The record of the session *wanted*, if the caller may see it.

    A key finds its project's sessions, ended ones too. A token has died with its session: raises
    `SessionEnded` then. Raises `SessionNotFound`.
    """
    here = parts(request)
    owner = request[CALLER].project
    if owner is not None:
        return await here.sessions.get(owner, wanted)
    row = await here.store.get(wanted)
    if row is None:
        raise not_found(wanted)
    session = await here.sessions.get(row.project, wanted)
    if session.status.ended or session.status is SessionStatus.RELEASING:
        raise over(session)
    return session


async def active(request: web.Request, wanted: str) -> ActiveSession:
    """The session *wanted* in the registry, if the caller may use it.

    Raises `SessionEnded` when it is over, `SessionNotFound` when it is not the caller's.
    """
    found = parts(request).sessions.live(wanted)
    if found is not None and request[CALLER].project in (None, found.project):
        return found
    raise over(await record(request, wanted))


async def endpoint_of(session: ActiveSession) -> str:
    """The endpoint of the session's browser; raises as `handle_of` does, or `Conflict`: none."""
    handle = await handle_of(session)
    if not handle.endpoint:
        raise Conflict(
            f"session {session.id} is one connection to a browser elsewhere: nobody but its "
            "client can ask that browser for anything"
        )
    return handle.endpoint


async def handle_of(session: ActiveSession) -> BrowserHandle:
    """The session's browser; waits for a session that is still starting.

    Raises what the start failed with, `SessionEnded`, or 503 when it takes longer than a minute.
    """
    if session.starting is not None:
        either: set[asyncio.Future[Any]] = {session.starting, session.ended}
        await asyncio.wait(either, timeout=STARTING_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    if session.problem is not None:
        raise session.problem
    if session.ended.done():
        reason = session.ended.result()
        raise SessionEnded(f"session {session.id} has ended: {reason}", reason=reason)
    if session.handle is None:
        raise ServiceError(
            f"session {session.id} is still starting", status=503, code="starting", retry_after=1
        )
    return session.handle


def over(session: Session) -> SessionEnded:
    """The error that says the session is over, and why."""
    reason = session.release_reason
    return SessionEnded(
        f"session {session.id} has ended: {reason or 'it is being released'}",
        reason=reason,
        session=session,
    )


def named_session(request: web.Request) -> str | None:
    """The session that a token would have to open; `None` when the text names none."""
    text = request.match_info.get("session_id", request.query.get("sessionId"))
    if text is None and "token" in request.query:
        raise invalid([("sessionId", "required: the id of the session that the token opens")])
    try:
        return read_session_id(text)
    except ValueError:
        return None


def hung_up(request: web.Request) -> bool:
    """Whether nobody is there any more to be answered."""
    return request.transport is None or request.transport.is_closing()


def require_upgrade(request: web.Request) -> None:
    """Raise 426 unless the request wants to become a WebSocket."""
    if not is_upgrade(request):
        raise ServiceError(
            "this is a WebSocket address; connect to it as one",
            status=426,
            code="upgrade_required",
        )


def query(request: web.Request, allowed: Collection[str], *, prefix: str = "") -> dict[str, str]:
    """The query's parameters. Raises `InvalidRequest` for an unknown one and for one given twice.

    *prefix* allows names that begin with it. `token` is always allowed: it was checked before.
    """
    found: list[tuple[str, str]] = []
    for name in dict.fromkeys(request.query):
        known = name in allowed or name == "token" or (prefix and name.startswith(prefix))
        if not known:
            found.append((name, "unknown parameter"))
        elif len(request.query.getall(name)) > 1:
            found.append((name, "given more than once"))
    if found:
        raise invalid(found)
    return dict(request.query)


async def read_json(request: web.Request, *, limit: int | None = None) -> Any:
    """The body as JSON; an empty one is an empty object. Anything malformed is `InvalidRequest`.

    *limit* is how many bytes it may have, if not as many as usual.
    """
    if limit is not None:
        request = request.clone(client_max_size=limit)
    raw = await request.read()
    if (request.charset or "utf-8").lower() not in _UTF8:
        raise invalid([("", "the body must be UTF-8")])
    if not raw.strip():
        return {}
    try:
        value = json.loads(
            raw.decode(), parse_constant=_no_constant, object_pairs_hook=_no_duplicates
        )
        if re.search(rb"\\u[dD][89a-fA-F]", raw):
            # Half a surrogate pair is JSON and cannot be written as UTF-8 ever after.
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise invalid([("", "the body holds half a surrogate pair")]) from None
    except UnicodeDecodeError:
        raise invalid([("", "the body must be UTF-8")]) from None
    except (ValueError, RecursionError) as error:
        raise invalid([("", f"the body is not JSON: {error}")]) from None
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a field is given twice")
    return value
