"""The facts that client and server share: frozen, without behaviour.

Durations are seconds (`Seconds`, milliseconds on the wire), sizes are bytes, times are aware
`datetime` objects in UTC (RFC 3339 `Z` on the wire). Fields whose value opens something (URLs that
carry a token) are left out of every `repr`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from attrs import field, frozen

from browsercloud.options import (
    DEFAULT_DIMENSIONS,
    DEFAULT_TIMEOUT,
    Adapter,
    Browser,
    Dimensions,
    Seconds,
    SessionOptions,
)
from browsercloud.stealth import Stealth
from browsercloud.wanted import Device

NOTHING_YET = Seconds(0)


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


class SessionProtocol(StrEnum):
    """What a session's socket speaks."""

    CDP = "cdp"
    """What Chromium itself speaks; any client of it can connect."""

    PLAYWRIGHT = "playwright"
    """Playwright's own, for `chromium.connect()`: of sessions at TestMu with that adapter."""

    WEBDRIVER = "webdriver"
    """There is no socket: of sessions at TestMu with the adapter `selenium`."""


@frozen(kw_only=True)
class CreateRequest:
    """The body of create: the client's choice of id, its lease, and the options."""

    session_id: str
    lease_id: str | None = None
    options: SessionOptions = field(factory=SessionOptions)
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
    duration: Seconds = NOTHING_YET
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
    dimensions: Dimensions = DEFAULT_DIMENSIONS
    user_agent: str | None = None
    headless: bool = True
    device: Device = Device.DESKTOP
    stealth: Stealth | None = None
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
