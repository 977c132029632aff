"""What a live session needs of the library that it is driven with."""

from __future__ import annotations

import asyncio
from typing import Protocol

from browsercloud.models import Session


class Connection(Protocol):
    """One library attached to one session."""

    async def open(self) -> None:
        """Attach. Raises `ConnectionFailed` or `SessionEnded`; cancelled, it is left to `close`."""

    async def close(self) -> None:
        """Detach, and leave the session as it is. Bounded in time.

        Safe to call twice, while `open` is running, and when the browser is dead.
        """


class Adapter(Protocol):
    """One library, for all sessions of a client."""

    def start(self) -> asyncio.Task[object]:
        """Begin what takes time and needs no session, without waiting for it.

        Raises `UsageError` when the library is not installed.
        """

    def of(self, session: Session) -> Connection:
        """A connection that is not open yet."""

    async def close(self) -> None:
        """Let go of what all connections share. Safe to call twice."""


class NoDriver:
    """The `Adapter` for sessions that some other program drives, such as one with Puppeteer.

    It is also every session's connection: there is nothing to open.
    """

    def start(self) -> asyncio.Task[object]:
        """There is nothing to wait for."""
        return asyncio.create_task(self.open())

    def of(self, session: Session) -> Connection:
        """The connection that is none."""
        return self

    async def open(self) -> None:
        """Attach nothing."""

    async def close(self) -> None:
        """Detach nothing."""
