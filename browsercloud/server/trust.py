"""The trust boundary: who may come in, and what a key or a token opens.

A **key** belongs to a project and opens everything of it. A **token** opens one session (its CDP
socket, its record, its pages) and nothing else. It is the HMAC of the session's id and of the id of
the key that it was handed out to: nothing is stored, and it dies with either. A **login** is a
cookie for the dashboard: it stands for a key, expires, and counts only for what its own pages ask.
**Host and Origin** keep web pages out: a browser always sends an Origin with an upgrade, programs
none.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import enum
import hashlib
import hmac
import ipaddress
import re
import socket
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import attrs
from aiohttp import web
from attrs import field, frozen

from browsercloud.errors import NotAuthorized, ServiceError, UsageError
from browsercloud.server.config import DEFAULT_PROJECT, ServerConfig
from browsercloud.server.keyring import Keyring, KnownKey
from browsercloud.server.keys import hash_key

LOGIN = "browsercloud_login"
"""Name of the dashboard's cookie."""

LOGIN_FOR = 12 * 3600
"""Seconds for which one is logged in."""

DIGEST = 16
"""Characters of the configured key's hash that stand for it in a login: it has no id."""

SAFE = ("GET", "HEAD")
SCOPE = re.compile(r"(reach|watch)-([0-9]{1,11})\.")


class Opens(enum.Enum):
    """What a route asks of its caller."""

    ANYONE = enum.auto()
    KEY = enum.auto()
    """A project's key, in a header; on a WebSocket also `?apiKey=`."""

    SESSION = enum.auto()
    """As `KEY`, or the token of the session that the path or `?sessionId=` names."""

    VIEWER = enum.auto()
    """As `SESSION`, or a token that only lets look at that session, or reach in."""


@frozen
class Caller:
    """Who asks: a project, or the holder of one session's token (`project` is `None`)."""

    project: str | None
    key_id: str | None = None
    """The key it came with, or that its token was handed out to, if that one is in the store."""

    revoked: asyncio.Future[None] | None = field(default=None, eq=False, repr=False)
    """Done when that key is revoked."""

    touches: bool = True
    """Whether it may reach into the browser from a viewer, and not only look."""

    expires: float | None = None
    """When its token does, in seconds since 1970."""


class Trust:
    """Decides who is let in."""

    def __init__(self, config: ServerConfig, keyring: Keyring) -> None:
        # With a data folder there are keys in the store, or the first one will be made.
        if config.api_key is None and config.data_dir is None and not config.no_auth:
            raise UsageError("the server has no key, so nobody could use it; give it one")
        self._keyring = keyring
        self._secret = config.token_secret
        self._no_auth = config.no_auth
        self._hosts = {"localhost", socket.gethostname().lower(), *config.allowed_hosts}

    def token(self, session_id: str, key_id: str | None = None) -> str:
        """The token that opens this session, as long as the key with this id is not revoked."""
        signed = session_id if key_id is None else f"{session_id}.{key_id}"
        digest = hmac.digest(
            self._secret, signed.encode("utf-8", "surrogateescape"), hashlib.sha256
        )
        text = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return text if key_id is None else f"{text}.{key_id}"

    def viewer_token(
        self, session_id: str, key_id: str | None = None, *, touches: bool, expires: int = 0
    ) -> str:
        """A token for viewers of this session alone. It dies with the session and with the key.

        *touches* lets its holder reach in. *expires* is in seconds since 1970, 0 for not before.
        """
        scope = f"{'reach' if touches else 'watch'}-{expires}"
        signed = self.token(f"{session_id}.{scope}", key_id)
        return f"{scope}.{signed}"

    def login(self, key: str) -> str:
        """The value of a cookie that stands for the key. Raises `NotAuthorized` for a wrong one."""
        known = self._keyring.find(key)
        if known is None:
            raise NotAuthorized("unknown API key")
        signed = f"{known.id or hash_key(key)[:DIGEST]}.{int(time.time()) + LOGIN_FOR}"
        return f"{signed}.{self.token(f'login.{signed}')}"

    def logged_in(self, request: web.Request) -> Caller | None:
        """Whose login the request carries, if it comes from a page of ours; `None` if nobody's."""
        name, _, rest = request.cookies.get(LOGIN, "").partition(".")
        expires, _, signature = rest.partition(".")
        expected = self.token(f"login.{name}.{expires}").encode()
        if not hmac.compare_digest(signature.encode("utf-8", "surrogateescape"), expected):
            return None
        known = self._keyring.by_id(name) or self._keyring.configured(name)
        if known is None or float(expires) < time.time() or not self.from_our_pages(request):
            return None
        return Caller(known.project, known.id, known.revoked)

    def from_our_pages(self, request: web.Request) -> bool:
        """Whether a browser says so, or the request changes nothing and no browser says otherwise.

        By `Sec-Fetch-Site`, else `Origin`: https://www.w3.org/TR/fetch-metadata/.
        """
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
        if site is not None:  # a page that tells no referrer has the origin `null` in its forms
            navigates = site == "none" and request.method in SAFE
            return site == "same-origin" or navigates
        if origin is not None:
            return _same_place(origin, request.headers.get("Host", ""))
        return request.method in SAFE and not is_upgrade(request)

    def admit(
        self,
        request: web.Request,
        opens: Opens,
        session_id: str | None,
        *,
        token: str | None = None,
        key: str | None = None,
    ) -> Caller:
        """Let the caller in, or raise `NotAuthorized`, or 403 for a foreign Origin or Host.

        A token outranks a key: programs append `&apiKey=…` to the URLs they were given. A wrong
        token is refused even beside a good key, since it shows that the URL is not what it seems.
        *token* and *key* are what the request carries in its path or its body.
        """
        self._check_origin(request)
        if opens is Opens.ANYONE:
            return Caller(None)
        if opens in (Opens.SESSION, Opens.VIEWER) and token is None:
            token = request.query.get("token")
        if token is not None and opens is Opens.VIEWER and (scope := SCOPE.match(token)):
            return self._viewer(token, session_id, scope)
        if token is not None:
            return self._holder(token, session_id)
        if self._no_auth:
            return Caller(DEFAULT_PROJECT)
        keys = [*_keys(request), *([] if key is None else [key])]
        caller = self._owner(keys) if keys else self.logged_in(request)
        if caller is not None:
            return caller
        for one in keys if opens in (Opens.SESSION, Opens.VIEWER) else ():
            # WebDriver clients know one header only: Basic, with the token as the password.
            with contextlib.suppress(NotAuthorized):
                return self._holder(one, session_id)
        raise NotAuthorized(
            "unknown API key"
            if keys
            else "no key or token; send the API key as the header x-api-key"
        )

    def _owner(self, keys: Sequence[str]) -> Caller | None:
        for one in keys:
            if (known := self._keyring.find(one)) is not None:
                return Caller(known.project, known.id, known.revoked)
        return None

    def _holder(self, token: str, session_id: str | None) -> Caller:
        _, dot, key_id = token.partition(".")
        expected = self.token(session_id or "", key_id if dot else None).encode()
        good = hmac.compare_digest(token.encode("utf-8", "surrogateescape"), expected)
        if session_id is None or not good:
            raise NotAuthorized("this token does not open this session")
        known = self._keyring.by_id(key_id) if dot else KnownKey(DEFAULT_PROJECT)
        if known is None:
            raise NotAuthorized("the API key that this token was handed out to is revoked")
        return Caller(None, known.id, known.revoked)

    def _viewer(self, token: str, session_id: str | None, scope: re.Match[str]) -> Caller:
        signed = f"{session_id or ''}.{scope[0].removesuffix('.')}"
        holder = self._holder(token[scope.end() :], signed)
        expires = int(scope[2])
        if session_id is None or 0 < expires < time.time():
            raise NotAuthorized("this link has expired; ask for a new one")
        return attrs.evolve(
            holder, touches=scope[1] == "reach", expires=float(expires) if expires else None
        )

    def _check_origin(self, request: web.Request) -> None:
        upgrade = is_upgrade(request)
        if not (upgrade or self._no_auth):
            return
        # Not `request.host`: without the header it would ask the resolver for this machine's name.
        host = request.headers.get("Host", "")
        origin = request.headers.get("Origin")
        if origin is not None and not _same_place(origin, host):
            raise _forbidden("a page of another origin may not use this server")
        # Without a key nothing else keeps out a page whose name was rebound to this address.
        if (origin is not None or self._no_auth) and not self._host_allowed(host):
            raise _forbidden(
                "unknown host name; reach the server by its address, or start it with "
                "--allowed-hosts"
            )

    def _host_allowed(self, host: str) -> bool:
        name = _split_host(host)[0]
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def is_upgrade(request: web.Request) -> bool:
    """Whether the request wants to become a WebSocket."""
    return "websocket" in request.headers.get("Upgrade", "").lower()


def _keys(request: web.Request) -> Iterator[str]:
    headers = request.headers
    for name in ("x-api-key", "steel-api-key"):
        if key := headers.get(name):
            yield key
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield value.strip()
    elif scheme.lower() == "basic":
        yield _basic_password(value)
    if is_upgrade(request):
        yield from request.query.getall("apiKey", [])


def _basic_password(value: str) -> str:
    try:
        pair = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return pair.partition(":")[2]


def _same_place(origin: str, host: str) -> bool:
    """Whether an Origin's host and port are those of the Host header."""
    try:
        parts = urlsplit(origin)
        usual = {"http": 80, "https": 443}.get(parts.scheme)
        if usual is None or not parts.hostname:
            return False
        theirs = (parts.hostname, parts.port or usual)
    except ValueError:
        return False
    name, port = _split_host(host)
    return theirs == (name, port or usual)


def _split_host(host: str) -> tuple[str, int | None]:
    """Name and port of a Host header; an ill-formed one is a name that nothing equals."""
    try:
        parts = urlsplit(f"//{host}")
        return (parts.hostname or "").lower(), parts.port
    except ValueError:
        return "", None


def _forbidden(message: str) -> ServiceError:
    return ServiceError(message, status=403, code="forbidden")
