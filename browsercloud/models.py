"""The facts that client and server share: frozen, without behaviour.

Durations are seconds (`Seconds`, milliseconds on the wire), sizes are bytes, times are aware
`datetime` objects in UTC (RFC 3339 `Z` on the wire). Fields whose value opens something (URLs that
carry a token) are left out of every `repr`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType
from urllib.parse import SplitResult, urlsplit

from attrs import field, frozen

Seconds = NewType("Seconds", float)
"""A duration. Float seconds in Python, integer milliseconds on the wire."""

DEFAULT_TIMEOUT = Seconds(300)
MAX_TIMEOUT = Seconds(24 * 60 * 60)
MAX_METADATA_KEYS = 50
MAX_LABEL_LENGTH = 1_000
MAX_URL_LENGTH = 8_000
MIN_SIDE, MAX_SIDE = 100, 8_192
ENDPOINT_SCHEMES = ("ws", "wss", "http", "https")

LATER_OPTIONS: Mapping[str, str] = {
    "keepAlive": "keep_alive",
    "deviceConfig": "device",
    "locale": "locale",
    "timezone": "timezone",
    "geoLocation": "geo_location",
    "proxyUrl": "proxy",
    "proxy": "proxy",
    "useProxy": "proxy",
    "blockAds": "block_ads",
    "optimizeBandwidth": "optimize_bandwidth",
    "stealthConfig": "stealth",
    "sessionContext": "session_context",
    "profileId": "profile_id",
    "persistProfile": "persist_profile",
    "extensionIds": "extension_ids",
    "tunnel": "tunnel",
    "tunnelName": "tunnel_name",
    "region": "region",
    "solveCaptcha": "solve_captcha",
    "credentials": "credentials",
    "namespace": "namespace",
    "debugConfig": "debug",
    "record": "record",
}
"""Options that the contract names and this version does not offer: wire name to Python name.

Each is refused by name, never ignored.
"""


class SessionStatus(StrEnum):
    """Where a session is: `queued → starting → live → releasing → released | failed`."""

    QUEUED = "queued"
    STARTING = "starting"
    LIVE = "live"
    RELEASING = "releasing"
    RELEASED = "released"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to the session any more."""
        return self in (SessionStatus.RELEASED, SessionStatus.FAILED)


class ReleaseReason(StrEnum):
    """Why a session ended."""

    USER_REQUESTED = "user_requested"
    TIMEOUT = "timeout"
    INACTIVITY_TIMEOUT = "inactivity_timeout"
    LEASE_LOST = "lease_lost"
    CREATION_TIMEOUT = "creation_timeout"
    """It waited too long for its turn, or nobody came for it when its turn had come."""

    STARTUP_FAILED = "startup_failed"
    BROWSER_CLOSED = "browser_closed"
    BROWSER_CRASHED = "browser_crashed"
    OUT_OF_MEMORY = "out_of_memory"
    SHUTDOWN = "shutdown"


class Browser(StrEnum):
    """Which browser a session runs."""

    CHROMIUM = "chromium"
    HEADLESS_SHELL = "headless-shell"


class Adapter(StrEnum):
    """What `client.session()` connects with."""

    PLAYWRIGHT = "playwright"
    PUPPETEER = "puppeteer"
    SELENIUM = "selenium"


class SessionProtocol(StrEnum):
    """What a session's socket speaks."""

    CDP = "cdp"
    """What Chromium itself speaks; any client of it can connect."""

    PLAYWRIGHT = "playwright"
    """Playwright's own, for `chromium.connect()`: of sessions at TestMu with that adapter."""

    WEBDRIVER = "webdriver"
    """There is no socket: of sessions at TestMu with the adapter `selenium`."""


class FieldError(ValueError):
    """A field's value is out of its range, or does not go with another's."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@frozen
class Bounded:
    """A validator that tells what it lets through, in the words of JSON Schema."""

    check: Callable[[object, Any, Any], None]
    schema: Mapping[str, Any]
    """In Python's units."""

    def __call__(self, instance: object, attribute: Any, value: Any) -> None:
        """Raise `FieldError` for a value out of bounds."""
        self.check(instance, attribute, value)


def _in_range(low: float, high: float, unit: str) -> Bounded:
    def check(_: object, attribute: Any, value: float) -> None:
        # NaN compares false with everything, so the test asks for "inside", never for "outside".
        if not low <= value <= high:
            raise FieldError(
                attribute.name, f"must be between {low:g} and {high:g} {unit}, not {value:g}"
            )

    return Bounded(check, {"minimum": low, "maximum": high})


def _timeout(_: object, attribute: Any, value: float) -> None:
    if not value > 0:
        raise FieldError(
            attribute.name,
            "must be more than 0: a session has to end; leave it out for the default",
        )
    if value > MAX_TIMEOUT:
        raise FieldError(
            attribute.name,
            f"must be at most {MAX_TIMEOUT:g} seconds (24 h), not {value:g}: "
            "seconds in Python, milliseconds on the wire",
        )


def _idle_timeout(_: object, attribute: Any, value: float | None) -> None:
    if value is not None:
        _timeout(_, attribute, value)


_LIFE: Mapping[str, Any] = {"exclusiveMinimum": 0, "maximum": MAX_TIMEOUT}
_LABEL: Mapping[str, Any] = {"maxLength": MAX_LABEL_LENGTH}
_HEADER: Mapping[str, Any] = {**_LABEL, "pattern": r"^[ -~]*[!-~][ -~]*$"}
_ENDPOINT: Mapping[str, Any] = {
    "maxLength": MAX_URL_LENGTH,
    "pattern": r"^(wss?|https?)://[a-z0-9.]+(/[!-~]*)?$",
}
_LABELS: Mapping[str, Any] = {
    "maxProperties": MAX_METADATA_KEYS,
    "propertyNames": _LABEL,
    "additionalProperties": {"type": "string", **_LABEL},
}


def _plain_header(_: object, attribute: Any, value: str | None) -> None:
    if value is not None and len(value) > MAX_LABEL_LENGTH:
        raise FieldError(attribute.name, f"at most {MAX_LABEL_LENGTH} characters")
    if value is not None and (not value.strip() or re.search(r"[^\x20-\x7e]", value)):
        raise FieldError(
            attribute.name, "must be printable ASCII and not empty, as it is sent as a header"
        )


def _metadata(_: object, attribute: Any, value: Mapping[str, str]) -> None:
    if len(value) > MAX_METADATA_KEYS:
        raise FieldError(attribute.name, f"at most {MAX_METADATA_KEYS} keys, not {len(value)}")
    for key, text in value.items():
        if max(len(key), len(text)) > MAX_LABEL_LENGTH:
            raise FieldError(attribute.name, f"at most {MAX_LABEL_LENGTH} characters each")


def _label(_: object, attribute: Any, value: str | None) -> None:
    if value is not None and len(value) > MAX_LABEL_LENGTH:
        raise FieldError(attribute.name, f"at most {MAX_LABEL_LENGTH} characters")


def _endpoint(_: object, attribute: Any, value: str | None) -> None:
    if value is None:
        return
    # The reason must not repeat the value: it may hold a password.
    parts = _split(value)
    if len(value) > MAX_URL_LENGTH or not value.isprintable() or " " in value:
        raise FieldError(attribute.name, f"must be a URL of at most {MAX_URL_LENGTH} characters")
    if parts is None or parts.scheme not in ENDPOINT_SCHEMES or not parts.hostname:
        raise FieldError(
            attribute.name,
            "must be ws://HOST:PORT/… or wss://… of a browser's CDP, or http://HOST:PORT of one "
            "whose /json/version names that",
        )


def _split(value: str) -> SplitResult | None:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return None
    return None if port == 0 else parts


def place_of(url: str) -> str:
    """Where a URL leads, without what may be secret in it: scheme, host and port."""
    parts = _split(url)
    return "…" if parts is None else f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…"


@frozen
class Dimensions:
    """Width and height in CSS pixels."""

    width: int = field(validator=_in_range(MIN_SIDE, MAX_SIDE, "pixels"))
    height: int = field(validator=_in_range(MIN_SIDE, MAX_SIDE, "pixels"))


@frozen(kw_only=True)
class SessionOptions:
    """What a session should be like. Every field has a default; units and ranges are checked.

    `FieldError` is raised by a value outside its range; the reader of requests turns it into
    `InvalidRequest` with the path of the field.
    """

    timeout: Seconds = field(default=DEFAULT_TIMEOUT, validator=Bounded(_timeout, _LIFE))
    """Whole life, counted from `live`; more than 0, at most 24 h."""

    idle_timeout: Seconds | None = field(default=None, validator=Bounded(_idle_timeout, _LIFE))
    """How long it may be without driver traffic until it ends; off by default, at most 24 h.

    A command that a driver sends counts, and its answer; events, viewers and pings do not.
    """

    adapter: Adapter = Adapter.PLAYWRIGHT
    """What `client.session()` connects with; `puppeteer` leaves it to a program of your own.

    For `selenium` the browser's machine needs a chromedriver of the same version.
    """

    browser: Browser = Browser.CHROMIUM
    """`headless-shell` takes half the memory and can show no window."""

    dimensions: Dimensions = Dimensions(1280, 720)
    """Size of the viewport; the window is as much larger as its own frame."""

    headless: bool = True
    """`False` shows a window and needs a display on the browser's machine."""

    user_agent: str | None = field(default=None, validator=Bounded(_plain_header, _HEADER))
    """Replaces Chromium's own, client hints included."""

    name: str | None = field(default=None, validator=Bounded(_label, _LABEL))
    build: str | None = field(default=None, validator=Bounded(_label, _LABEL))
    metadata: Mapping[str, str] = field(factory=dict, validator=Bounded(_metadata, _LABELS))
    """Labels; at most 50 keys."""

    custom_websocket_url: str | None = field(
        default=None, repr=False, validator=Bounded(_endpoint, _ENDPOINT)
    )
    """A browser of your own to attach to, at any CDP endpoint; releasing detaches from it.

    `ws://`, `wss://`, or `http://HOST:PORT` whose `/json/version` names the socket. It is as it is:
    no option can change how it was started. What may be secret in the URL is shown nowhere.
    """

    lambdatest_options: Mapping[str, Any] = field(factory=dict)
    """More of TestMu's `LT:Options`, or others of them. `build` and `name` are used everywhere."""

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot go together."""
        if self.browser is Browser.HEADLESS_SHELL and not self.headless:
            raise FieldError("headless", "the headless shell has no window; use browser 'chromium'")


@frozen(kw_only=True)
class CreateRequest:
    """The body of create: the client's choice of id, its lease, and the options."""

    session_id: str
    lease_id: str | None = None
    options: SessionOptions = SessionOptions()
    given: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)
    """The options as the caller wrote them, in wire form."""


@frozen(kw_only=True)
class BrowserExit:
    """How a browser's main process ended, and what it said last."""

    exit_code: int | None = None
    signal: str | None = None
    """The signal's name (`SIGKILL`), when one ended it."""

    stderr: tuple[str, ...] = ()
    """The last lines of its standard error, oldest first."""

    out_of_memory: bool = False
    """Whether it was ended because it had passed its memory cap."""

    memory: int | None = None
    """What it used when that was last looked at, in bytes (PSS); `None` if it never was."""

    @property
    def clean(self) -> bool:
        """Whether it left of its own accord, as after `Browser.close`."""
        return self.exit_code == 0


@frozen(kw_only=True)
class SessionFailure:
    """What went wrong with a session: a code for programs, a sentence for people, the evidence."""

    code: str
    message: str
    exit_code: int | None = None
    signal: str | None = None
    stderr: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    """The pages that were open last, without queries, fragments and passwords."""

    memory: int | None = None
    """What the browser used when that was last looked at, in bytes."""


@frozen(kw_only=True)
class SessionEvent:
    """Something that happened in a session's life."""

    number: int
    """Its place in the session's events, from 1."""

    at: datetime
    type: str
    """What happened, such as `session.live`."""

    details: Mapping[str, Any] = field(factory=dict)
    """More about it, JSON-ready; holds nothing secret."""


@frozen(kw_only=True)
class Capacity:
    """How many sessions a server has room for, and why."""

    sessions: int
    """Sessions at the same time."""

    reason: str
    """The sum behind it, for people."""


@frozen(kw_only=True)
class ServerCapacity(Capacity):
    """The same as a project sees it: the whole, and its own part."""

    available: int
    """How many sessions of the project could start now without waiting."""

    in_use: int
    """Sessions that the project has, those that start or end included."""

    queued: int
    """Sessions of the project that wait for their turn."""

    limit: int | None = None
    """How many the project may have at a time; `None`: as many as there is room for."""


@frozen(kw_only=True)
class Session:
    """One session's record, as the server keeps and returns it."""

    id: str
    status: SessionStatus
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    expires_at: datetime | None = None
    """When `timeout` ends it; `None` before it is live."""

    timeout: Seconds = DEFAULT_TIMEOUT
    idle_timeout: Seconds | None = None
    duration: Seconds = Seconds(0)
    """Time since it went live, up to now or to its end."""

    release_reason: ReleaseReason | None = None
    error: SessionFailure | None = None
    queue_position: int | None = None
    """Its place in the line while it is `queued`, from 1; else `None`."""

    event_count: int = 0
    protocol: SessionProtocol = SessionProtocol.CDP
    """What `websocket_url` speaks, once it is live; adapters connect by it."""

    websocket_url: str = field(default="", repr=False)
    """CDP, browser level, or what `protocol` says. Carries the token, as the next three do."""

    webdriver_url: str = field(default="", repr=False)
    """W3C WebDriver, for Selenium in any language. Carries the token in its path."""

    debug_url: str = field(default="", repr=False)
    session_viewer_url: str = field(default="", repr=False)
    adapter: Adapter = Adapter.PLAYWRIGHT
    browser: Browser = Browser.CHROMIUM
    dimensions: Dimensions = Dimensions(1280, 720)
    user_agent: str | None = None
    headless: bool = True
    name: str | None = None
    build: str | None = None
    metadata: Mapping[str, str] = field(factory=dict)
    config: Mapping[str, Any] = field(factory=dict, repr=False)
    """The options as they were given; of a URL that may hold a secret only where it leads."""


@frozen(kw_only=True)
class SessionList:
    """One page of sessions, newest first."""

    sessions: tuple[Session, ...]
    next_cursor: str | None = None
    """Pass it as `cursor_id` for the next page; `None` after the last one."""

    total_count: int = 0


@frozen(kw_only=True)
class LivePage:
    """An open tab of a live session."""

    id: str
    """The CDP target id."""

    url: str
    title: str
    favicon: str | None = None
    session_viewer_url: str = field(default="", repr=False)
    session_viewer_fullscreen_url: str = field(default="", repr=False)


@frozen(kw_only=True)
class LiveDetails:
    """What is open in a session right now."""

    pages: tuple[LivePage, ...]
    ws_url: str = field(default="", repr=False)
    session_viewer_url: str = field(default="", repr=False)
    session_viewer_fullscreen_url: str = field(default="", repr=False)


@frozen(kw_only=True)
class Released:
    """The answer to a release."""

    success: bool
    message: str
    release_reason: ReleaseReason | None = None
    """Why the session ended: not `user_requested` when something else ended it first."""

    already_ended: bool = False
    """Whether it had ended before this call."""
