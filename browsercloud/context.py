"""A session's cookies and storage as a value, to be taken from one session and put into another.

Playwright's `storage_state` is read too, and can be made of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from browsercloud.bounds import Bounded, FieldError, Schema

MAX_COOKIES = 5_000
MAX_ORIGINS = 200
MAX_CHARACTERS = 16 * 2**20
"""Of all keys and values of one origin's local storage or session storage together."""

_ORIGIN = re.compile(r"https?://[^/?#@\s]+")


class SameSite(StrEnum):
    """With which requests from other sites a cookie is sent."""

    STRICT = "Strict"
    LAX = "Lax"
    NONE = "None"


class CookiePriority(StrEnum):
    """Which cookies go last when there are too many."""

    LOW = "Low"
    MEDIUM = "Medium"
    HIGH = "High"


_ORIGINS: Schema = {
    "maxProperties": MAX_ORIGINS,
    "propertyNames": {"pattern": r"^https?://[a-z0-9.]{1,200}$"},
}
_DOMAIN: Schema = {"minLength": 1, "pattern": r"^[a-z0-9.]{1,200}$"}
_URL: Schema = {"pattern": r"^https?://[a-z0-9.]{1,200}(/[!-~]*)?$"}
_MOMENT: Schema = {"minimum": -1, "maximum": 2**40}


def _domain(_: object, attribute: Any, value: str | None) -> None:
    if value is not None and re.search(r"[/:@\s]", value):
        raise FieldError(attribute.name, "must be a host's name such as example.com")


def _url(_: object, attribute: Any, value: str | None) -> None:
    if value is not None and origin_of(value) is None:
        raise FieldError(attribute.name, "must be an address such as https://example.com/")


def _moment(_: object, attribute: Any, value: float | None) -> None:
    if value is not None and not -1 <= value <= 2**40:
        raise FieldError(attribute.name, "must be seconds since 1970, not milliseconds")


def _version(_: object, attribute: Any, value: int) -> None:
    if not 1 <= value < 2**53:
        raise FieldError(attribute.name, f"must be at least 1, not {value}")


@frozen(kw_only=True)
class PartitionKey:
    """Under which site a partitioned cookie was set: it is sent only there."""

    top_level_site: str
    has_cross_site_ancestor: bool = False


@frozen(kw_only=True)
class Cookie:
    """One cookie. It needs a `domain` or a `url` that it is for."""

    name: str
    value: str = field(repr=False)
    domain: str | None = field(default=None, validator=Bounded(_domain, _DOMAIN))
    """`example.com` for that host alone, `.example.com` for those below it as well."""

    url: str | None = field(default=None, validator=Bounded(_url, _URL))
    path: str | None = None
    expires: float | None = field(default=None, validator=Bounded(_moment, _MOMENT))
    """Seconds since 1970; without, and with a negative one, it ends with the browser."""

    http_only: bool = False
    secure: bool = False
    same_site: SameSite | None = None
    priority: CookiePriority | None = None
    partition_key: PartitionKey | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse a cookie that belongs nowhere."""
        if not self.domain and not self.url:
            raise FieldError("domain", "required: the domain of the cookie, or its url")


@frozen(kw_only=True)
class StoreIndex:
    """An index of an object store."""

    name: str
    key_path: str | None = None
    key_path_array: tuple[str, ...] | None = None
    multi_entry: bool = False
    unique: bool = False


@frozen(kw_only=True)
class StoreRecord:
    """A value in an object store, and its key if the value does not hold it.

    What JSON cannot hold is encoded, as Playwright does it.
    """

    key: Any = field(default=None, repr=False)
    key_encoded: Any = field(default=None, repr=False)
    value: Any = field(default=None, repr=False)
    value_encoded: Any = field(default=None, repr=False)


@frozen(kw_only=True)
class ObjectStore:
    """An object store of a database."""

    name: str
    key_path: str | None = None
    key_path_array: tuple[str, ...] | None = None
    auto_increment: bool = False
    indexes: tuple[StoreIndex, ...] = ()
    records: tuple[StoreRecord, ...] = ()


@frozen(kw_only=True)
class Database:
    """An IndexedDB database."""

    name: str
    version: int = field(validator=Bounded(_version, {"minimum": 1, "maximum": 2**53 - 1}))
    stores: tuple[ObjectStore, ...] = ()


Items = Mapping[str, Mapping[str, str]]
"""Keys and values by origin."""


def _origins(_: object, attribute: Any, value: Mapping[str, Any]) -> None:
    if len(value) > MAX_ORIGINS:
        raise FieldError(attribute.name, f"at most {MAX_ORIGINS} origins, not {len(value)}")
    for origin in value:
        if not is_origin(origin):
            raise FieldError(
                attribute.name,
                f"{origin[:80]!r} is no origin; it must be like https://example.com, with a port "
                "if it is not the usual one, and nothing after it",
            )


def _items(_: object, attribute: Any, value: Items) -> None:
    _origins(_, attribute, value)
    for origin, items in value.items():
        if sum(len(key) + len(text) for key, text in items.items()) > MAX_CHARACTERS:
            raise FieldError(
                attribute.name, f"{origin} has more than {MAX_CHARACTERS} characters of items"
            )


def _cookies(_: object, attribute: Any, value: tuple[Cookie, ...]) -> None:
    if len(value) > MAX_COOKIES:
        raise FieldError(attribute.name, f"at most {MAX_COOKIES} cookies, not {len(value)}")


@frozen(kw_only=True)
class SessionContext:
    """Cookies of all sites, and what each origin (`https://example.com`) has stored.

    Storage is that of pages of the origin itself, not of its frames in pages of other sites.
    """

    cookies: tuple[Cookie, ...] = field(
        default=(), repr=False, validator=Bounded(_cookies, {"maxItems": MAX_COOKIES})
    )
    local_storage: Items = field(factory=dict, repr=False, validator=Bounded(_items, _ORIGINS))
    session_storage: Items = field(factory=dict, repr=False, validator=Bounded(_items, _ORIGINS))
    """What the tabs have of it; where several tabs show an origin, the first one's."""

    indexed_db: Mapping[str, tuple[Database, ...]] = field(
        factory=dict, repr=False, validator=Bounded(_origins, _ORIGINS)
    )

    @property
    def origins(self) -> tuple[str, ...]:
        """Those that have storage that all tabs share."""
        return tuple(dict.fromkeys([*self.local_storage, *self.indexed_db]))

    def to_storage_state(self) -> dict[str, Any]:
        """The same for Playwright's `new_context(storage_state=…)`; it knows no sessionStorage."""
        return {
            "cookies": [_for_playwright(cookie) for cookie in self.cookies],
            "origins": [
                {
                    "origin": origin,
                    "localStorage": [
                        {"name": name, "value": value}
                        for name, value in self.local_storage.get(origin, {}).items()
                    ],
                    "indexedDB": [_plain(each) for each in self.indexed_db.get(origin, ())],
                }
                for origin in self.origins
            ],
        }


def is_origin(text: str) -> bool:
    """Whether it is scheme, host and port of a web page and nothing else, as browsers write it."""
    if len(text) > 300 or not _ORIGIN.fullmatch(text):
        return False
    try:
        parts = urlsplit(text)
        usual = {"http": 80, "https": 443}[parts.scheme]
        return bool(parts.hostname) and parts.port not in (0, usual) and text == text.lower()
    except ValueError:
        return False


def origin_of(url: str) -> str | None:
    """The origin of a web page's address; `None` for any other address."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    name = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}[parts.scheme]
    origin = f"{parts.scheme}://{name}" + ("" if port in (None, usual) else f":{port}")
    return origin if is_origin(origin) else None


def from_storage_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Playwright's form in ours, as JSON; what is wrong with its parts is found by their reader."""
    if twice := [name for name in BY_ORIGIN if name in state]:
        raise FieldError("origins", f"give either origins, as Playwright does, or {twice[0]}")
    local: dict[str, Any] = {}
    databases: dict[str, Any] = {}
    for number, each in enumerate(state["origins"]):
        try:
            unknown = each.keys() - {"origin", *BY_ORIGIN}
            origin = each["origin"]
            items = {item["name"]: item["value"] for item in each.get("localStorage") or ()}
        except (TypeError, KeyError, AttributeError):
            raise FieldError(
                f"origins[{number}]", "must have an origin, and items with name and value"
            ) from None
        if not isinstance(origin, str):
            raise FieldError(f"origins[{number}].origin", "must be a text")
        if unknown:
            raise FieldError(f"origins[{number}].{min(unknown)}", "unknown field")
        if items:  # an origin may be there twice
            local[origin] = local.get(origin, {}) | items
        if isinstance(each.get("indexedDB"), list):
            databases[origin] = databases.get(origin, []) + each["indexedDB"]
        elif each.get("indexedDB") is not None:
            raise FieldError(f"origins[{number}].indexedDB", "must be a list")
    more = {name: value for name, value in state.items() if name != "origins"}
    return {**more, "localStorage": local, "indexedDB": databases}


BY_ORIGIN = ("localStorage", "indexedDB")
ENDPOINT = ("sourceScheme", "sourcePort")
DERIVED = ("size", "session", "sameParty", "partitionKeyOpaque", "_crHasCrossSiteAncestor")
"""Fields of a cookie, as browsers and Playwright list it, that follow from the others."""


def plain_cookie(cookie: Mapping[str, Any]) -> dict[str, Any]:
    """A cookie as any of the usual programs writes it, in our form."""
    told = {name: value for name, value in cookie.items() if name not in (*DERIVED, *ENDPOINT)}
    site = told.get("partitionKey")
    if isinstance(site, str):
        crossed = bool(cookie.get("_crHasCrossSiteAncestor", False))
        told["partitionKey"] = {"topLevelSite": site, "hasCrossSiteAncestor": crossed}
    return told


def _for_playwright(cookie: Cookie) -> dict[str, Any]:
    host = cookie.domain or urlsplit(cookie.url or "").hostname
    told: dict[str, Any] = {
        "name": cookie.name,
        "value": cookie.value,
        "domain": host,
        "path": cookie.path or "/",
        "expires": -1 if cookie.expires is None else cookie.expires,
        "httpOnly": cookie.http_only,
        "secure": cookie.secure,
        "sameSite": str(cookie.same_site or SameSite.LAX),
    }
    if cookie.partition_key is not None:
        told["partitionKey"] = cookie.partition_key.top_level_site
        told["_crHasCrossSiteAncestor"] = cookie.partition_key.has_cross_site_ancestor
    return told


def _plain(database: Database) -> dict[str, Any]:
    def index(one: StoreIndex) -> dict[str, Any]:
        told = {"name": one.name, "multiEntry": one.multi_entry, "unique": one.unique}
        return {**told, **dict(_path(one))}

    def record(one: StoreRecord) -> dict[str, Any]:
        told = {
            "key": one.key,
            "keyEncoded": one.key_encoded,
            "value": one.value,
            "valueEncoded": one.value_encoded,
        }
        return {name: part for name, part in told.items() if part is not None}

    return {
        "name": database.name,
        "version": database.version,
        "stores": [
            {
                "name": store.name,
                "autoIncrement": store.auto_increment,
                **dict(_path(store)),
                "indexes": [index(each) for each in store.indexes],
                "records": [record(each) for each in store.records],
            }
            for store in database.stores
        ],
    }


def _path(of: ObjectStore | StoreIndex) -> Iterator[tuple[str, Any]]:
    if of.key_path is not None:
        yield "keyPath", of.key_path
    if of.key_path_array is not None:
        yield "keyPathArray", list(of.key_path_array)
