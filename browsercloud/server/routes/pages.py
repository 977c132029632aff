"""The pages for people: a session's own page and its viewer, and the pictures they show."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib import resources
from string import Template
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from browsercloud.cdp.connection import CdpConnection, CdpError
from browsercloud.errors import ServiceError
from browsercloud.models import Session
from browsercloud.server.middleware import describe
from browsercloud.server.operations import BOOLEAN, BROWSER_ERRORS, Answer, Operation, Parameter
from browsercloud.server.parts import active, endpoint_of, query, record, session_id
from browsercloud.server.routes.sessions import boolean
from browsercloud.wire import STEEL_FACTS, dump, invalid

PICTURE_TIMEOUT = 8.0
"""How long a browser may take for one picture, in seconds. A hung page takes for ever."""

FIRST_FRAME_PATIENCE = 2.0
"""How long a page may take to draw for the first time, in seconds."""

NOTHING_DRAWN = "Unable to capture screenshot"
QUALITY = 70

HEADERS = {
    # The token is in the address: it must not travel on, nor be kept.
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'"
)

_FORMATS = {"jpeg": "image/jpeg", "png": "image/png"}
_ASSETS = {
    "style.css": "text/css",
    "page.js": "text/javascript",
    "viewer.js": "text/javascript",
    "dashboard.js": "text/javascript",
    "docs.css": "text/css",
    "docs.js": "text/javascript",
}
_DURATIONS = ("timeout",)
_HIDDEN = (
    *("websocketUrl", "webdriverUrl", "debugUrl", "sessionViewerUrl"),
    *("config", "error", "duration", "isSelenium"),
    *STEEL_FACTS,
)


_PAGE = Answer("The page.", media_type="text/html")
_PAGE_ID = Parameter("pageId", "The tab; the first one by default.")

_CONTROLS = Parameter("showControls", "`false` leaves the bars out.", BOOLEAN)
THEME = Parameter(
    "theme", "As the system has it by default.", {"type": "string", "enum": ["light", "dark"]}
)
DEBUG = Operation(query=(THEME,), answers={200: _PAGE}, errors=("session_ended",))
VIEWER = Operation(
    query=(
        _PAGE_ID,
        Parameter(
            "pageIndex",
            "The tab, by its place from 0.",
            {"type": "integer", "minimum": 0, "maximum": 999_999},
        ),
        Parameter("interactive", "`false` only shows.", BOOLEAN),
        _CONTROLS,
        THEME,
    ),
    answers={200: _PAGE},
    errors=("session_ended",),
)
SCREENSHOT = Operation(
    query=(
        _PAGE_ID,
        Parameter(
            "format", "JPEG by default.", {"type": "string", "enum": [*_FORMATS], "default": "jpeg"}
        ),
    ),
    answers={200: Answer("The picture.", media_type="image/*")},
    errors=("page_not_found", *BROWSER_ERRORS),
)
ASSET = Operation(
    path=(Parameter("name", "The file.", {"type": "string", "enum": [*_ASSETS]}),),
    answers={200: Answer("The file.", media_type="text/*")},
    errors=("not_found",),
)


async def debug(request: web.Request) -> web.Response:
    """The session's page: its record, its live picture, what happens in it, and how it ended.

    With a key or a login also after the end; a token has died with the session.
    """
    theme = theme_of(query(request, DEBUG.names))
    session = await record(request, session_id(request))
    return page(
        "session.html",
        id=escape(session.id),
        name=escape(session.name or session.id),
        status=escape(session.status),
        record=_rows(session),
        over="data-over" if session.status.ended else "",
        theme=theme,
    )


async def viewer(request: web.Request) -> web.Response:
    """The live picture, as large as the window; with a hand on it where the link allows that."""
    given = query(request, VIEWER.names)
    bare = not boolean("showControls", given.get("showControls", "true"))
    boolean("interactive", given.get("interactive", "true"))
    wanted_page(given)
    theme = theme_of(given)
    session = await _live_record(request)
    return page(
        "viewer.html",
        id=escape(session.id),
        name=escape(session.name or session.id),
        status=escape(session.status),
        bar="hidden" if bare else "",
        theme=theme,
        frames="*",  # whoever has the link may show it in a page of their own
    )


def theme_of(given: Mapping[str, str]) -> str:
    """The attribute for what `theme` of a query says. Raises `InvalidRequest`."""
    theme = given.get("theme")
    if theme not in (None, "light", "dark"):
        raise invalid([("theme", "must be light or dark")])
    return "" if theme is None else f'data-theme="{theme}"'


def wanted_page(given: Mapping[str, str]) -> tuple[str | None, int | None]:
    """What `pageId` or else `pageIndex` of a query say. Raises `InvalidRequest`."""
    wanted, index = given.get("pageId"), given.get("pageIndex")
    if index is not None and not re.fullmatch("[0-9]{1,6}", index):
        raise invalid([("pageIndex", "must be a whole number, from 0")])
    return wanted, None if index is None or wanted is not None else int(index)


async def screenshot(request: web.Request) -> web.Response:
    """One picture of a tab: of the first one, or of `pageId`. PNG, or JPEG by default."""
    given = query(request, SCREENSHOT.names)
    kind = given.get("format", "jpeg")
    if kind not in _FORMATS:
        raise invalid([("format", f"must be one of {', '.join(_FORMATS)}")])
    endpoint = await endpoint_of(await active(request, session_id(request)))
    picture = await take_picture(endpoint, given.get("pageId"), kind)
    return web.Response(body=picture, content_type=_FORMATS[kind], headers=HEADERS)


async def asset(request: web.Request) -> web.Response:
    """A style sheet or script of the pages."""
    name = request.match_info["name"]
    if name not in _ASSETS:
        raise web.HTTPNotFound
    headers = {"Cache-Control": "max-age=300", "X-Content-Type-Options": "nosniff"}
    return web.Response(
        text=_file(name), content_type=_ASSETS[name], charset="utf-8", headers=headers
    )


def errors_as_html(handler: Handler) -> Handler:
    """A page's errors are pages."""

    async def readable(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:
            status, problem, headers = describe(request, error)
            message = _MESSAGES.get(status, problem["message"])
            response = page(
                "message.html",
                title=escape(_TITLES.get(status, "This did not work")),
                message=escape(message),
                code=escape(problem["code"]),
                request=escape(problem["requestId"]),
            )
            response.set_status(status)
            response.headers.update(headers)
            return response

    return readable


_MESSAGES = {
    401: "Open the whole link: it ends with ?token= and the session's token. Or log in first, at /."
}
_TITLES = {
    401: "This link does not open the session",
    404: "There is no such session",
    410: "The session has ended",
}


async def take_picture(endpoint: str, page_id: str | None, kind: str) -> bytes:
    """A picture of one tab of the browser. Raises `CdpError` when there is none in time.

    *page_id* is a CDP target; `None` takes the first tab. Raises 404 `page_not_found`.
    """
    async with await CdpConnection.open(endpoint, timeout=PICTURE_TIMEOUT) as browser:
        target = await _target(browser, page_id)
        attached = await browser.send(
            "Target.attachToTarget", {"targetId": target, "flatten": True}, timeout=PICTURE_TIMEOUT
        )
        wanted = {"format": kind, "optimizeForSpeed": True}
        if kind == "jpeg":
            wanted["quality"] = QUALITY
        picture = await _capture(browser, attached["sessionId"], wanted)
    return base64.b64decode(picture["data"])


async def _capture(
    browser: CdpConnection, cdp_session_id: str, wanted: dict[str, Any]
) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    end = loop.time() + FIRST_FRAME_PATIENCE
    while True:
        try:
            return await browser.send(
                "Page.captureScreenshot", wanted, cdp_session_id, timeout=PICTURE_TIMEOUT
            )
        except CdpError as error:
            # A page that was just opened has not drawn its first frame, and no event tells when.
            if NOTHING_DRAWN not in str(error) or loop.time() > end:
                raise
        await asyncio.sleep(0.02)


async def _target(browser: CdpConnection, page_id: str | None) -> str:
    reply = await browser.send("Target.getTargets", timeout=PICTURE_TIMEOUT)
    pages: list[str] = [
        target["targetId"] for target in reply["targetInfos"] if target["type"] == "page"
    ]
    if page_id is None and pages:
        return pages[0]
    if page_id in pages:
        return page_id
    raise ServiceError("the session has no such page", status=404, code="page_not_found")


async def _live_record(request: web.Request) -> Session:
    """The record of a session that still lives; `SessionEnded` after that, for keys as well."""
    wanted = session_id(request)
    await active(request, wanted)
    return await record(request, wanted)


def _rows(session: Session) -> str:
    """The record as rows of a table; what is empty, or opens something, is left out."""
    facts = {name: value for name, value in dump(session).items() if name not in _HIDDEN}
    return "\n".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        f'<td data-field="{escape(name)}">{escape(_words(name, value))}</td></tr>'
        for name, value in facts.items()
        if value is not None and value != {}
    )


def _words(name: str, value: Any) -> str:
    """A value for people."""
    match value:
        case bool():
            return "yes" if value else "no"
        case int() if name in _DURATIONS:
            return f"{value / 1000:g} s"
        case {"width": width, "height": height}:
            return f"{width} × {height}"
        case dict():
            return ", ".join(f"{key}: {text}" for key, text in value.items())
        case _:
            return str(value)


def page(
    template: str, *, frames: str = "'self'", forms: str = "'none'", **values: str
) -> web.Response:
    """A page of the folder `pages`; what comes from outside has to be escaped before.

    *frames* says whose pages may show it inside theirs, *forms* where its forms may be sent.
    """
    text = Template(_file(template)).substitute(values)
    rules = f"{POLICY}; frame-ancestors {frames}; form-action {forms}"
    policy = {"Content-Security-Policy": rules}
    headers = HEADERS | policy
    return web.Response(text=text, content_type="text/html", charset="utf-8", headers=headers)


@cache
def _file(name: str) -> str:
    folder = resources.files("browsercloud.server").joinpath("pages")
    return folder.joinpath(name).read_text(encoding="utf-8")
