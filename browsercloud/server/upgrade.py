"""Both WebSocket handshakes of the gateway: the connections are ours afterwards, byte by byte."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from typing import Any, cast
from urllib.parse import SplitResult, unquote, urlsplit

from aiohttp import web

from browsercloud.errors import ConnectionFailed
from browsercloud.wire import invalid

CONNECT_TIMEOUT = 10.0
MAX_HEAD = 2**16
"""How long the head of the browser's answer may be, in bytes."""

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class Upgraded(web.StreamResponse):
    """The answer to an upgrade. Nothing of HTTP comes after it."""

    def __init__(self, key: str) -> None:
        headers = {"Upgrade": "websocket", "Connection": "upgrade"}
        # No extension is named: with compression the bytes could not be passed on as they are.
        super().__init__(status=101, headers=headers | {"Sec-WebSocket-Accept": _digest(key)})
        self.force_close()

    async def write_eof(self, data: bytes = b"") -> None:
        """Not a byte: whoever took the connection over has ended it."""


def check_upgrade(request: web.Request) -> None:
    """Raise `InvalidRequest` unless the handshake is one that can be accepted."""
    if not web.WebSocketResponse().can_prepare(request):
        raise invalid([("", "this is no WebSocket handshake of version 13")])


async def accept(request: web.Request) -> tuple[web.StreamResponse, asyncio.Transport, bytes]:
    """Answer the upgrade: the response to return at last, the connection, what came too early.

    Raises `ConnectionResetError` when the client is gone. Nothing may be awaited between this and
    the connection's next protocol.
    """
    response = Upgraded(request.headers["Sec-WebSocket-Key"])
    await response.prepare(request)
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client hung up")
    early = _Early()
    # How aiohttp hands an upgraded connection over: what it has read behind the request goes to
    # the parser at once. Its own parser would make messages of it.
    request.protocol.set_parser(cast(Any, early))
    request.protocol.keep_alive(False)
    return response, transport, early.data


class _Early:
    """What aiohttp takes for a parser."""

    data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Keep it."""
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """Whoever has the connection by now knows."""


async def dial(endpoint: str) -> tuple[asyncio.Transport, bytes]:
    """Connect to *endpoint* (`ws://`, `wss://`): the connection, and what came behind the answer.

    The connection reads nothing until it is told to. By hand: aiohttp's client would parse and mask
    each message, and its session has 100 connections at most. Raises `ConnectionFailed`, which
    never names the endpoint.
    """
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            return await _dial(urlsplit(endpoint))
    except (OSError, ValueError) as error:
        # The text of the error names the endpoint, which opens the browser.
        raise ConnectionFailed(type(error).__name__, endpoint="the browser") from None


async def _dial(url: SplitResult) -> tuple[asyncio.Transport, bytes]:
    secure = url.scheme == "wss"
    if url.hostname is None:
        raise ValueError("an endpoint without a host")
    transport, answer = await asyncio.get_running_loop().create_connection(
        _Answer, url.hostname, url.port or (443 if secure else 80), ssl=secure or None
    )
    try:
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(_request(url, key))
        head, early = await answer.complete
        _check(head, key)
    except BaseException:
        transport.abort()
        raise
    return transport, early


def _request(url: SplitResult, key: str) -> bytes:
    user, at, host = url.netloc.rpartition("@")
    lines = [
        f"GET {url.path or '/'}{'?' * bool(url.query)}{url.query} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    ]
    if at:
        lines.append(f"Authorization: Basic {base64.b64encode(unquote(user).encode()).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()


def _check(head: bytes, key: str) -> None:
    """Raise `ConnectionError` unless the upgrade is accepted as it was asked for."""
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines)
    }
    if status.split()[1:2] != ["101"] or fields.get("sec-websocket-accept") != _digest(key):
        raise ConnectionRefusedError("the upgrade was refused")
    if "sec-websocket-extensions" in fields:
        raise ConnectionRefusedError("an extension was chosen that nobody offered")


def _digest(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode() + _MAGIC).digest()).decode()  # noqa: S324


class _Answer(asyncio.Protocol):
    """Reads the head of the answer, and then nothing more."""

    def __init__(self) -> None:
        self.complete: asyncio.Future[tuple[bytes, bytes]] = (
            asyncio.get_running_loop().create_future()
        )
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it, to hold it."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Up to the empty line; what is behind it is not ours."""
        self._got += data
        head, found, early = self._got.partition(b"\r\n\r\n")
        if self.complete.done():
            return
        if found:
            self._transport.pause_reading()
            self.complete.set_result((head, early))
        elif len(head) > MAX_HEAD:
            self.complete.set_exception(ConnectionRefusedError("the answer has no end"))

    def connection_lost(self, exc: Exception | None) -> None:
        """No answer."""
        if not self.complete.done():
            self.complete.set_exception(exc or ConnectionResetError("hung up without an answer"))
