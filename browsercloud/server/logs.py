"""The server's log: which request and which session a line is about, and how it is written.

`about` says it for everything that happens inside it, tasks that are started there included; a line
that begins with `session ID: ` says it by itself. `set_up` is for the process that belongs to the
server: a program that embeds one has a log of its own.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

from attrs import define

FORMATS = ("auto", "human", "json")
LEVELS = ("debug", "info", "warning", "error")

_NAMED_SESSION = re.compile(r"\bsession ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")
_SECRETS = re.compile(
    r"(?i)((?:token|api_?key)(?:=|%3d)|/devtools/browser/|\bbc_(?=[\w-]{40})"
    # WebDriver's: the token of a session in its path, and the one in an id of the hub.
    r"|/webdriver(?:/|%2f)(?=[\w-]{43})|\b[0-9a-f]{32}\.[\w-]{1,64}\.(?=[\w-]{43}))"
    r"[^\s&\"'<>]+"
)
_HTTP = ("method", "path", "status", "milliseconds")
_ORDER = ("time", "level", "logger", "message", "requestId", "sessionId", *_HTTP, "exception")

Line = MutableMapping[str, Any]


@define(eq=False)
class _Subject:
    """What the lines inside one `about` are about. It counts until the block is left."""

    ids: dict[str, str]
    outer: _Subject | None
    current: bool = True


_subject: ContextVar[_Subject | None] = ContextVar("subject", default=None)


@contextmanager
def about(*, request_id: str | None = None, session_id: str | None = None) -> Iterator[None]:
    """Every line that is logged in the block carries these ids.

    Tasks that begin in it carry them as well, but only while it lasts: a timer that was set during
    a request and goes off later has nothing to do with that request any more.
    """
    given = {"requestId": request_id, "sessionId": session_id}
    ids = {name: value for name, value in given.items() if value is not None}
    subject = _Subject(ids, _subject.get())
    before = _subject.set(subject)
    try:
        yield
    finally:
        subject.current = False
        _subject.reset(before)


def current_ids() -> dict[str, str]:
    """The ids of the innermost blocks that this code runs in."""
    ids: dict[str, str] = {}
    subject = _subject.get()
    while subject is not None:
        if subject.current:
            ids = {**subject.ids, **ids}
        subject = subject.outer
    return ids


def set_up(form: str = "auto", level: str = "info", stream: TextIO = sys.stderr) -> None:
    """Let every line of this process, warnings too, go to *stream* in one form.

    `human` is a coloured line for people, `json` an object per line; `auto` is `human` on a
    terminal. It replaces what was set up before.
    """
    for_people = form == "human" or (form == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(for_people=for_people, colour=stream.isatty()))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(capture=True)


def formatter(*, for_people: bool, colour: bool = False) -> logging.Formatter:
    """How lines are written. Tracebacks never show the values of variables."""
    import structlog  # here, as it takes its time and an embedded server does without it

    render: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
    last: list[Any] = [_in_order, render]
    if for_people:
        render = structlog.dev.ConsoleRenderer(
            colors=colour,
            event_key="message",
            timestamp_key="time",
            exception_formatter=structlog.dev.plain_traceback,
        )
        last = [_for_people, render]
    clock = structlog.processors.TimeStamper(
        fmt="%H:%M:%S.%f" if for_people else "iso", utc=not for_people, key="time"
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(allow=[*_HTTP, "requestId", "sessionId"]),
            clock,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            _with_ids,
            _without_secrets,
            *last,
        ],
    )


def _with_ids(_: object, __: str, line: Line) -> Line:
    """What the line says of itself counts more than what its surroundings say."""
    named = _NAMED_SESSION.search(str(line["message"]))
    own = {"sessionId": named[1]} if named else {}
    for name, value in (own | {k: v for k, v in current_ids().items() if k not in own}).items():
        line.setdefault(name, value)
    return line


def _without_secrets(_: object, __: str, line: Line) -> Line:
    """The last guard: no caller writes a secret, but the text of a foreign error might hold one."""
    for name in ("message", "exception", "path"):
        if name in line:
            line[name] = _SECRETS.sub(r"\1…", str(line[name]))
    return line


def _in_order(_: object, __: str, line: Line) -> Line:
    """What every line has comes first, in the same order."""
    rest = {name: value for name, value in line.items() if name not in _ORDER}
    return {name: line[name] for name in _ORDER if name in line} | rest


def _for_people(_: object, __: str, line: Line) -> Line:
    """Without what the message of an access line says already."""
    return {name: value for name, value in line.items() if name not in _HTTP}
