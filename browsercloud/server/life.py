"""One session's way: from its create to *live*, and from any moment to its end.

The only code that changes a session's status; `Sessions` decides when it runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

import attrs

from browsercloud._aio import close_all, stop_task
from browsercloud.engines.base import BrowserHandle, Engine
from browsercloud.errors import Conflict, NoCapacity
from browsercloud.models import ReleaseReason, SessionFailure, SessionStatus
from browsercloud.options import Seconds
from browsercloud.server import evidence, records
from browsercloud.server.active import ActiveSession, code_of, launch_problem
from browsercloud.server.admission import Admission
from browsercloud.server.journal import EventType, Journal
from browsercloud.server.logs import about
from browsercloud.server.metrics import Metrics
from browsercloud.server.reaper import RECONCILE_EVERY, Leases, Reaper
from browsercloud.stores.base import Store

log = logging.getLogger(__name__)

CREATE_WAIT = 50.0
"""How long one create call waits for its browser, in seconds (wire.md 3)."""

ATTENDANCE = 31.0
"""How long a place in the line is kept without anybody asking, in seconds (wire.md 3)."""

QUEUE_TIMEOUT = 300.0
"""How long a session may wait in the line, in seconds."""

STOP_GRACE = 3.0
"""How long a browser may take to leave by itself, in seconds."""

KEEP_ENDED = 7 * 24 * 3600.0
"""How long the records of ended sessions are kept, in seconds."""


@attrs.frozen(kw_only=True)
class Patience:
    """How long `Sessions` waits for what, in seconds; see the constants."""

    lease_grace: float = 10.0
    keep_ended: float = KEEP_ENDED
    regularly: float = RECONCILE_EVERY
    create_wait: float = CREATE_WAIT
    queue_timeout: float = QUEUE_TIMEOUT
    attendance: float = ATTENDANCE
    stop_grace: float = STOP_GRACE


class End(Protocol):
    """Begins a session's close, if that has not begun."""

    def __call__(
        self, session_id: str, reason: ReleaseReason, failure: SessionFailure | None = None
    ) -> None:
        """Begin it."""


class Life:
    """What is done for one session at each turn of its life.

    *end* is called when something ends it, *refused* when its id turns out to be used.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        *,
        admission: Admission,
        journal: Journal,
        metrics: Metrics,
        leases: Leases,
        reaper: Reaper,
        patience: Patience,
        end: End,
        refused: Callable[[ActiveSession], None],
    ) -> None:
        self._engine = engine
        self._store = store
        self._admission = admission
        self._journal = journal
        self._metrics = metrics
        self._leases = leases
        self._reaper = reaper
        self.patience = patience
        self._end = end
        self._refused = refused

    async def start(self, active: ActiveSession) -> None:
        """Take the session from its create to *live*. Records its problem, never raises it."""
        with about(session_id=active.id):
            await self._start(active)

    async def _start(self, active: ActiveSession) -> None:
        try:
            if not active.recorded:
                await self._refuse_used_id(active)
            await self._wait_for_turn(active)
            active.session = records.starting(active.session)
            await self._put(active)  # before the launch: a crash leaves a trace
            active.note(EventType.STARTING)
            active.admitted.set()
            handle = await self._engine.start(active.id, active.request.options)
            await self._becomes_live(active, handle)
        except Conflict as error:
            active.problem = error
            self._reaper.forget(active.id)
            self._refused(active)
            active.ended.set_result(ReleaseReason.STARTUP_FAILED)
        except Exception as error:
            active.problem = launch_problem(error)
            waited = active.session.status is SessionStatus.QUEUED
            timed_out = waited and isinstance(error, NoCapacity)
            reason = ReleaseReason.CREATION_TIMEOUT if timed_out else ReleaseReason.STARTUP_FAILED
            failure = SessionFailure(code=code_of(active.problem), message=str(active.problem))
            self._end(active.id, reason, failure)

    async def _refuse_used_id(self, active: ActiveSession) -> None:
        if await self._store.buried(active.project, active.id):
            raise Conflict(f"session {active.id} was released before it was created")
        row = await self._store.get(active.id)
        if row is None:
            return
        if row.project == active.project and row.request == active.request:
            reason = row.session.release_reason or row.session.status
            raise Conflict(
                f"session {active.id} has already ended: {reason}; choose a new sessionId"
            )
        raise Conflict(f"session id {active.id} has been used; choose a new sessionId")

    async def _wait_for_turn(self, active: ActiveSession) -> None:
        ticket = active.claim
        if ticket.granted.done():
            return
        active.session = records.queued(active.session)
        await self._put(active)
        active.note(EventType.QUEUED, place=self._admission.place(ticket))
        active.admitted.set()
        await asyncio.wait({ticket.granted}, timeout=self.patience.queue_timeout)
        if not ticket.granted.done():
            raise self._admission.waited_too_long(ticket, self.patience.queue_timeout)
        self._metrics.waited(asyncio.get_running_loop().time() - ticket.since)

    async def _becomes_live(self, active: ActiveSession, handle: BrowserHandle) -> None:
        active.session = records.live(active.session, handle.user_agent, handle.protocol)
        self._metrics.created(asyncio.get_running_loop().time() - active.claim.since)
        active.note(EventType.LIVE, expires_at=active.session.expires_at)
        self._watch(active, handle, life=active.session.timeout)
        await self._put(active)

    def _watch(self, active: ActiveSession, handle: BrowserHandle, *, life: float) -> None:
        """See to it that the session ends as it should."""
        active.handle = handle
        active.traffic.last = asyncio.get_running_loop().time()
        self._reaper.expire(active.id, life)
        if active.session.idle_timeout is not None:
            self._reaper.end_idle(active.id, active.session.idle_timeout, active.traffic)
        handle.exited.add_done_callback(
            lambda done: self._end(active.id, *records.browser_gone(done.result()))
        )
        if handle.endpoint:
            active.watch(handle.endpoint)
        if active.request.lease_id is not None:
            self._leases.hold(active.project, active.request.lease_id)

    async def extend(self, active: ActiveSession, life: Seconds) -> None:
        """Give it so many seconds from now."""
        active.session = records.extended(active.session, life)
        self._reaper.expire(active.id, life)
        await self._put(active)
        active.note(EventType.EXTENDED, timeout=round(life * 1000))

    async def adopt(self, active: ActiveSession, handle: BrowserHandle) -> None:
        """Go on with one that an earlier server has started."""
        active.note(EventType.RESTORED)
        log.info("session %s: taken over, its browser still runs", active.id)
        self._watch(active, handle, life=records.life_left(active.session))
        await self._put(active)

    async def give_up(self, active: ActiveSession) -> None:
        """Record the end of one that nobody runs."""
        active.session = records.lost(active.session)
        await self._finish(active)
        self._journal.forget(active.id)

    async def close(
        self, active: ActiveSession, reason: ReleaseReason, failure: SessionFailure | None
    ) -> SessionFailure | None:
        """End it; what is left over comes back, if anything is. Every failure is logged.

        Its parts are closed in the reverse order of opening, and each failure does not stop the
        rest.
        """
        with about(session_id=active.id):
            return await self._close(active, reason, failure)

    async def _close(
        self, active: ActiveSession, reason: ReleaseReason, failure: SessionFailure | None
    ) -> SessionFailure | None:
        log.info("session %s: releasing (%s)", active.id, reason)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        active.session = records.releasing(
            active.session, reason, evidence.of(active, reason, failure)
        )
        active.note(EventType.RELEASING, reason=reason)
        grace = 0 if reason in records.CRASHED else self.patience.stop_grace
        closers = [
            active.seeds.close,
            active.close_timeline,
            active.pages.close,  # whoever waits for the browser to be told need not wait for it
            lambda: self._stop_browser(active, grace=grace),
            lambda: evidence.weigh(active, self._engine),
            lambda: self._record(active),
            lambda: self._let_go(active, reason),
        ]
        left: SessionFailure | None = None
        try:
            await close_all(closers)
        except Exception as error:
            log.exception("session %s: closing failed", active.id)
            left = SessionFailure(
                code=records.CLEANUP_FAILED, message=f"something is left over: {error}"
            )
        active.session = records.ended(active.session, left)
        self._metrics.released(reason, loop.time() - begun)
        await self._finish(active)
        return left

    async def _finish(self, active: ActiveSession) -> None:
        """Record how it ended: the event first, so that the record counts it."""
        active.note(
            EventType(f"session.{active.session.status}"), **evidence.details(active.session)
        )
        await self._journal.flush(active.id)
        await self._record(active)

    async def _let_go(self, active: ActiveSession, reason: ReleaseReason) -> None:
        """Stop what watches the session, and tell whoever holds something open for it."""
        self._reaper.forget(active.id)
        if not active.ended.done():
            active.ended.set_result(reason)
        await stop_task(active.starting)

    async def _stop_browser(self, active: ActiveSession, *, grace: float) -> None:
        active.parting.set_result(None)
        if active.handle is not None:
            await self._engine.stop(active.handle, grace=grace)

    async def _put(self, active: ActiveSession) -> None:
        active.recorded = True
        await self._store.put(active.row())

    async def _record(self, active: ActiveSession) -> None:
        if active.recorded:
            await self._store.put(active.row())
        else:
            # Released before its row was written: the id must not be used by a late create either.
            await self._store.bury(active.project, active.id)
