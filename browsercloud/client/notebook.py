"""What a notebook shows: a live session is its live view, records are tables.

Nothing of Jupyter's is loaded here: where IPython runs already, it is told how to show things.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from html import escape
from typing import Any

from attrs import define

from browsercloud.client.endings import evidence
from browsercloud.client.sessions import Sessions
from browsercloud.errors import BrowserCloudError, SessionEnded
from browsercloud.models import Session, SessionList

Apart = Callable[[], AbstractAsyncContextManager[Sessions]]
"""`client.sessions` for a loop of one's own."""

log = logging.getLogger(__name__)

PATIENCE = 1.5
"""How long a cell may wait for what it shows, in seconds."""

MARGIN = 0.2

LINK_LIFE = 3600.0
"""How long the link in a notebook is good for, in seconds; showing it again makes another."""

BARS = 76
"""Height of the viewer's own bars, in CSS pixels."""

_LEFT = 'style="text-align:left;vertical-align:top"'
_WHOLE = "position:absolute;width:100%;height:100%;border:0"


def register() -> None:
    """Show records as tables in the IPython that runs here, if one does. Again is fine."""
    running = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if running is None:
        return
    formatters = running.display_formatter.formatters
    formatters["text/html"].for_type(Session, record_table)
    formatters["text/html"].for_type(SessionList, list_table)
    formatters["text/plain"].for_type(SessionList, _print_list)


@define
class _Look:
    """What was found out about a session in time. Filled by a thread, read by another."""

    url: str | None = None
    still: bytes | None = None
    record: Session | None = None
    problem: str | None = None


def bundle(plain: str, known: Session | None, apart: Apart | None) -> dict[str, str]:
    """A live session by MIME type: its live view, with a picture for when that is over.

    *plain* says it in words. Of a session that has ended it is the record as a table; without
    *apart* nobody is asked. Blocks `PATIENCE` seconds at most: notebooks call it on the loop of the
    user, where nothing can be awaited, so the server is asked from a thread.
    """
    if known is None:
        return {"text/plain": plain}
    if apart is None:
        return {"text/plain": plain, "text/html": record_table(known)}
    look = _looked(known.id, apart)
    if look.url is not None:
        shown = {"text/plain": plain, "text/html": _view(look.url, look.still, known)}
        if look.still is not None:
            shown["image/jpeg"] = base64.b64encode(look.still).decode()
        return shown
    if look.record is not None:
        plain = f"<LiveSession {known.id} {look.record.status}>"
        return {"text/plain": plain, "text/html": record_table(look.record)}
    problem = _line(look.problem or f"The server did not answer within {PATIENCE:g} s.")
    return {"text/plain": plain, "text/html": problem + record_table(known)}


def _looked(session_id: str, apart: Apart) -> _Look:
    look = _Look()
    asking = threading.Thread(
        target=lambda: asyncio.run(_ask(look, session_id, apart)),
        name="what a notebook shows",
        daemon=True,  # a name that is not resolved must not keep the kernel from ending
    )
    asking.start()
    asking.join(PATIENCE + MARGIN)
    return look


async def _ask(look: _Look, session_id: str, apart: Apart) -> None:
    try:
        async with asyncio.timeout(PATIENCE), apart() as sessions:
            link, still = _link(look, sessions, session_id), _still(look, sessions, session_id)
            await asyncio.gather(link, still)
    except TimeoutError:
        log.debug("session %s: what there is to show came too late", session_id)
    except BrowserCloudError as error:
        look.problem = str(error)


async def _link(look: _Look, sessions: Sessions, session_id: str) -> None:
    try:
        look.url = await sessions.viewer_link(session_id, interactive=True, expires_in=LINK_LIFE)
    except SessionEnded:
        look.record = await sessions.retrieve(session_id)


async def _still(look: _Look, sessions: Sessions, session_id: str) -> None:
    try:
        look.still = await sessions.screenshot(session_id, format="jpeg")
    except BrowserCloudError as error:
        log.debug("session %s: no picture: %s", session_id, error)


def _view(url: str, still: bytes | None, session: Session) -> str:
    """The viewer, and inside it what a browser shows that cannot load it."""
    width, height = session.dimensions.width, session.dimensions.height
    name = escape(session.name or session.id)
    inside = f"Session {name} can no longer be seen."
    if still is not None:
        picture = base64.b64encode(still).decode()
        inside = (
            f'<img src="data:image/jpeg;base64,{picture}" alt="What session {name} showed" '
            'style="display:block;width:100%">'
        )
    return (
        # Not an <iframe>, which shows an error once the session is gone: an <object> that cannot be
        # loaded shows what is inside it. So does a notebook that lets nothing be embedded.
        f'<div style="position:relative;box-sizing:content-box;max-width:{width}px;'
        f'aspect-ratio:{width}/{height};padding-bottom:{BARS}px">'
        f'<object type="text/html" data="{escape(url)}" aria-label="Live view of session {name}" '
        f'style="{_WHOLE}">{inside}</object></div>'
    )


def record_table(session: Session) -> str:
    """A session's record in HTML; what opens it is left out."""
    rows = [(name, _words(value)) for name, value in _facts(session) if value not in (None, "")]
    if session.error is not None:
        rows.append(("why", session.error.message))
        rows.append(("evidence", "\n".join(evidence(session.error))))
    body = "".join(
        f'<tr><th scope="row" {_LEFT}>{escape(name)}</th><td {_LEFT}>{_cell(text)}</td></tr>'
        for name, text in rows
        if text
    )
    return f"<table><tbody>{body}</tbody></table>"


def list_table(listed: SessionList) -> str:
    """A page of sessions in HTML, a row for each."""
    head = "".join(f'<th scope="col" {_LEFT}>{name}</th>' for name in _COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td {_LEFT}>{_cell(cell)}</td>" for cell in row) + "</tr>"
        for row in _rows(listed)
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return table + _line(_count(listed))


def list_text(listed: SessionList) -> str:
    """A page of sessions in plain text, in columns."""
    rows = [_COLUMNS, *_rows(listed)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, _count(listed)])


_COLUMNS = ("id", "status", "ended by", "created", "lasted", "name", "build", "metadata")


def _rows(listed: SessionList) -> list[tuple[str, ...]]:
    return [
        (
            each.id,
            each.status,
            each.release_reason or "",
            _words(each.created_at),
            f"{each.duration:.1f} s",
            _one_line(each.name or ""),
            _one_line(each.build or ""),
            _one_line(_labels(each)),
        )
        for each in listed.sessions
    ]


def _facts(session: Session) -> Iterable[tuple[str, Any]]:
    yield "id", session.id
    yield "status", session.status
    yield "ended by", session.release_reason
    yield "name", session.name
    yield "build", session.build
    yield "metadata", _labels(session)
    yield "created", session.created_at
    yield "expires", session.expires_at if session.release_reason is None else None
    yield "ended", session.ended_at
    yield "lasted", f"{session.duration:.1f} s" if session.duration >= 0.1 else None
    yield "timeout", f"{session.timeout:g} s"
    yield "browser", session.browser
    yield "dimensions", f"{session.dimensions.width} × {session.dimensions.height}"
    yield "user agent", session.user_agent


def _labels(session: Session) -> str:
    return ", ".join(f"{name}={value}" for name, value in session.metadata.items())


def _count(listed: SessionList) -> str:
    more = " More follow: pass next_cursor as cursor_id." if listed.next_cursor else ""
    return f"{len(listed.sessions)} of {listed.total_count} sessions.{more}"


def _words(value: Any) -> str:
    """A fact for people; a time in UTC, to the second."""
    return f"{value:%Y-%m-%d %H:%M:%S} UTC" if isinstance(value, datetime) else str(value)


def _cell(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _line(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _print_list(listed: SessionList, printer: Any, cycle: bool) -> None:
    printer.text("SessionList(…)" if cycle else list_text(listed))
