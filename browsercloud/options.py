"""What a session can be asked to be: every option, its default and its bounds.

Durations are seconds (`Seconds`, milliseconds on the wire).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NewType
from urllib.parse import SplitResult, urlsplit

from attrs import evolve, field, frozen

from browsercloud.bounds import Bounded, FieldError, in_range
from browsercloud.context import SessionContext
from browsercloud.stealth import Stealth, disguised, jittered, wanted
from browsercloud.wanted import (
    GEO_LOCATION,
    HEADERS,
    LOCALE,
    PERMISSIONS,
    START_URL,
    TIMEZONE,
    Device,
    GeoLocation,
    Permission,
)

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
    "proxyUrl": "proxy",
    "proxy": "proxy",
    "useProxy": "proxy",
    "blockAds": "block_ads",
    "optimizeBandwidth": "optimize_bandwidth",
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
}
"""Options that the contract names and this version does not offer: wire name to Python name.

Each is refused by name, never ignored.
"""


class Record(StrEnum):
    """What is kept of what happens in a session's pages."""

    EVENTS = "events"
    NONE = "none"


class Browser(StrEnum):
    """Which browser a session runs."""

    CHROMIUM = "chromium"
    HEADLESS_SHELL = "headless-shell"


class Adapter(StrEnum):
    """What `client.session()` connects with."""

    PLAYWRIGHT = "playwright"
    PUPPETEER = "puppeteer"
    SELENIUM = "selenium"


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

    width: int = field(validator=in_range(MIN_SIDE, MAX_SIDE, "pixels"))
    height: int = field(validator=in_range(MIN_SIDE, MAX_SIDE, "pixels"))


DEFAULT_DIMENSIONS = Dimensions(1280, 720)
MOBILE_DIMENSIONS = Dimensions(412, 915)


def _permissions(value: Iterable[Permission | str]) -> tuple[Permission, ...]:
    known = {str(each) for each in Permission}
    unknown = [each for each in value if each not in known]
    if unknown:
        reason = f"must be of {', '.join(sorted(known))}, not {str(unknown[0])[:40]!r}"
        raise FieldError("permissions", reason)
    return tuple(Permission(each) for each in value)


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

    dimensions: Dimensions | None = None
    """Size of the viewport, 1280 × 720 unless told, 412 × 915 on a mobile device.

    The window is as much larger as its own frame. `size` is what comes of it.
    """

    headless: bool = True
    """`False` shows a window, on the machine's display, else on an Xvfb of the session's own."""

    user_agent: str | None = field(default=None, validator=Bounded(_plain_header, _HEADER))
    """Replaces Chromium's own, client hints included."""

    device: Device = Device.DESKTOP
    """`mobile` has a touch screen, a narrow viewport of a high density, and a phone's agent."""

    locale: str | None = field(default=None, validator=LOCALE)
    """Language and country, such as `pt-BR`: what pages read, how they write, what is sent."""

    timezone: str | None = field(default=None, validator=TIMEZONE)
    """A name of the IANA time zone database, such as `Europe/Berlin`."""

    geo_location: GeoLocation = field(default=None, validator=GEO_LOCATION)
    """A country's code, such as `US`, or coordinates.

    A country sets language, time zone and coordinates; `locale` and `timezone` outrank it. Pages
    may ask where they are.
    """

    extra_headers: Mapping[str, str] = field(factory=dict, repr=False, validator=HEADERS)
    """Sent with every request; at most 50. What a header says is shown nowhere."""

    permissions: tuple[Permission, ...] = field(
        default=(), converter=_permissions, validator=PERMISSIONS
    )
    """What every page may do without asking."""

    start_url: str | None = field(default=None, repr=False, validator=START_URL)
    """What the first page shows when the session is there; a blank page unless told."""

    stealth: Stealth | None = field(default=None, converter=wanted)
    """Passes for a person's browser; off by default.

    `True` is `Stealth()`. What is picked is picked once for a session.
    """

    session_context: SessionContext | None = field(default=None, repr=False)
    """Cookies and storage that are there before the first page; none unless told.

    Playwright's `storage_state` is good too. What it holds is shown nowhere.
    """

    record: Record = Record.EVENTS
    """`events` keeps what happens in the pages: addresses, console, requests, never their content.

    Of browsers that are started here; of one of your own, or a vendor's, only its life is kept.
    """

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

    @property
    def size(self) -> Dimensions:
        """Of the viewport, whether it was given or not."""
        usual = MOBILE_DIMENSIONS if self.device is Device.MOBILE else DEFAULT_DIMENSIONS
        return self.dimensions or usual

    def of(self, session_id: str) -> SessionOptions:
        """These options, with what they leave to luck picked for this session."""
        if self.stealth is None or not disguised(self.stealth):
            return self
        if not self.stealth.randomize_viewport or self.device is Device.MOBILE:
            return self
        side = (self.size.width, self.size.height)
        return evolve(
            self, dimensions=Dimensions(*jittered(session_id, side, (MIN_SIDE, MAX_SIDE)))
        )

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot go together."""
        if self.browser is Browser.HEADLESS_SHELL and not self.headless:
            raise FieldError("headless", "the headless shell has no window; use browser 'chromium'")
