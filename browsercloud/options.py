"""What a session can be asked to be: every option, its default and its bounds.

Durations are seconds (`Seconds`, milliseconds on the wire).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
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


class Browser(StrEnum):
    """Which browser a session runs."""

    CHROMIUM = "chromium"
    HEADLESS_SHELL = "headless-shell"


class Adapter(StrEnum):
    """What `client.session()` connects with."""

    PLAYWRIGHT = "playwright"
    PUPPETEER = "puppeteer"
    SELENIUM = "selenium"


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


DEFAULT_DIMENSIONS = Dimensions(1280, 720)


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

    dimensions: Dimensions = DEFAULT_DIMENSIONS
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
