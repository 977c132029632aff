"""Engines without a browser, named by how they behave. For tests of whatever uses a server.

Each counts what it was asked for: `starts` and `stops` are the session ids, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from browsercloud.engines.base import BrowserHandle, Usage
from browsercloud.errors import LaunchFailed
from browsercloud.models import BrowserExit, Capacity
from browsercloud.options import SessionOptions

NO_ENDPOINT = "ws://127.0.0.1:9/nothing-listens-here"


class IdleEngine:
    """Starts at once something that does nothing. *endpoint* is what its handles point to.

    *room* is the capacity it tells. *survivors* are the ids of browsers that a predecessor has
    left and that still run: these can be restored.
    """

    def __init__(
        self,
        *,
        endpoint: str = NO_ENDPOINT,
        room: int = 1_000_000,
        survivors: Iterable[str] = (),
    ) -> None:
        self.endpoint = endpoint
        self.room = room
        self.survivors = set(survivors)
        self.starts: list[str] = []
        self.stops: list[str] = []
        self.cancelled: list[str] = []
        """Starts that were cancelled before they were done."""

        self._running: dict[str, BrowserHandle] = {}

    async def open(self) -> None:
        """Ready when made."""

    async def close(self) -> None:
        """Stop everything that runs."""
        for handle in list(self._running.values()):
            await self.stop(handle, grace=0)

    async def start(self, session_id: str, options: SessionOptions) -> BrowserHandle:
        """A handle to nothing."""
        self.starts.append(session_id)
        try:
            await self._come_up()
        except asyncio.CancelledError:
            self.cancelled.append(session_id)
            raise
        return self._handle(session_id, options)

    async def restore(
        self, session_id: str, options: SessionOptions, state: Mapping[str, Any]
    ) -> BrowserHandle | None:
        """A handle for a survivor whose state is the one that was kept."""
        if session_id not in self.survivors or state != {"idle": session_id}:
            return None
        self.survivors.discard(session_id)
        return self._handle(session_id, options)

    async def sweep(self) -> None:
        """End the survivors that nobody wanted."""
        self.stops.extend(sorted(self.survivors))
        self.survivors.clear()

    def refuses(self, options: SessionOptions) -> Sequence[tuple[str, str]]:
        """Nothing: what does nothing can be asked for anything."""
        return ()

    def capacity(self) -> Capacity:
        """The *room* it was made with."""
        return Capacity(sessions=self.room, reason="as told")

    async def usage(self) -> Mapping[str, Usage]:
        """One process and one megabyte each."""
        return {name: Usage(processes=1, memory=2**20) for name in self._running}

    def _handle(self, session_id: str, options: SessionOptions) -> BrowserHandle:
        handle = BrowserHandle(
            session_id=session_id,
            endpoint=self.endpoint,
            user_agent=options.user_agent or "Idle/1.0",
            exited=asyncio.get_running_loop().create_future(),
            state={"idle": session_id},
        )
        self._running[session_id] = handle
        return handle

    async def stop(self, handle: BrowserHandle, *, grace: float) -> None:
        """End it as if it left by itself, or by a signal without *grace*."""
        self.stops.append(handle.session_id)
        self._running.pop(handle.session_id, None)
        if not handle.exited.done():
            killed = BrowserExit(signal="SIGKILL")
            handle.exited.set_result(BrowserExit(exit_code=0) if grace else killed)

    async def webdriver(self, handle: BrowserHandle) -> str:
        """There is none."""
        raise LaunchFailed("these browsers have no WebDriver")

    async def poll(self, handle: BrowserHandle) -> BrowserExit | None:
        """How it ended, if it has."""
        return handle.exited.result() if handle.exited.done() else None

    def running(self) -> Mapping[str, BrowserHandle]:
        """What was started and not stopped."""
        return dict(self._running)

    async def _come_up(self) -> None:
        """What a start waits for."""


class SlowEngine(IdleEngine):
    """Takes *delay* seconds to start."""

    def __init__(self, delay: float, *, endpoint: str = NO_ENDPOINT, room: int = 1_000_000) -> None:
        super().__init__(endpoint=endpoint, room=room)
        self.delay = delay

    async def _come_up(self) -> None:
        await asyncio.sleep(self.delay)


class NeverEngine(IdleEngine):
    """Its starts never end, until they are cancelled."""

    async def _come_up(self) -> None:
        await asyncio.get_running_loop().create_future()


class DyingEngine(IdleEngine):
    """Starts well; its browsers die when told to."""

    def die(self, session_id: str, how: BrowserExit | None = None) -> None:
        """Let this session's browser die, as by SIGKILL unless *how* says otherwise.

        Raises `KeyError` when it does not run.
        """
        exited = self._running[session_id].exited
        if not exited.done():
            exited.set_result(how or BrowserExit(signal="SIGKILL"))


class FailingEngine(IdleEngine):
    """Its browsers never start."""

    async def _come_up(self) -> None:
        raise LaunchFailed("the browser ended while starting: exit code 1")
