"""The cheapest WebSocket ends there are, so that what is measured is what lies between them.

Client frames are masked with zeros: valid, and free.
"""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

KEPT = 256
"""Bytes of a message that are kept; of bigger ones only the size is of interest."""

ACK = b'{"id":2,"result":{}}'
FILLER = b'{"id":3,"result":{"data":"' + b"x" * 2**20
"""What big messages begin with."""


def frame(payload: bytes, *, masked: bool) -> bytes:
    """A text frame."""
    size, bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head = bytes([0x81, bit | size])
    elif size < 2**16:
        head = bytes([0x81, bit | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x81, bit | 127]) + size.to_bytes(8, "big")
    return head + (bytes(4) if masked else b"") + payload


def big(size: int) -> bytes:
    """A message of *size* bytes."""
    return (FILLER * (size // len(FILLER) + 1))[:size]


class End(asyncio.Protocol):
    """One end: the upgrade, then frames. Text frames only, one frame a message."""

    def __init__(self) -> None:
        self.head = bytearray()
        self.upgraded = False
        self.left = -1  # of the payload; -1: a header comes next
        self.key = 0
        self.got = bytearray()
        self.writable = asyncio.Event()
        self.writable.set()
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def pause_writing(self) -> None:
        """The other side is slow."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """It is not any more."""
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        """The head of the upgrade, then frames."""
        if not self.upgraded:
            self.head += data
            head, found, rest = bytes(self.head).partition(b"\r\n\r\n")
            if not found:
                return
            self.head.clear()
            self.upgraded = True
            self.on_upgrade(head)
            data = rest
        self.received += len(data)
        self._walk(data)

    def _walk(self, data: bytes) -> None:
        if self.head:
            data, self.head = bytes(self.head) + data, bytearray()
        at = 0
        while at < len(data):
            if self.left < 0:
                sizes = self._size(data, at)
                if sizes is None:
                    self.head += data[at:]
                    return
                at, self.left = sizes
            step = min(self.left, len(data) - at)
            if len(self.got) < KEPT:
                self.got += data[at : at + min(step, KEPT)]
            at += step
            self.left -= step
            if self.left == 0:
                got, self.got, self.left = bytes(self.got), bytearray(), -1
                self.on_message(self._plain(got) if self.key else got)

    def _plain(self, got: bytes) -> bytes:
        """What is behind the mask."""
        key = (self.key.to_bytes(4, "big") * (len(got) // 4 + 1))[: len(got)]
        both = int.from_bytes(got, "big") ^ int.from_bytes(key, "big")
        return both.to_bytes(len(got), "big")

    def _size(self, data: bytes, at: int) -> tuple[int, int] | None:
        """Where the payload begins, and its length; `None` if that is not there yet."""
        if len(data) - at < 2:
            return None
        size, body = data[at + 1] & 127, at + 2
        more = {126: 2, 127: 8}.get(size, 0)
        mask = 4 if data[at + 1] & 128 else 0
        if len(data) < body + more + mask:
            return None
        if more:
            size = int.from_bytes(data[body : body + more], "big")
        if mask:
            self.key = int.from_bytes(data[body + more : body + more + 4], "big")
        return body + more + mask, size

    def on_upgrade(self, head: bytes) -> None:
        """The HTTP head is there."""

    def on_message(self, got: bytes) -> None:
        """A message is complete; *got* is how it begins."""


class Upstream(End):
    """Echoes what is small, acknowledges what is big, gives what it is asked for."""

    giving: asyncio.Task[None] | None = None

    def on_upgrade(self, head: bytes) -> None:
        """Accept it; the key's digest is what aiohttp checks."""
        import base64
        import hashlib

        fields = dict(
            line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:] if line
        )
        key = {name.lower(): value for name, value in fields.items()}["sec-websocket-key"]
        magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1((key + magic).encode()).digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )

    def on_message(self, got: bytes) -> None:
        """Answer."""
        if got.startswith(b'{"give":'):
            size, count = json.loads(got)["give"]
            self.giving = asyncio.create_task(self._give(frame(big(size), masked=False), count))
        else:
            self.transport.write(frame(got if len(got) < KEPT else ACK, masked=False))

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody takes any more."""
        if self.giving is not None:
            self.giving.cancel()

    async def _give(self, message: bytes, count: int) -> None:
        for _ in range(count):
            await self.writable.wait()
            self.transport.write(message)


class Client(End):
    """The driver's end."""

    def __init__(self) -> None:
        super().__init__()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answer: asyncio.Future[bytes] | None = None
        self.messages = 0
        self.wanted = 0

    @classmethod
    async def open(cls, url: str) -> Client:
        """Connect to `ws://…`."""
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_connection(cls, parts.hostname, parts.port)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        transport.write(
            f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        await client.ready
        return client

    def on_upgrade(self, head: bytes) -> None:
        """Only 101 is good."""
        if b" 101 " in head.split(b"\r\n")[0]:
            self.ready.set_result(None)
        else:
            self.ready.set_exception(RuntimeError(head.decode("latin-1")))

    def on_message(self, got: bytes) -> None:
        """The last message that is waited for wakes the caller."""
        self.messages += 1
        self.wanted -= 1
        if self.wanted == 0 and self.answer is not None:
            self.answer.set_result(got)

    async def call(self, message: bytes, *, answers: int = 1) -> bytes:
        """Send a frame that is made already, wait for so many messages."""
        self.answer = asyncio.get_running_loop().create_future()
        self.wanted = answers
        self.transport.write(message)
        return await self.answer

    async def take(self, size: int, count: int) -> None:
        """Let the upstream send *count* messages of *size* bytes."""
        await self.call(frame(b'{"give":[%d,%d]}' % (size, count), masked=True), answers=count)
