"""The whole route table, and the guard before each handler."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler
from attrs import frozen

from browsercloud.server import gateway, hub, webdriver
from browsercloud.server.parts import CALLER, parts
from browsercloud.server.routes import health, leases, pages, sessions
from browsercloud.server.trust import Opens
from browsercloud.wire import invalid, read_session_id

ANYONE, KEY, SESSION = Opens.ANYONE, Opens.KEY, Opens.SESSION


@frozen
class Route:
    """One row: what it answers to, who answers, and whom it lets in."""

    method: str
    path: str
    handler: Handler
    opens: Opens = KEY
    html: bool = False
    """Whether its errors are pages for people."""

    w3c: bool = False
    """Whether its errors are WebDriver's."""


ONE = "/v1/sessions/{session_id}"
PAGE = "/sessions/{session_id}"
DRIVE = ONE + "/webdriver{token:(?:/[A-Za-z0-9_.-]{43,})?}"
"""The token is in the path, as clients append to the URL; each handler lets in by itself."""

TABLE = (
    Route("POST", "/v1/sessions", sessions.create),
    Route("GET", "/v1/sessions", sessions.index),
    Route("DELETE", "/v1/sessions", sessions.release_all),
    Route("POST", "/v1/sessions/release", sessions.release_all),
    Route("GET", ONE, sessions.retrieve, SESSION),
    Route("DELETE", ONE, sessions.release),
    Route("POST", f"{ONE}/release", sessions.release),
    Route("POST", f"{ONE}/extend", sessions.extend),
    Route("GET", f"{ONE}/live", sessions.live, SESSION),
    Route("GET", f"{ONE}/live-details", sessions.live, SESSION),
    Route("GET", f"{ONE}/cdp", gateway.cdp, SESSION),
    Route("GET", f"{ONE}/json/version", gateway.version, SESSION),
    Route("GET", f"{ONE}/json/version/", gateway.version, SESSION),
    Route("GET", "/", gateway.steel, SESSION),
    Route("POST", f"{DRIVE}/session", webdriver.create, ANYONE, w3c=True),
    Route("GET", f"{DRIVE}/status", webdriver.status, ANYONE, w3c=True),
    Route("*", DRIVE + "/session/{tail:.+}", webdriver.command, ANYONE, w3c=True),
    Route("*", ONE + "/webdriver{tail:(?:/.*)?}", webdriver.unknown, ANYONE, w3c=True),
    Route("GET", "/wd/hub/status", hub.status, ANYONE, w3c=True),
    Route("POST", "/wd/hub/session", hub.create, ANYONE, w3c=True),
    Route("DELETE", "/wd/hub/session/{hub_id}", hub.delete, ANYONE, w3c=True),
    Route("*", "/wd/hub/session/{hub_id}/{tail:.+}", hub.command, ANYONE, w3c=True),
    Route("*", "/wd/hub{tail:(?:/.*)?}", webdriver.unknown, ANYONE, w3c=True),
    Route("GET", "/v1/leases/{lease_id}", leases.hold),
    Route("GET", PAGE, pages.debug, SESSION, html=True),
    Route("GET", f"{PAGE}/viewer", pages.viewer, SESSION, html=True),
    Route("GET", f"{PAGE}/screenshot", pages.screenshot, SESSION),
    Route("GET", "/pages/{name}", pages.asset, ANYONE),
    Route("GET", "/healthz", health.health, ANYONE),
)


def add_routes(app: web.Application) -> None:
    """Put the table into *app*, each handler behind its guard."""
    for route in TABLE:
        handler = _guarded(route)
        if route.html:
            handler = pages.errors_as_html(handler)
        if route.w3c:
            handler = webdriver.errors_as_w3c(handler)
        app.router.add_route(route.method, route.path, handler)


def _guarded(route: Route) -> Handler:
    async def guarded(request: web.Request) -> web.StreamResponse:
        named = _named_session(request) if route.opens is SESSION else None
        request[CALLER] = parts(request).trust.admit(request, route.opens, named)
        return await route.handler(request)

    return guarded


def _named_session(request: web.Request) -> str | None:
    """The session that a token would have to open; `None` when the text names none."""
    text = request.match_info.get("session_id", request.query.get("sessionId"))
    if text is None and "token" in request.query:
        raise invalid([("sessionId", "required: the id of the session that the token opens")])
    try:
        return read_session_id(text)
    except ValueError:
        return None
