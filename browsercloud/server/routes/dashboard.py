"""`/`: the project's sessions for people, behind a login with a key; also Steel's socket."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from html import escape

from aiohttp import web
from attrs import define, field

from browsercloud.errors import NotAuthorized, ServiceError
from browsercloud.models import SessionStatus
from browsercloud.server import sockets
from browsercloud.server.operations import SWITCHED, Answer, Operation
from browsercloud.server.parts import CALLER, named_session, parts, query, require_upgrade
from browsercloud.server.routes.pages import THEME, page, theme_of
from browsercloud.server.trust import LOGIN, LOGIN_FOR, Caller, Opens, is_upgrade

MAX_FAILURES = 10
WINDOW = 60.0
"""Seconds within which one address may fail to log in so often."""

MAX_ADDRESSES = 10_000
FORMS = "'self'"
_SOCKET = ("sessionId", "apiKey")

HOME = Operation(
    query=(*sockets.STEEL.query, THEME),
    answers={
        101: SWITCHED,
        200: Answer("The dashboard, or the form to log in.", media_type="text/html"),
    },
    errors=("not_authorized", "forbidden", *sockets.STEEL.errors),
)
_TO_HOME = Answer("To the dashboard.", headers={"Location": "`/`."})
ENTER = Operation(
    query=(THEME,),
    answers={303: _TO_HOME, 401: Answer("The form again.", media_type="text/html")},
    errors=("forbidden", "rate_limited", "too_large"),
)
LEAVE = Operation(answers={303: _TO_HOME}, errors=("forbidden",))


@define
class Failures:
    """How often each address has failed to log in lately."""

    _of: OrderedDict[str, deque[float]] = field(factory=OrderedDict, alias="of")

    def check(self, address: str) -> None:
        """Raise 429 for one that has failed too often."""
        times = self._of.get(address, deque())
        while times and times[0] < time.monotonic() - WINDOW:
            times.popleft()
        if len(times) >= MAX_FAILURES:
            raise ServiceError(
                "too many wrong keys from here; wait a minute",
                status=429,
                code="rate_limited",
                retry_after=times[0] + WINDOW - time.monotonic(),
            )

    def note(self, address: str) -> None:
        """It has failed once more."""
        self._of.setdefault(address, deque()).append(time.monotonic())
        self._of.move_to_end(address)
        if len(self._of) > MAX_ADDRESSES:
            self._of.popitem(last=False)


FAILURES: web.AppKey[Failures] = web.AppKey("failures", Failures)


async def home(request: web.Request) -> web.StreamResponse:
    """The dashboard; the form to log in for whoever is nobody yet; as a WebSocket, Steel's CDP.

    With `sessionId` the socket leads to that session. Without, and with a key, to one that begins
    with the socket and ends with it.
    """
    trust = parts(request).trust
    if is_upgrade(request) or any(name in request.query for name in _SOCKET):
        request[CALLER] = trust.admit(request, Opens.SESSION, named_session(request))
        require_upgrade(request)
        return await sockets.steel(request)
    theme = theme_of(query(request, HOME.names))
    try:
        caller = trust.admit(request, Opens.KEY, None)
    except NotAuthorized:
        return _form(theme)
    return _dashboard(request, caller, theme)


async def login(request: web.Request) -> web.Response:
    """Log in with a key, as the form's field `key`: the answer sets a cookie for twelve hours."""
    theme = theme_of(query(request, ENTER.names))
    trust, failures = parts(request).trust, request.app[FAILURES]
    if not trust.from_our_pages(request):
        raise _foreign()
    address = request.remote or ""
    failures.check(address)
    key = (await request.post()).get("key", "")
    try:
        token = trust.login(key.strip() if isinstance(key, str) else "")
    except NotAuthorized:
        failures.note(address)
        return _form(theme, problem="This key opens nothing here.")
    response = _to_home()
    response.set_cookie(
        LOGIN, token, max_age=LOGIN_FOR, httponly=True, samesite="Strict", secure=request.secure
    )
    return response


async def logout(request: web.Request) -> web.Response:
    """Forget the login."""
    query(request, ())
    if not parts(request).trust.from_our_pages(request):
        raise _foreign()
    response = _to_home()
    response.del_cookie(LOGIN, httponly=True, samesite="Strict", secure=request.secure)
    return response


def _dashboard(request: web.Request, caller: Caller, theme: str) -> web.Response:
    statuses = "\n".join(f'<option value="{each}">{each}</option>' for each in SessionStatus)
    return page(
        "dashboard.html",
        forms=FORMS,
        theme=theme,
        project=escape(caller.project or ""),
        statuses=statuses,
        out="" if LOGIN in request.cookies else "hidden",
    )


def _form(theme: str, problem: str = "") -> web.Response:
    hidden = "" if problem else "hidden"
    found = page(
        "login.html", forms=FORMS, theme=theme, problem=escape(problem), problem_hidden=hidden
    )
    if problem:
        found.set_status(401)
    return found


def _to_home() -> web.Response:
    return web.Response(status=303, headers={"Location": "/", "Cache-Control": "no-store"})


def _foreign() -> ServiceError:
    return ServiceError("a page of another origin may not do this", status=403, code="forbidden")
