"""The trust boundary: who may come in, and what a key or a token opens.

A **key** belongs to a project and opens everything of it. A **token** opens one session (its CDP
socket, its record, its pages) and nothing else; it is the HMAC of the session's id, so nothing is
stored, and it dies with the session. **Host and Origin** keep web pages out: a browser always sends
an Origin with an upgrade, programs send none.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from aiohttp import web
from attrs import frozen

from browsercloud.errors import NotAuthorized, ServiceError, UsageError
from browsercloud.server.config import DEFAULT_PROJECT, ServerConfig
from browsercloud.server.keys import hash_key


class Opens(enum.Enum):
    """What a route asks of its caller."""

    ANYONE = enum.auto()
    KEY = enum.auto()
    """A project's key, in a header; on a WebSocket also `?apiKey=`."""

    SESSION = enum.auto()
    """As `KEY`, or the token of the session that the path or `?sessionId=` names."""


@frozen
class Caller:
    """Who asks: a project, or the holder of one session's token (`project` is `None`)."""

    project: str | None


class Trust:
    """Decides who is let in. Holds hashes of keys, never a key."""

    def __init__(self, config: ServerConfig) -> None:
        self._hashes = dict(config.key_hashes)
        if config.api_key is not None:
            self._hashes[hash_key(config.api_key)] = DEFAULT_PROJECT
        if not self._hashes and not config.no_auth:
            raise UsageError("the server has no key, so nobody could use it; give it one")
        self._secret = config.token_secret
        self._no_auth = config.no_auth
        self._hosts = {"localhost", socket.gethostname().lower(), *config.allowed_hosts}

    def token(self, session_id: str) -> str:
        """The token that opens this session."""
        digest = hmac.digest(self._secret, session_id.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def project_of(self, key: str) -> str | None:
        """The project that *key* belongs to; `None` for an unknown key."""
        found = None
        given = hash_key(key)
        # Every hash is compared, and in constant time: the answer's delay says nothing.
        for known, project in self._hashes.items():
            if hmac.compare_digest(given, known):
                found = project
        return found

    def admit(self, request: web.Request, opens: Opens, session_id: str | None) -> Caller:
        """Let the caller in, or raise `NotAuthorized`, or 403 for a foreign Origin or Host.

        A token outranks a key: programs append `&apiKey=…` to the URLs they were given. A wrong
        token is refused even beside a good key, since it shows that the URL is not what it seems.
        """
        self._check_origin(request)
        if opens is Opens.ANYONE:
            return Caller(None)
        token = request.query.get("token") if opens is Opens.SESSION else None
        if token is not None:
            if session_id is None or not self._token_opens(token, session_id):
                raise NotAuthorized("this token does not open this session")
            return Caller(None)
        if self._no_auth:
            return Caller(DEFAULT_PROJECT)
        keys = list(_keys(request))
        for key in keys:
            project = self.project_of(key)
            if project is not None:
                return Caller(project)
        raise NotAuthorized(
            "unknown API key"
            if keys
            else "no key or token; send the API key as the header x-api-key"
        )

    def _token_opens(self, token: str, session_id: str) -> bool:
        expected = self.token(session_id).encode()
        return hmac.compare_digest(token.encode("utf-8", "surrogateescape"), expected)

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
