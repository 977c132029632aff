"""The whole route table, and the guard before each handler."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler
from attrs import frozen

from browsercloud.server import gateway, hub, sockets, webdriver
from browsercloud.server.operations import (
    BROWSER_ERRORS,
    SWITCHED,
    Answer,
    Operation,
)
from browsercloud.server.parts import CALLER, named_session, parts
from browsercloud.server.routes import (
    capacity,
    computer,
    contexts,
    dashboard,
    docs,
    events,
    health,
    leases,
    pages,
    sessions,
    viewer,
)
from browsercloud.server.routes.later import NOT_YET
from browsercloud.server.trust import Opens

ANYONE, KEY, SESSION, VIEWER = Opens.ANYONE, Opens.KEY, Opens.SESSION, Opens.VIEWER


@frozen
class Route:
    """One row: what it answers to, who answers, what is taken and given, and whom it lets in."""

    method: str
    path: str
    handler: Handler
    about: Operation
    opens: Opens = KEY
    html: bool = False
    """Whether its errors are pages for people."""

    w3c: bool = False
    """Whether it speaks WebDriver, which is described elsewhere; so do its errors."""

    key_in: Callable[[web.Request], str | None] = lambda _: None
    """Where else than usual a key may be."""


ONE = "/v1/sessions/{session_id}"
PAGE = "/sessions/{session_id}"
DRIVE = ONE + "/webdriver{token:(?:/[A-Za-z0-9_.-]{43,})?}"
"""The token is in the path, as clients append to the URL; each handler lets in by itself."""

CDP = Operation(answers={101: SWITCHED}, errors=("upgrade_required", *BROWSER_ERRORS))
_VERSION_FIELDS = (
    "Browser",
    "Protocol-Version",
    "User-Agent",
    "V8-Version",
    "WebKit-Version",
    "webSocketDebuggerUrl",
)
VERSION = Operation(
    answers={
        200: Answer(
            "As Chromium itself answers.",
            "application/json",
            {
                "type": "object",
                "required": list(_VERSION_FIELDS),
                "properties": {name: {"type": "string"} for name in _VERSION_FIELDS},
            },
        )
    },
    errors=BROWSER_ERRORS,
)
W3C = Operation(answers={})

TABLE = (
    Route("POST", "/v1/sessions", sessions.create, sessions.CREATE),
    Route("GET", "/v1/sessions", sessions.index, sessions.LIST),
    Route("DELETE", "/v1/sessions", sessions.release_all, sessions.RELEASE_ALL),
    Route("POST", "/v1/sessions/release", sessions.release_all, sessions.RELEASE_ALL),
    Route("GET", ONE, sessions.retrieve, sessions.RETRIEVE, SESSION),
    Route("DELETE", ONE, sessions.release, sessions.RELEASE),
    Route("POST", f"{ONE}/release", sessions.release, sessions.RELEASE),
    Route("POST", f"{ONE}/extend", sessions.extend, sessions.EXTEND),
    Route("GET", f"{ONE}/live", sessions.live, sessions.LIVE, SESSION),
    Route("GET", f"{ONE}/live-details", sessions.live, sessions.LIVE, SESSION),
    Route("GET", f"{ONE}/events", events.index, events.EVENTS, SESSION),
    Route("POST", f"{ONE}/computer", computer.computer, computer.COMPUTER, SESSION),
    Route("GET", f"{ONE}/context", contexts.get, contexts.GET),
    Route("PUT", f"{ONE}/context", contexts.put, contexts.PUT),
    Route("DELETE", f"{ONE}/context", contexts.clear, contexts.CLEAR),
    Route("GET", f"{ONE}/context/cookies", contexts.get_cookies, contexts.GET_COOKIES),
    Route("PUT", f"{ONE}/context/cookies", contexts.put_cookies, contexts.PUT_COOKIES),
    Route("GET", f"{ONE}/cdp", gateway.cdp, CDP, SESSION),
    Route("GET", f"{ONE}/playwright", gateway.playwright, CDP, SESSION),
    Route("GET", f"{ONE}/json/version", gateway.version, VERSION, SESSION),
    Route("GET", f"{ONE}/json/version/", gateway.version, VERSION, SESSION),
    Route("GET", "/", dashboard.home, dashboard.HOME, ANYONE),
    Route("POST", "/login", dashboard.login, dashboard.ENTER, ANYONE, html=True),
    Route("POST", "/logout", dashboard.logout, dashboard.LEAVE, ANYONE, html=True),
    Route("GET", "/puppeteer", sockets.puppeteer, sockets.PUPPETEER, key_in=sockets.key_in),
    Route("POST", f"{DRIVE}/session", webdriver.create, W3C, ANYONE, w3c=True),
    Route("GET", f"{DRIVE}/status", webdriver.status, W3C, ANYONE, w3c=True),
    Route("*", DRIVE + "/session/{tail:.+}", webdriver.command, W3C, ANYONE, w3c=True),
    Route("*", ONE + "/webdriver{tail:(?:/.*)?}", webdriver.unknown, W3C, ANYONE, w3c=True),
    Route("GET", "/wd/hub/status", hub.status, W3C, ANYONE, w3c=True),
    Route("POST", "/wd/hub/session", hub.create, W3C, ANYONE, w3c=True),
    Route("DELETE", "/wd/hub/session/{hub_id}", hub.delete, W3C, ANYONE, w3c=True),
    Route("*", "/wd/hub/session/{hub_id}/{tail:.+}", hub.command, W3C, ANYONE, w3c=True),
    Route("*", "/wd/hub{tail:(?:/.*)?}", webdriver.unknown, W3C, ANYONE, w3c=True),
    Route("GET", "/v1/capacity", capacity.capacity, capacity.CAPACITY),
    Route("GET", "/v1/leases/{lease_id}", leases.hold, leases.HOLD),
    Route("POST", f"{ONE}/viewer", viewer.link, viewer.LINK, SESSION),
    Route("GET", f"{ONE}/viewer/ws", viewer.socket, viewer.SOCKET, VIEWER),
    Route("GET", PAGE, pages.debug, pages.DEBUG, SESSION, html=True),
    Route("GET", f"{PAGE}/viewer", pages.viewer, pages.VIEWER, VIEWER, html=True),
    Route("GET", f"{PAGE}/screenshot", pages.screenshot, pages.SCREENSHOT, VIEWER),
    Route("GET", "/pages/{name}", pages.asset, pages.ASSET, ANYONE),
    Route("GET", "/healthz", health.health, health.HEALTH, ANYONE),
    Route("GET", "/readyz", health.ready, health.READY, ANYONE),
    Route("GET", "/metrics", health.metrics, health.METRICS),
    Route("GET", "/openapi.json", docs.document, docs.DOCUMENT, ANYONE),
    Route("GET", "/docs", docs.docs, docs.DOCS, ANYONE),
    *(Route(each.method, each.path, each.refuse, each.about) for each in NOT_YET),
)


def add_routes(app: web.Application) -> None:
    """Put the table into *app*, each handler behind its guard."""
    for route in TABLE:
        handler = _guarded(route)
        if route.html:
            handler = pages.errors_as_html(handler)
        if route.w3c:
            handler = webdriver.errors_as_w3c(handler)
        # `POST /v1/sessions/release` is no session's id, so its other methods are not possible.
        path = route.path.replace("{session_id}", "{session_id:(?!release$)[^{}/]+}")
        app.router.add_route(route.method, path, handler)


def _guarded(route: Route) -> Handler:
    async def guarded(request: web.Request) -> web.StreamResponse:
        named = named_session(request) if route.opens in (SESSION, VIEWER) else None
        key = route.key_in(request)
        request[CALLER] = parts(request).trust.admit(request, route.opens, named, key=key)
        return await route.handler(request)

    return guarded
