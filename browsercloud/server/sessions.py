"""The sessions that this server runs: the only code that changes a session's status.

A session is in the registry from the moment its create arrives until its close begins. Everything
that ends one, whoever asks, comes through `Sessions.close`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import attrs

from browsercloud._aio import close_all, join, stop_task
from browsercloud.engines.base import BrowserHandle, Engine
from browsercloud.errors import (
    Conflict,
    NoCapacity,
    ServiceError,
    SessionEnded,
)
from browsercloud.models import (
    BrowserExit,
    CreateRequest,
    Released,
    ReleaseReason,
    Seconds,
    Session,
    SessionFailure,
    SessionOptions,
    SessionStatus,
)
from browsercloud.server.active import (
    ActiveSession,
    code_of,
    launch_problem,
    not_found,
    raise_not_started,
    shutting_down,
)
from browsercloud.server.reaper import RECONCILE_EVERY, Leases, Reaper
from browsercloud.server.records import at_this_moment, browser_gone, lost, now
from browsercloud.stores.base import Query, Store
from browsercloud.wire import invalid

log = logging.getLogger(__name__)

CREATE_WAIT = 50.0
"""How long one create call waits for its browser, in seconds (wire.md 3)."""

STOP_GRACE = 3.0
"""How long a browser may take to leave by itself, in seconds."""

KEEP_ENDED = 7 * 24 * 3600.0
"""How long the records of ended sessions are kept, in seconds."""

_FAILED = (ReleaseReason.STARTUP_FAILED, ReleaseReason.BROWSER_CRASHED)


class Sessions:
    """Creates, finds, extends and ends sessions. Lives on one event loop."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        *,
        lease_grace: float = 10.0,
        keep_ended: float = KEEP_ENDED,
        regularly: float = RECONCILE_EVERY,
        admit: Callable[[str, int], None] = lambda project, active: None,
        create_wait: float = CREATE_WAIT,
        stop_grace: float = STOP_GRACE,
    ) -> None:
        self._engine = engine
        self._store = store
        self._keep_ended = keep_ended
        self._admit = admit
        self._create_wait = create_wait
        self._stop_grace = stop_grace
        self._active: dict[str, ActiveSession] = {}
        self._closing: dict[str, asyncio.Task[SessionFailure | None]] = {}
        self._shutting_down = False
        self.leases = Leases(self._lease_lost, grace=lease_grace)
        self._reaper = Reaper(self._expired, self._look_after, every=regularly)

    async def open(self) -> None:
        """Bring store and engine into agreement, and watch from now on."""
        await self.reconcile()
        self._reaper.open()

    async def close_down(self) -> None:
        """Refuse new sessions and end every one with reason `shutdown`. Safe to call twice."""
        self._shutting_down = True
        self.leases.close()
        for session_id in list(self._active):
            self._begin_close(session_id, ReleaseReason.SHUTDOWN)
        await close_all([self._reaper.close, self._wait_for_closing])

    async def create(
        self, project: str, request: CreateRequest, *, wait: bool = True
    ) -> tuple[Session, bool]:
        """Start a session, or find the one that lives under this id with the same options.

        Returns its record and whether this call made it. Without *wait* it returns at once, with a
        session that is still starting. Raises `Conflict` (the id is in use with other options, has
        ended, or was released before), `LaunchFailed`, `BrowserNotFound`, `NoCapacity` (the project
        has reached a limit; or not live within 50 s: asking again with the same id goes on
        waiting), or `ServiceError` 503.

        The browser starts in a task of its own: cancelling this call leaves the session as it is,
        to be released by its id.
        """
        if self._shutting_down:
            raise shutting_down()
        active, made = self._join_or_begin(project, request)
        if wait:
            await self._until_live(active)
        else:
            await self._until_admitted(active)
        return at_this_moment(active.session), made

    def live(self, session_id: str) -> ActiveSession | None:
        """The session in the registry, whatever its project; `None` when its close has begun."""
        return self._active.get(session_id)

    async def get(self, project: str, session_id: str) -> Session:
        """The record, ended ones too. Raises `SessionNotFound`, also for another project's."""
        row = await self._store.get(session_id)
        if row is None or row.project != project:
            raise not_found(session_id)
        return at_this_moment(row.session)

    async def list(self, query: Query) -> tuple[Sequence[Session], int]:
        """One page of records, newest first, and how many match in all."""
        try:
            rows, total = await self._store.list(query)
        except KeyError:
            raise invalid([("cursorId", "no session of yours has this id")]) from None
        return [at_this_moment(row.session) for row in rows], total

    async def extend(self, project: str, session_id: str, timeout: float) -> Session:
        """Let the session live *timeout* seconds from now.

        Raises `SessionNotFound`, `SessionEnded`, `InvalidRequest` for a time out of range, and
        `Conflict` while it is still starting.
        """
        active = self._active.get(session_id)
        if active is None or active.project != project:
            session = await self.get(project, session_id)
            raise SessionEnded(
                f"session {session_id} has ended: {session.release_reason}",
                reason=session.release_reason,
                session=session,
            )
        if active.session.status is not SessionStatus.LIVE:
            raise Conflict(f"session {session_id} is still starting; extend it when it is live")
        life = SessionOptions(timeout=Seconds(timeout)).timeout
        expires = now() + timedelta(seconds=life)
        active.session = attrs.evolve(active.session, timeout=life, expires_at=expires)
        self._reaper.expire(active.id, life)
        await self._store.put(active.row())
        return at_this_moment(active.session)

    async def release(self, project: str, session_id: str) -> Released:
        """End the session and return when all of it is gone.

        An id never seen leaves a tombstone, so that a create which arrives later is refused, and
        raises `SessionNotFound`.
        """
        while True:
            active = self._active.get(session_id)
            if active is not None and active.project == project:
                return await self._release_active(active)
            row = await self._store.get(session_id)
            if row is not None and row.project == project:
                return await self._already_ended(session_id)
            if row is not None:
                raise not_found(session_id)
            await self._store.bury(project, session_id)
            # A create may have come in while the tombstone was written; it looked before it stood.
            late = self._active.get(session_id)
            if late is None or late.project != project:
                raise not_found(session_id)

    async def release_all(self, project: str) -> int:
        """End every session of the project; return how many there were."""
        mine = [active.id for active in self._active.values() if active.project == project]
        tasks = [self._begin_close(session_id, ReleaseReason.USER_REQUESTED) for session_id in mine]
        await asyncio.gather(*(join(task) for task in tasks))
        return len(tasks)

    async def close(
        self, session_id: str, reason: ReleaseReason, failure: SessionFailure | None = None
    ) -> None:
        """End a session, for whatever reason: the one way out.

        It leaves the registry before anything is awaited; its parts are closed in the reverse order
        of opening, each failure is recorded and does not stop the rest. A second call waits for the
        first. Being cancelled does not stop the close.
        """
        await join(self._begin_close(session_id, reason, failure))

    async def reconcile(self) -> None:
        """Compare registry, engine and store, and repair each side. Safe at any moment."""
        for active in list(self._active.values()):
            if active.handle is None or active.session.status is not SessionStatus.LIVE:
                continue
            ended = await self._engine.poll(active.handle)
            if ended is not None:
                await self.close(active.id, *browser_gone(ended))
        for session_id, handle in list(self._engine.running().items()):
            if not self._known(session_id):
                log.warning("session %s: stopping a browser that nobody owns", session_id)
                try:
                    await self._engine.stop(handle, grace=0)
                except OSError as error:
                    log.error("session %s: %s; trying again later", session_id, error)
        for row in await self._store.unended():
            if self._known(row.session.id):
                continue
            # Looked at again: it may have ended in order while the list was read.
            now_stored = await self._store.get(row.session.id)
            if now_stored is not None and not now_stored.session.status.ended:
                await self._store.put(lost(now_stored))

    async def _look_after(self) -> None:
        """What the reaper does regularly."""
        await self.reconcile()
        await self._store.prune(now() - timedelta(seconds=self._keep_ended))

    # ------------------------------------------------------------------ starting

    def _join_or_begin(self, project: str, request: CreateRequest) -> tuple[ActiveSession, bool]:
        # No await in here: of two creates at the same moment one begins and the other joins.
        active = self._active.get(request.session_id)
        if active is None and request.session_id in self._closing:
            raise Conflict(f"session {request.session_id} is ending; choose a new sessionId")
        if active is None:
            mine = sum(other.project == project for other in self._active.values())
            self._admit(project, mine)
            active = ActiveSession(project, request)
            self._active[active.id] = active
            active.starting = asyncio.create_task(self._start(active), name=f"start {active.id}")
            return active, True
        if active.project != project or active.request != request:
            raise Conflict(
                f"session {request.session_id} exists with other options; choose another sessionId"
            )
        return active, False

    async def _start(self, active: ActiveSession) -> None:
        """Take the session from *starting* to *live*. Records its problem, never raises it."""
        try:
            await self._refuse_used_id(active)
            active.recorded = True
            await self._store.put(active.row())  # before the launch: a crash leaves a trace
            active.admitted.set()
            active.handle = await self._engine.start(active.id, active.request.options)
            await self._becomes_live(active, active.handle)
        except Conflict as error:
            active.problem = error
            self._active.pop(active.id, None)
            active.ended.set_result(ReleaseReason.STARTUP_FAILED)
        except Exception as error:
            active.problem = launch_problem(error)
            failure = SessionFailure(code=code_of(active.problem), message=str(active.problem))
            self._begin_close(active.id, ReleaseReason.STARTUP_FAILED, failure)

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

    async def _becomes_live(self, active: ActiveSession, handle: BrowserHandle) -> None:
        started = now()
        life = active.request.options.timeout
        active.session = attrs.evolve(
            active.session,
            status=SessionStatus.LIVE,
            started_at=started,
            expires_at=started + timedelta(seconds=life),
            user_agent=handle.user_agent,
        )
        self._reaper.expire(active.id, life)
        handle.exited.add_done_callback(lambda done: self._browser_exited(active.id, done.result()))
        if active.request.lease_id is not None:
            self.leases.hold(active.project, active.request.lease_id)
        await self._store.put(active.row())

    async def _until_admitted(self, active: ActiveSession) -> None:
        """Return when the start has got as far as the row; raise if it will not."""
        if active.starting is None:
            raise RuntimeError(f"session {active.id} is registered and was never begun")
        admitted = asyncio.create_task(active.admitted.wait())
        await asyncio.wait({admitted, active.starting}, return_when=asyncio.FIRST_COMPLETED)
        admitted.cancel()
        if not active.admitted.is_set():
            raise_not_started(active)

    async def _until_live(self, active: ActiveSession) -> None:
        if active.starting is None:
            raise RuntimeError(f"session {active.id} is registered and was never begun")
        done, _ = await asyncio.wait({active.starting}, timeout=self._create_wait)
        if not done:
            raise NoCapacity(
                f"session {active.id} is still starting; ask again with the same sessionId",
                retry_after=1,
            )
        if active.problem is None and active.session.status is SessionStatus.LIVE:
            return
        closing = self._closing.get(active.id)
        if closing is not None:
            await join(closing)
        raise_not_started(active)

    # ------------------------------------------------------------------ ending

    def _begin_close(
        self, session_id: str, reason: ReleaseReason, failure: SessionFailure | None = None
    ) -> asyncio.Task[SessionFailure | None]:
        active = self._active.pop(session_id, None)
        if active is None:
            return self._closing.get(session_id) or asyncio.create_task(_nothing())
        task = asyncio.create_task(self._close(active, reason, failure), name=f"close {session_id}")
        self._closing[session_id] = task
        task.add_done_callback(lambda _: self._closed(session_id, task))
        return task

    def _closed(self, session_id: str, task: asyncio.Task[SessionFailure | None]) -> None:
        if self._closing.get(session_id) is task:
            del self._closing[session_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("session %s: its end could not be recorded", session_id, exc_info=error)

    async def _close(
        self, active: ActiveSession, reason: ReleaseReason, failure: SessionFailure | None
    ) -> SessionFailure | None:
        log.info("session %s: releasing (%s)", active.id, reason)
        active.session = attrs.evolve(
            active.session, status=SessionStatus.RELEASING, release_reason=reason, error=failure
        )
        crashed = reason is ReleaseReason.BROWSER_CRASHED
        closers = [
            lambda: self._stop_browser(active, grace=0 if crashed else self._stop_grace),
            lambda: self._record(active),
            lambda: self._let_go(active, reason),
        ]
        left: SessionFailure | None = None
        try:
            await close_all(closers)
        except Exception as error:
            log.exception("session %s: closing failed", active.id)
            left = SessionFailure(code="cleanup_failed", message=f"something is left over: {error}")
        active.session = attrs.evolve(
            active.session,
            status=SessionStatus.FAILED if left or reason in _FAILED else SessionStatus.RELEASED,
            ended_at=now(),
            error=failure or left,
        )
        await self._record(active)
        return left

    async def _let_go(self, active: ActiveSession, reason: ReleaseReason) -> None:
        """Stop what watches the session, and tell whoever holds something open for it."""
        self._reaper.forget(active.id)
        if not active.ended.done():
            active.ended.set_result(reason)
        await stop_task(active.starting)

    async def _stop_browser(self, active: ActiveSession, *, grace: float) -> None:
        if active.handle is not None:
            await self._engine.stop(active.handle, grace=grace)

    async def _record(self, active: ActiveSession) -> None:
        if active.recorded:
            await self._store.put(active.row())
        else:
            # Released before its row was written: the id must not be used by a late create either.
            await self._store.bury(active.project, active.id)

    async def _wait_for_closing(self) -> None:
        while self._closing:
            await asyncio.wait(set(self._closing.values()))

    async def _release_active(self, active: ActiveSession) -> Released:
        left = await join(self._begin_close(active.id, ReleaseReason.USER_REQUESTED))
        return Released(
            success=left is None,
            message="Session released" if left is None else left.message,
            release_reason=active.session.release_reason,
        )

    async def _already_ended(self, session_id: str) -> Released:
        closing = self._closing.get(session_id)
        left = await join(closing) if closing is not None else None
        row = await self._store.get(session_id)
        reason = row.session.release_reason if row is not None else None
        return Released(
            success=left is None,
            message=f"Session had already ended: {reason}" if left is None else left.message,
            release_reason=reason,
            already_ended=True,
        )

    def _browser_exited(self, session_id: str, ended: BrowserExit) -> None:
        self._end(session_id, *browser_gone(ended))

    def _expired(self, session_id: str) -> None:
        self._end(session_id, ReleaseReason.TIMEOUT)

    def _lease_lost(self, project: str, lease_id: str) -> None:
        for active in list(self._active.values()):
            if active.project == project and active.request.lease_id == lease_id:
                self._end(active.id, ReleaseReason.LEASE_LOST)

    def _end(
        self, session_id: str, reason: ReleaseReason, failure: SessionFailure | None = None
    ) -> None:
        """Begin a close that nobody waits for."""
        if session_id in self._active:
            self._begin_close(session_id, reason, failure)

    def _known(self, session_id: str) -> bool:
        return session_id in self._active or session_id in self._closing

    # ------------------------------------------------------------------ telling

    def counts(self) -> Mapping[str, int]:
        """How many sessions that have not ended are in each status."""
        return Counter(
            [active.session.status for active in self._active.values()]
            + [SessionStatus.RELEASING] * len(self._closing)
        )

    def refusal(self) -> ServiceError | None:
        """What a create would be told that no session can be had at all now; `None` if it can."""
        return shutting_down() if self._shutting_down else None


async def _nothing() -> None:
    """What is left to close of a session that nobody knows."""
