"""Both ends of a CDP socket as bare bytes, to send what no library would."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from contextlib import suppress
from urllib.parse import urlsplit

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = b"AAAAAAAAAAAAAAAAAAAAAA=="

CONTINUE, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(opcode: int, payload: bytes = b"", *, key: bytes = b"", fin: bool = True) -> bytes:
    """One frame, masked if there is a *key*."""
    size, bit = len(payload), 0x80 if key else 0
    head = bytes([opcode | (0x80 if fin else 0)])
    if size < 126:
        head += bytes([bit | size])
    elif size < 2**16:
        head += bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + size.to_bytes(8, "big")
    return head + key + mask(payload, key)


def mask(payload: bytes, key: bytes) -> bytes:
    """*payload* behind the mask, or from behind it."""
    if not any(key):
        return payload
    long = (key * (len(payload) // 4 + 1))[: len(payload)]
    both = int.from_bytes(payload, "big") ^ int.from_bytes(long, "big")
    return both.to_bytes(len(payload), "big")


def closing(code: int, reason: str) -> bytes:
    """What a close frame from the server looks like."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode())


class Side:
    """An upgraded connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, *frames: bytes) -> None:
        """Send them in one piece."""
        self.writer.write(b"".join(frames))

    async def read(self, size: int) -> bytes:
        """Exactly so many bytes, within five seconds."""
        async with asyncio.timeout(5):
            return await self.reader.readexactly(size)

    async def read_frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame."""
        head = await self.read(2)
        size = head[1] & 0x7F
        if size > 125:
            size = int.from_bytes(await self.read(2 if size == 126 else 8), "big")
        key = await self.read(4) if head[1] & 0x80 else b""
        return head[0] & 0x0F, mask(await self.read(size), key)

    async def ended(self, within: float = 5.0) -> bytes:
        """What still comes until the other end closes."""
        async with asyncio.timeout(within):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        try:
            async with asyncio.timeout(seconds):
                return not await self.reader.read(1)
        except TimeoutError:
            return True

    async def drop(self) -> None:
        """Hang up without a word. Safe to call again."""
        self.writer.transport.abort()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


class RawBrowser:
    """An endpoint. `early` goes out in one piece with the answer to the upgrade."""

    def __init__(self) -> None:
        self.early = b""
        self.answer: bytes | None = None
        """Sent in place of the right answer."""

        self.requests: list[bytes] = []
        self.sides: asyncio.Queue[Side] = asyncio.Queue()
        self.all: list[Side] = []

    async def __aenter__(self) -> RawBrowser:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.endpoint = f"ws://127.0.0.1:{port}/devtools/browser/x"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for side in self.all:
            await side.drop()
        self._server.close()
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head)
        key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
        right = (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        answer = right if self.answer is None else self.answer.replace(b"ACCEPT", accept)
        writer.write(answer + self.early)
        side = Side(reader, writer)
        self.all.append(side)
        self.sides.put_nowait(side)

    async def connect(self, url: str, early: bytes = b"") -> Side:
        """A client; *early* goes out in one piece with the request. Fails unless it is upgraded."""
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        side = Side(reader, writer)
        self.all.append(side)
        writer.write(
            f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n".encode()
            + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            + b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
            + b"Sec-WebSocket-Key: "
            + KEY
            + b"\r\n\r\n"
            + early
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert base64.b64encode(hashlib.sha1(KEY + MAGIC).digest()) in head
        assert b"extensions" not in head.lower()
        return side


def some_messages(chance: random.Random, count: int, *, masked: bool) -> list[bytes]:
    """Frames of all sizes, some of them parts of one message."""
    frames = []
    for _ in range(count):
        size = chance.choice([0, 1, 20, 125, 126, 1000, 65_535, 65_536, 65_537, 150_000])
        parts = chance.choice([1, 1, 1, 2, 3])
        for part in range(parts):
            key = chance.randbytes(4) if masked else b""
            payload = chance.randbytes(chance.randint(0, size))
            opcode = chance.choice([TEXT, BINARY]) if part == 0 else CONTINUE
            frames.append(frame(opcode, payload, key=key, fin=part == parts - 1))
    return frames
