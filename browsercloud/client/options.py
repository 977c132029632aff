"""A session's options as the caller gives them: keywords in seconds, checked before any network."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import attrs

from browsercloud._later import later
from browsercloud.context import SessionContext
from browsercloud.errors import InvalidRequest, UsageError
from browsercloud.options import (
    LATER_OPTIONS,
    MAX_TIMEOUT,
    Adapter,
    Browser,
    Dimensions,
    Record,
    SessionOptions,
)
from browsercloud.stealth import Stealth
from browsercloud.wanted import Coordinates, Device, Permission

if TYPE_CHECKING:
    from browsercloud import wire
else:
    wire = later("browsercloud.wire")


class SessionArgs(TypedDict, total=False):
    """The options of a session as keywords; `SessionOptions` says what each means."""

    timeout: float
    idle_timeout: float | None
    adapter: Adapter | Literal["playwright", "puppeteer", "selenium"]
    browser: Browser | Literal["chromium", "headless-shell"]
    dimensions: Dimensions | tuple[int, int] | None
    headless: bool
    user_agent: str | None
    device: Device | Literal["desktop", "mobile"]
    locale: str | None
    timezone: str | None
    geo_location: str | Coordinates | Mapping[str, float] | None
    extra_headers: Mapping[str, str]
    permissions: Sequence[Permission | str]
    start_url: str | None
    stealth: Stealth | Mapping[str, bool] | bool | None
    session_context: SessionContext | Mapping[str, Any] | None
    record: Record | Literal["events", "none"]
    name: str | None
    build: str | None
    metadata: Mapping[str, str]
    custom_websocket_url: str | None
    lambdatest_options: Mapping[str, Any]


Defaults = SessionOptions | Mapping[str, Any] | None
"""What a client's sessions have unless told: options, or some of them by name as keywords."""


def default_options(defaults: Defaults) -> SessionOptions | None:
    """A client's *defaults*, checked as those of one session are."""
    if defaults is None or isinstance(defaults, SessionOptions):
        return defaults
    if not isinstance(defaults, Mapping):
        raise UsageError(f"defaults must be SessionOptions or a mapping, not {defaults!r}")
    return build_options(None, defaults)


def build_options(
    options: SessionOptions | None,
    changes: Mapping[str, Any],
    defaults: SessionOptions | None = None,
) -> SessionOptions:
    """*options* with *changes*, over the *defaults*, checked as the server checks them.

    Raises `UsageError` for a name that is no option or a time in the wrong unit, `InvalidRequest`
    for a value that the server would refuse.
    """
    if options is not None and not isinstance(options, SessionOptions):
        raise UsageError(
            f"options must be SessionOptions, not {options!r}; single options are keywords, "
            "such as browser='chromium'"
        )
    body = {} if defaults is None else changed(defaults)
    body |= {} if options is None else changed(options)
    for name, value in changes.items():
        body[_wire_name(name)] = _wire_value(name, value)
    body = {name: value for name, value in body.items() if value is not None}
    try:
        return wire.read(body, SessionOptions)
    except InvalidRequest as error:
        raise wire.invalid([_in_python(problem) for problem in error.details]) from None


def _in_python(problem: Mapping[str, str]) -> tuple[str, str]:
    """A path and its reason, with the option called as the caller calls it."""
    path = problem["path"]
    for attribute in attrs.fields(SessionOptions):
        path = re.sub(rf"^{wire.camel(attribute.name)}\b", attribute.name, path)
    return path, problem["reason"]


def check_session_id(value: str) -> str:
    """A UUID in canonical form; anything else is `UsageError`."""
    try:
        return wire.read_session_id(value)
    except ValueError as error:
        raise UsageError(f"session_id: {error}") from None


def _wire_name(name: str) -> str:
    known = [attribute.name for attribute in attrs.fields(SessionOptions)]
    if name in known:
        return wire.camel(name)
    for theirs, python in LATER_OPTIONS.items():
        if name == python:
            raise wire.invalid([(name, f"this version does not offer it ({theirs} on the wire)")])
    close = difflib.get_close_matches(name, [*known, "session_id"], n=1)
    known.append("session_id")
    hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
    raise UsageError(f"{name}: there is no such option{hint}")


def _wire_value(name: str, value: Any) -> Any:
    match value:
        case SessionContext() | Dimensions() | Coordinates() | Stealth():
            return wire.dump(value)
        case bool() | Mapping() if name == "stealth":
            return _stealth(value)
        case str() if name == "device":
            return {"device": value}
        case (width, height) if name == "dimensions":
            return {"width": width, "height": height}
        case _ if name == "dimensions" and value is not None:
            raise wire.invalid([(name, f"must be (width, height) in pixels, not {value!r}")])
        case _ if name in ("timeout", "idle_timeout") and value is not None:
            return milliseconds(value, name)
        case _:
            return value


def _stealth(value: bool | Mapping[str, bool]) -> Mapping[str, bool] | None:
    if isinstance(value, bool):
        return {} if value else None
    return {wire.camel(name): part for name, part in value.items()}


def milliseconds(seconds: Any, name: str = "timeout") -> int:
    """Seconds as they go over the wire. Raises `UsageError` for what must be milliseconds."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or math.isnan(seconds):
        raise wire.invalid([(name, f"must be a number of seconds, not {seconds!r}")])
    if seconds > MAX_TIMEOUT:
        raise UsageError(
            f"{name}: {seconds:g} seconds is more than 24 hours; timeouts are in seconds here: "
            f"did you mean {seconds / 1000:g}?"
        )
    return math.ceil(max(seconds, -1) * 1000)


def changed(options: SessionOptions) -> dict[str, Any]:
    """The options that are not the default, in wire form."""
    plain = wire.dump(SessionOptions())
    return {name: value for name, value in wire.dump(options).items() if value != plain[name]}
