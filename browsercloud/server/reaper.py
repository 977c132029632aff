"""What ends sessions that nobody ends: timeouts, silence, lost leases, and the reconciliation."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable

from browsercloud._aio import stop_task
from browsercloud.models import ReleaseReason
from browsercloud.server.traffic import Traffic

log = logging.getLogger(__name__)

RECONCILE_EVERY = 30.0
"""Seconds between two reconciliations."""

WARN_BEFORE = 30.0
"""Seconds before a `timeout` at which an event warns of it; a shorter life is warned of at once."""


class _Timer(enum.Enum):
    LIFE = enum.auto()
    WARNING = enum.auto()
    IDLE = enum.auto()
    ATTENDANCE = enum.auto()


class Reaper:
    """The timers of each session's life, and one task that reconciles now and then.

    *ended* is called with a session's id and the reason when its time is over, *warned* when its
    `timeout` will be over in `WARN_BEFORE` seconds.
    """

    def __init__(
        self,
        ended: Callable[[str, ReleaseReason], None],
        warned: Callable[[str], None],
        reconcile: Callable[[], Awaitable[None]],
        *,
        every: float = RECONCILE_EVERY,
    ) -> None:
        self._ended = ended
        self._warned = warned
        self._reconcile = reconcile
        self._every = every
        self._timers: dict[tuple[str, _Timer], asyncio.TimerHandle] = {}
        self._regular: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to reconcile."""
        self._regular = asyncio.create_task(self._run(), name="reconcile")

    async def close(self) -> None:
        """Stop every timer and the regular task. Safe to call twice."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await stop_task(self._regular)

    def expire(self, session_id: str, seconds: float) -> None:
        """End the session in so many seconds from now, instead of at any time set before."""
        self._set(session_id, _Timer.WARNING, max(0.0, seconds - WARN_BEFORE), self._warned)
        self._end_in(session_id, _Timer.LIFE, seconds, ReleaseReason.TIMEOUT)

    def end_idle(self, session_id: str, seconds: float, traffic: Traffic) -> None:
        """End the session once its driver has said nothing for so many seconds."""

        def look(name: str) -> None:
            left = traffic.last + seconds - asyncio.get_running_loop().time()
            if left > 0:
                self._set(name, _Timer.IDLE, left, look)
            else:
                self._ended(name, ReleaseReason.INACTIVITY_TIMEOUT)

        self._set(session_id, _Timer.IDLE, seconds, look)

    def expect(self, session_id: str, seconds: float) -> None:
        """End the session if nobody has come for it in so many seconds; `attended` calls it off."""
        self._end_in(session_id, _Timer.ATTENDANCE, seconds, ReleaseReason.CREATION_TIMEOUT)

    def attended(self, session_id: str) -> None:
        """Somebody is there for the session."""
        self._clear(session_id, _Timer.ATTENDANCE)

    def forget(self, session_id: str) -> None:
        """Watch the session no more."""
        for kind in _Timer:
            self._clear(session_id, kind)

    def _end_in(self, session_id: str, kind: _Timer, seconds: float, reason: ReleaseReason) -> None:
        self._set(session_id, kind, seconds, lambda name: self._ended(name, reason))

    def _set(
        self, session_id: str, kind: _Timer, seconds: float, then: Callable[[str], None]
    ) -> None:
        def over() -> None:
            self._timers.pop((session_id, kind), None)
            then(session_id)

        self._clear(session_id, kind)
        loop = asyncio.get_running_loop()
        self._timers[session_id, kind] = loop.call_later(seconds, over)

    def _clear(self, session_id: str, kind: _Timer) -> None:
        timer = self._timers.pop((session_id, kind), None)
        if timer is not None:
            timer.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                await self._reconcile()
            except Exception:
                # The next round may find it mended; to stop reconciling would hide every later one.
                log.exception("reconciling failed")


class Leases:
    """Who is connected. A lease without a connection is lost after *grace* seconds.

    A lease belongs to a project, as its sessions do. Several sockets may hold the same one,
    as while a client reconnects before the kernel has noticed that its old socket is dead.
    """

    def __init__(self, lost: Callable[[str, str], None], *, grace: float) -> None:
        self._lost = lost
        self._grace = grace
        self._sockets: dict[tuple[str, str], int] = {}
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._closed = False

    def connected(self, project: str, lease_id: str) -> None:
        """A socket holds the lease."""
        key = (project, lease_id)
        self._sockets[key] = self._sockets.get(key, 0) + 1
        self._stop_timer(key)

    def disconnected(self, project: str, lease_id: str) -> None:
        """A socket let the lease go; the last one starts the grace."""
        key = (project, lease_id)
        self._sockets[key] -= 1
        if self._sockets[key] == 0:
            del self._sockets[key]
            self.hold(project, lease_id)

    def hold(self, project: str, lease_id: str) -> None:
        """A session depends on the lease: if no socket holds it, its grace begins now."""
        key = (project, lease_id)
        if key not in self._sockets and key not in self._timers and not self._closed:
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(self._grace, self._over, key)

    def close(self) -> None:
        """Forget every lease without ending its sessions; none is lost any more."""
        self._closed = True
        for key in list(self._timers):
            self._stop_timer(key)

    def _over(self, key: tuple[str, str]) -> None:
        self._timers.pop(key, None)
        self._lost(*key)

    def _stop_timer(self, key: tuple[str, str]) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
