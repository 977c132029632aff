"""The least that a relay on asyncio can do: what a gateway costs more than this is its own."""

from __future__ import annotations

import asyncio


class Relay(asyncio.Protocol):
    """One side of a connection that is passed on to *port*, without a look at it."""

    def __init__(self, port: int, other: Relay | None = None) -> None:
        self.port = port
        self.other = other
        self.early: list[bytes] = []
        self.dialling: asyncio.Task[object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first side dials the second, which takes what has come meanwhile."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.other is None:
            self.dialling = asyncio.create_task(self._dial())
        else:
            transport.writelines(self.other.early)
            self.other.other = self

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: Relay(self.port, self), "127.0.0.1", self.port)

    def data_received(self, data: bytes) -> None:
        """Say it to the other side."""
        if self.other is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        """The other side waits."""
        assert self.other is not None
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """It goes on."""
        assert self.other is not None
        self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Both end together."""
        if self.other is not None:
            self.other.transport.abort()
