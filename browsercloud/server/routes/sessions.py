"""`/v1/sessions`: create, list, retrieve, live details, extend, release."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import attrs
from aiohttp import web
from attrs import field, frozen

from browsercloud.cdp.connection import CdpConnection
from browsercloud.errors import ServiceError
from browsercloud.models import (
    CreateRequest,
    LiveDetails,
    LivePage,
    Released,
    Session,
    SessionList,
    SessionStatus,
)
from browsercloud.options import Seconds, SessionOptions
from browsercloud.server.logs import about
from browsercloud.server.operations import BOOLEAN, BROWSER_ERRORS, Operation, Parameter
from browsercloud.server.parts import (
    active,
    endpoint_of,
    hung_up,
    parts,
    project,
    query,
    read_json,
    record,
    session_id,
)
from browsercloud.server.urls import Urls, with_urls
from browsercloud.stores.base import Query
from browsercloud.wire import dump, invalid, read, read_create, read_session_id

log = logging.getLogger(__name__)

DEFAULT_LIMIT, MAX_LIMIT = 50, 100
BROWSER_TIMEOUT = 5.0
"""How long a browser may take to list its pages, in seconds."""

_BOOLEANS = {"true": True, "false": False}
_LABEL = "metadata."


@frozen(kw_only=True)
class ExtendRequest:
    """The body of extend."""

    timeout: Seconds = field(validator=attrs.fields(SessionOptions).timeout.validator)
    """The new life, from now; more than 0, at most 24 h."""


@frozen(kw_only=True)
class ReleasedAll(Released):
    """The answer to a release of everything."""

    released: int
    """How many sessions were released."""


MAX_CREATE = 32 * 2**20
"""Bytes that a create may have: it may hold a session's context."""

CREATE = Operation(
    query=(Parameter("wait", "`false` answers at once, before it is live.", BOOLEAN),),
    body=CreateRequest,
    answers={201: Session, 200: Session, 202: Session},
    errors=(
        "conflict",
        "session_ended",
        "no_capacity",
        "rate_limited",
        "launch_failed",
        "shutting_down",
    ),
)
LIST = Operation(
    query=(
        Parameter(
            "status", "Only those.", {"type": "string", "enum": [str(s) for s in SessionStatus]}
        ),
        Parameter("name", "Only those of this name."),
        Parameter("build", "Only those of this build."),
        Parameter(
            "limit",
            "How many at most.",
            {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
        ),
        Parameter(
            "cursorId",
            "Strictly after this session, whether it lives or has ended.",
            {"type": "string", "format": "uuid"},
        ),
    ),
    labels=Parameter("metadata.", "`metadata.KEY=VALUE`: only those with this label."),
    answers={200: SessionList},
)
RETRIEVE = Operation(answers={200: Session}, errors=("session_ended",))
LIVE = Operation(answers={200: LiveDetails}, errors=BROWSER_ERRORS)
EXTEND = Operation(body=ExtendRequest, answers={200: Session}, errors=("conflict", "session_ended"))
_UNTIL_GONE = Parameter("wait", "`true` answers when all of it is gone.", BOOLEAN)
RELEASE = Operation(query=(_UNTIL_GONE,), answers={200: Released}, errors=("too_large",))
RELEASE_ALL = Operation(query=(_UNTIL_GONE,), answers={200: ReleasedAll}, errors=("too_large",))


async def create(request: web.Request) -> web.Response:
    """Start a session: 201 made, 200 it lives already, 202 not live yet."""
    wait = boolean("wait", query(request, CREATE.names).get("wait", "true"))
    wanted = read_create(await read_json(request, limit=MAX_CREATE))
    with about(session_id=wanted.session_id):
        session, made = await parts(request).sessions.create(
            project(request), wanted, wait=wait, hung_up=lambda: hung_up(request)
        )
    live = session.status is SessionStatus.LIVE
    status = 202 if not live else 201 if made else 200
    return web.json_response(dump(with_urls(request, session)), status=status)


async def index(request: web.Request) -> web.Response:
    """One page of the project's sessions. A listing opens nothing: its URLs carry no token."""
    wanted = read_query(project(request), query(request, LIST.names, prefix=_LABEL))
    # One more than asked for tells whether there is another page.
    one_more = attrs.evolve(wanted, limit=wanted.limit + 1)
    found, total = await parts(request).sessions.list(one_more)
    page = tuple(with_urls(request, session, token=False) for session in found[: wanted.limit])
    more = page[-1].id if len(found) > wanted.limit else None
    return web.json_response(dump(SessionList(sessions=page, next_cursor=more, total_count=total)))


async def retrieve(request: web.Request) -> web.Response:
    """One record, ended ones too."""
    query(request, ())
    session = await record(request, session_id(request))
    return web.json_response(dump(with_urls(request, session)))


async def live(request: web.Request) -> web.Response:
    """What is open in the session."""
    query(request, ())
    wanted = session_id(request)
    endpoint = await endpoint_of(await active(request, wanted))
    pages = await open_pages(parts(request).http, endpoint, Urls(request, wanted))
    return web.json_response(dump(pages))


async def extend(request: web.Request) -> web.Response:
    """A new life from now."""
    query(request, ())
    wanted = read(await read_json(request), ExtendRequest)
    session = await parts(request).sessions.extend(
        project(request), session_id(request), wanted.timeout
    )
    return web.json_response(dump(with_urls(request, session)))


async def release(request: web.Request) -> web.Response:
    """End one session; answers when its browser is told to go."""
    wait = boolean("wait", query(request, RELEASE.names).get("wait", "false"))
    await _no_body(request)
    released = await parts(request).sessions.release(
        project(request), session_id(request), wait=wait
    )
    return web.json_response(dump(released))


async def release_all(request: web.Request) -> web.Response:
    """End every session of the project."""
    wait = boolean("wait", query(request, RELEASE_ALL.names).get("wait", "false"))
    await _no_body(request)
    count = await parts(request).sessions.release_all(project(request), wait=wait)
    message = f"Sessions released: {count}"
    return web.json_response(dump(ReleasedAll(success=True, message=message, released=count)))


async def open_pages(http: aiohttp.ClientSession, endpoint: str, urls: Urls) -> LiveDetails:
    """The tabs of a browser, wherever it runs. Raises `CdpError`; icons that are unknown are none.

    Other targets (workers, frames, DevTools itself) are left out.
    """
    async with await CdpConnection.open(endpoint, timeout=BROWSER_TIMEOUT) as browser:
        reply = await browser.send("Target.getTargets", timeout=BROWSER_TIMEOUT)
    icons = await _icons(http, endpoint)
    pages = tuple(
        LivePage(
            id=target["targetId"],
            url=target["url"],
            title=target["title"],
            favicon=icons.get(target["targetId"]),
            session_viewer_url=urls.viewer(target["targetId"]),
            session_viewer_fullscreen_url=urls.viewer(target["targetId"], fullscreen=True),
        )
        for target in reply["targetInfos"]
        if _is_tab(target)
    )
    return LiveDetails(
        pages=pages,
        ws_url=urls.cdp(),
        session_viewer_url=urls.viewer(),
        session_viewer_fullscreen_url=urls.viewer(fullscreen=True),
    )


async def page_ids(endpoint: str) -> tuple[str, ...]:
    """The target ids of the open tabs, in the order in which live details tell them."""
    async with await CdpConnection.open(endpoint, timeout=BROWSER_TIMEOUT) as browser:
        reply = await browser.send("Target.getTargets", timeout=BROWSER_TIMEOUT)
    return tuple(str(target["targetId"]) for target in reply["targetInfos"] if _is_tab(target))


def _is_tab(target: Mapping[str, Any]) -> bool:
    """Whether it is a page for people; workers, frames and DevTools are none."""
    return target["type"] == "page" and not target["url"].startswith("devtools://")


async def front_page(http: aiohttp.ClientSession, endpoint: str) -> str:
    """The target id of the tab that was last in front, or opened last.

    The first one, where the browser does not tell that. Raises `CdpError`, and 404
    `page_not_found` when no tab is open.
    """
    # CDP lists targets in any order, Chromium's HTTP listing with the last active one first.
    for target in await _listed(http, endpoint):
        if target.get("type") == "page" and not target["url"].startswith("devtools://"):
            return str(target["id"])
    async with await CdpConnection.open(endpoint, timeout=BROWSER_TIMEOUT) as browser:
        reply = await browser.send("Target.getTargets", timeout=BROWSER_TIMEOUT)
    for target in reply["targetInfos"]:
        if _is_tab(target):
            return str(target["targetId"])
    raise ServiceError("the session has no page open", status=404, code="page_not_found")


async def _icons(http: aiohttp.ClientSession, endpoint: str) -> dict[str, str]:
    """Icon URLs by target id. CDP does not tell them, Chromium's HTTP listing does."""
    listed = await _listed(http, endpoint)
    return {target["id"]: target["faviconUrl"] for target in listed if "faviconUrl" in target}


async def _listed(http: aiohttp.ClientSession, endpoint: str) -> list[dict[str, Any]]:
    """Chromium's own listing of its targets; empty where there is none."""
    parts_of = urlsplit(endpoint)
    address = f"{parts_of.scheme.replace('ws', 'http', 1)}://{parts_of.netloc}/json/list"
    try:
        async with asyncio.timeout(BROWSER_TIMEOUT), http.get(address) as response:
            listed = await response.json()
        return [target for target in listed if {"id", "url"} <= target.keys()]
    except (aiohttp.ClientError, OSError, ValueError, TypeError, AttributeError) as error:
        log.debug("a browser does not list its targets: %s", type(error).__name__)
        return []


def read_query(owner: str, given: dict[str, str]) -> Query:
    """The list's parameters. Raises `InvalidRequest` with every one that is wrong."""
    found: list[tuple[str, str]] = []
    status = cursor = None
    limit = given.get("limit", str(DEFAULT_LIMIT))
    if not re.fullmatch("[0-9]{1,3}", limit) or not 1 <= int(limit) <= MAX_LIMIT:
        found.append(("limit", f"must be a whole number from 1 to {MAX_LIMIT}"))
    try:
        status = SessionStatus(given["status"]) if "status" in given else None
    except ValueError:
        found.append(("status", f"must be one of {', '.join(SessionStatus)}"))
    try:
        cursor = read_session_id(given["cursorId"]) if "cursorId" in given else None
    except ValueError as error:
        found.append(("cursorId", str(error)))
    if found:
        raise invalid(found)
    labels = {name.removeprefix(_LABEL): v for name, v in given.items() if name.startswith(_LABEL)}
    return Query(
        project=owner,
        status=status,
        name=given.get("name"),
        build=given.get("build"),
        metadata=labels,
        limit=int(limit),
        cursor_id=cursor,
    )


def boolean(name: str, text: str) -> bool:
    """A parameter that is `true` or `false`. Raises `InvalidRequest`."""
    if text not in _BOOLEANS:
        raise invalid([(name, "must be true or false")])
    return _BOOLEANS[text]


async def _no_body(request: web.Request) -> None:
    """A release takes no options; one that is sent is refused by its name."""
    body = await read_json(request)
    if body != {}:
        names = sorted(body) if isinstance(body, dict) else [""]
        raise invalid([(name, "unknown field") for name in names])
