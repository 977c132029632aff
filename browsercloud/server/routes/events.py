"""`/v1/sessions/{id}/events`: what happened in a session, and what happens next."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from aiohttp import web
from attrs import frozen

from browsercloud.errors import NotAuthorized
from browsercloud.models import SessionEvent
from browsercloud.server.operations import BOOLEAN, Answer, Operation, Parameter
from browsercloud.server.parts import REVOKED, parts, query, record, revoked, session_id
from browsercloud.wire import dump, invalid

DEFAULT_LIMIT, MAX_LIMIT = 100, 1_000
WAIT = 25.0
"""How long a call with `wait=true` is held when there is nothing to tell, in seconds."""

MAX_POINTER = 10**15 - 1
NEXT = "Next-Cursor"
_BOOLEANS = {"true": True, "false": False}

EVENTS = Operation(
    query=(
        Parameter(
            "pointer",
            "Strictly after the event with this number.",
            {"type": "integer", "minimum": 0, "maximum": MAX_POINTER, "default": 0},
        ),
        Parameter(
            "limit",
            "How many at most.",
            {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
        ),
        Parameter(
            "compressed",
            "Steel's; events are told as they are.",
            {"type": "boolean", "enum": [False]},
        ),
        Parameter(
            "wait", "`true` holds the answer back, up to 25 s, while there is nothing new.", BOOLEAN
        ),
    ),
    answers={
        200: Answer(
            "The events, oldest first.",
            "application/json",
            many=SessionEvent,
            headers={NEXT: "The pointer for the next page; without it nothing more will come."},
        )
    },
    errors=("session_ended",),
)


@frozen(kw_only=True)
class Page:
    """Which events to tell."""

    pointer: int = 0
    """Strictly after this number."""

    limit: int = DEFAULT_LIMIT
    wait: bool = False
    """Hold the answer back while there is nothing to tell."""


async def index(request: web.Request) -> web.Response:
    """One page. `Next-Cursor` is the pointer for the next one; without it nothing more will come.

    As long as the session has not ended it is always there, so that one can go on asking.
    """
    asked = read_page(query(request, EVENTS.names))
    wanted = session_id(request)
    # Listen first and look then: what happens in between is not missed.
    with parts(request).journal.listen(wanted) as news:
        events, following = await _look(request, wanted, asked)
        held = asked.wait and not events and following is not None
        if held:
            gone = revoked(request)
            await asyncio.wait({news, gone}, timeout=WAIT, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                raise NotAuthorized(REVOKED.decode())
    if held and news.done():
        events, following = await _look(request, wanted, asked)
    headers = {} if following is None else {NEXT: str(following)}
    return web.json_response([dump(event) for event in events], headers=headers)


async def _look(
    request: web.Request, wanted: str, asked: Page
) -> tuple[Sequence[SessionEvent], int | None]:
    """One page, and the pointer for the next one; `None` if there will never be any."""
    journal = parts(request).journal
    session = await record(request, wanted)
    # Asked before the events are read: after its end, what is read then is all there is.
    over = session.status.ended and not journal.knows(wanted)
    # One more than asked for tells whether there is another page.
    found = await journal.read(wanted, after=asked.pointer, limit=asked.limit + 1)
    events = found[: asked.limit]
    if over and len(found) <= asked.limit:
        return events, None
    return events, events[-1].number if events else asked.pointer


def read_page(given: dict[str, str]) -> Page:
    """The parameters. Raises `InvalidRequest` with every one that is wrong."""
    found: list[tuple[str, str]] = []
    pointer, limit = given.get("pointer", "0"), given.get("limit", str(DEFAULT_LIMIT))
    if not re.fullmatch("[0-9]{1,15}", pointer):
        found.append(("pointer", "must be a whole number, 0 or the number of an event"))
    if not re.fullmatch("[0-9]{1,4}", limit) or not 1 <= int(limit) <= MAX_LIMIT:
        found.append(("limit", f"must be a whole number from 1 to {MAX_LIMIT}"))
    if given.get("compressed", "false") != "false":
        found.append(("compressed", "must be false: events are told as they are"))
    if given.get("wait", "false") not in _BOOLEANS:
        found.append(("wait", "must be true or false"))
    if found:
        raise invalid(found)
    wait = _BOOLEANS[given.get("wait", "false")]
    return Page(pointer=int(pointer), limit=int(limit), wait=wait)
