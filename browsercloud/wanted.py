"""What a session's look and place can be: devices, permissions, coordinates, headers, addresses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import field, frozen

from browsercloud._later import later
from browsercloud.bounds import Bounded, FieldError, Schema, in_range

if TYPE_CHECKING:
    from browsercloud import places
else:
    places = later("browsercloud.places")

MAX_HEADERS = 50
MAX_HEADER_LENGTH = 8_000
MAX_URL_LENGTH = 8_000

OWN_HEADERS: Mapping[str, str] = {
    "accept-charset": "",
    "accept-encoding": "",
    "accept-language": "use locale",
    "connection": "",
    "content-length": "",
    "content-type": "",
    "cookie": "set cookies in the browser",
    "cookie2": "",
    "date": "",
    "expect": "",
    "host": "",
    "keep-alive": "",
    "origin": "",
    "te": "",
    "trailer": "",
    "transfer-encoding": "",
    "upgrade": "",
    "user-agent": "use user_agent",
    "via": "",
}
"""Headers that the browser writes itself, each with what to use instead."""

OWN_KINDS = ("proxy-", "sec-")
"""How further headers begin that the browser writes itself."""

START_SCHEMES = ("http", "https", "about", "data")
"""Schemes that a first page may have; of `about:` only the blank page."""


class Device(StrEnum):
    """What kind of device the browser seems to run on."""

    DESKTOP = "desktop"
    MOBILE = "mobile"


class Permission(StrEnum):
    """What pages may be allowed to do without asking; the names are those of the web."""

    ACCELEROMETER = "accelerometer"
    BACKGROUND_SYNC = "background-sync"
    CAMERA = "camera"
    CLIPBOARD_READ = "clipboard-read"
    CLIPBOARD_WRITE = "clipboard-write"
    GEOLOCATION = "geolocation"
    GYROSCOPE = "gyroscope"
    IDLE_DETECTION = "idle-detection"
    LOCAL_FONTS = "local-fonts"
    MAGNETOMETER = "magnetometer"
    MICROPHONE = "microphone"
    MIDI = "midi"
    NOTIFICATIONS = "notifications"
    PAYMENT_HANDLER = "payment-handler"
    PERSISTENT_STORAGE = "persistent-storage"
    SCREEN_WAKE_LOCK = "screen-wake-lock"
    STORAGE_ACCESS = "storage-access"
    WINDOW_MANAGEMENT = "window-management"


@frozen(kw_only=True)
class Coordinates:
    """A point on the earth, as pages are told it."""

    latitude: float = field(validator=in_range(-90, 90, "degrees"))
    longitude: float = field(validator=in_range(-180, 180, "degrees"))
    accuracy: float = field(default=20.0, validator=in_range(0, 1_000_000, "meters"))
    """In meters."""


GeoLocation = str | Coordinates | None
"""A country's code, or a point."""

_NAME = "[!#$%&'*+.^_`|~0-9A-Za-z-]"


def _any_case(word: str) -> str:
    return "".join(f"[{c.upper()}{c}]" if c.isalpha() else c for c in word)


_OWN = "|".join([f"{_any_case(name)}$" for name in OWN_HEADERS] + [*map(_any_case, OWN_KINDS)])
_HEADERS: Schema = {
    "maxProperties": MAX_HEADERS,
    "propertyNames": {"pattern": f"^(?!{_OWN}){_NAME}{{1,100}}$"},
    "additionalProperties": {
        "type": "string",
        "maxLength": MAX_HEADER_LENGTH,
        "pattern": "^([!-~]([ -~]*[!-~])?)?$",
    },
}


def _headers(_: object, attribute: Any, value: Mapping[str, str]) -> None:
    if len(value) > MAX_HEADERS:
        raise FieldError(attribute.name, f"at most {MAX_HEADERS} headers, not {len(value)}")
    if len({name.lower() for name in value}) < len(value):
        raise FieldError(attribute.name, "a header is there twice, in two spellings")
    for name, text in value.items():
        reason = _header_name(name) or _header_value(text)
        if reason:
            # Never the value: it may be a key.
            raise FieldError(attribute.name, f"{name[:40]!r} {reason}")


def _header_name(name: str) -> str:
    if not re.fullmatch(f"{_NAME}{{1,100}}", name):
        return "is no name of a header"
    if name.lower() in OWN_HEADERS or name.lower().startswith(OWN_KINDS):
        instead = OWN_HEADERS.get(name.lower(), "")
        return "is written by the browser itself; " + (instead or "leave it out")
    return ""


def _header_value(text: str) -> str:
    if len(text) > MAX_HEADER_LENGTH:
        return f"is longer than {MAX_HEADER_LENGTH} characters"
    if text != text.strip() or re.search(r"[^\x20-\x7e]", text):
        return "must be printable ASCII without blanks around it"
    return ""


HEADERS = Bounded(_headers, _HEADERS)


def _locale(_: object, attribute: Any, value: str | None) -> None:
    if value is not None and places.normal_locale(value) is None:
        reason = "must be a language, maybe with a country, such as de or pt-BR"
        raise FieldError(attribute.name, f"{reason}, not {value[:40]!r}")


def _timezone(_: object, attribute: Any, value: str | None) -> None:
    if value is not None and not places.is_timezone(value):
        reason = "must be a name of the time zone database, such as Europe/Berlin"
        raise FieldError(attribute.name, f"{reason}, not {value[:40]!r}")


def _geo_location(_: object, attribute: Any, value: GeoLocation) -> None:
    if isinstance(value, str) and value not in places.countries():
        reason = "must be a country's code of two capital letters, such as US, or coordinates"
        raise FieldError(attribute.name, f"{reason}, not {value[:40]!r}")


LOCALE = Bounded(_locale, lambda: {"pattern": places.locale_pattern()})
TIMEZONE = Bounded(_timezone, lambda: {"enum": [*places.timezones(), None]})
GEO_LOCATION = Bounded(_geo_location, {})


def _permissions(_: object, attribute: Any, value: tuple[Permission, ...]) -> None:
    if len(set(value)) < len(value):
        raise FieldError(attribute.name, "one is there twice")


PERMISSIONS = Bounded(_permissions, {"uniqueItems": True})

_START_URL: Schema = {
    "maxLength": MAX_URL_LENGTH,
    "pattern": r"^(https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/[!-~]*)?|about:blank|data:[!-~]*)$",
}


def _start_url(_: object, attribute: Any, value: str | None) -> None:
    if value is None:
        return
    # The reason must not repeat the value: it may hold a password.
    if len(value) > MAX_URL_LENGTH or not value.isprintable() or " " in value:
        reason = f"must be a URL of at most {MAX_URL_LENGTH} characters, blanks written %20"
        raise FieldError(attribute.name, reason)
    if not _can_start(value):
        raise FieldError(attribute.name, "must be http://…, https://…, data:… or about:blank")


def _can_start(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme == "about":
        return url == "about:blank"
    if parts.scheme in ("http", "https"):
        return bool(parts.hostname) and port != 0
    return parts.scheme in START_SCHEMES


START_URL = Bounded(_start_url, _START_URL)
