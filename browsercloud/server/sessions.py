"""The sessions that this server runs: which there are, and what may be asked of them.

A session is in the registry from the moment its create arrives until its close begins. Everything
that ends one, whoever asks, comes through `Sessions.close`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import attrs

from browsercloud._aio import close_all, join
from browsercloud.engines.base import BrowserHandle, Engine
from browsercloud.errors import Conflict, NoCapacity, ServiceError, SessionEnded
from browsercloud.models import (
    Capacity,
    CreateRequest,
    Released,
    ReleaseReason,
    ServerCapacity,
    Session,
    SessionFailure,
    SessionStatus,
)
from browsercloud.options import Seconds, SessionOptions
from browsercloud.server import reconcile
from browsercloud.server.active import (
    ActiveSession,
    not_found,
    shutting_down,
)
from browsercloud.server.admission import Admission
from browsercloud.server.journal import EventType, Journal
from browsercloud.server.life import Life, Patience
from browsercloud.server.metrics import Metrics
from browsercloud.server.reaper import Leases, Reaper
from browsercloud.server.records import at_this_moment, now, unclean
from browsercloud.stores.base import Query, SessionRow, Store
from browsercloud.wire import invalid

log = logging.getLogger(__name__)


class Sessions:
    """Creates, finds, extends and ends sessions. Lives on one event loop.

    *max_sessions* is how many may run at a time; `None` asks the engine.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        *,
        admission: Admission,
        journal: Journal,
        metrics: Metrics,
        max_sessions: int | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._engine = engine
        self._store = store
        self.admission = admission
        self._journal = journal
        self._metrics = metrics
        self._max_sessions = max_sessions
        self._active: dict[str, ActiveSession] = {}
        self._closing: dict[str, ActiveSession] = {}
        self._shutting_down = False
        patience = patience or Patience()
        self.leases = Leases(self._lease_lost, grace=patience.lease_grace)
        self._reaper = Reaper(self._end, self._warn, self._look_after, every=patience.regularly)
        self.life = Life(
            engine,
            store,
            admission=admission,
            journal=journal,
            metrics=metrics,
            leases=self.leases,
            reaper=self._reaper,
            patience=patience,
            end=self._end,
            refused=self._refused,
        )

    def refusal(self) -> ServiceError | None:
        """What every create is told while the server drains or shuts down; else `None`."""
        return shutting_down() if self._shutting_down else None

    async def open(self) -> None:
        """Take over what a killed predecessor has left, and watch from now on."""
        await reconcile.take_over(self, self._engine, self._store)
        self.admission.open(self._capacity())  # only now: whoever runs already comes first
        self._reaper.open()

    async def drain(self) -> None:
        """Refuse new sessions, those in the line too, and return when every other one has ended."""
        self._shutting_down = True
        for active in list(self._active.values()):
            if active.session.status is SessionStatus.QUEUED:
                self._begin_close(active.id, ReleaseReason.SHUTDOWN)
        while self._active or self._closing:
            going: set[asyncio.Future[Any]] = {active.ended for active in self._active.values()}
            await asyncio.wait(going | self._ends())

    async def close_down(self, *, at_once: bool = False) -> None:
        """Refuse new sessions and end every one with reason `shutdown`. Safe to call twice.

        *at_once* kills browsers, those too that have been told to go and are on their way.
        """
        self._shutting_down = True
        if at_once:
            self.life.patience = attrs.evolve(self.life.patience, stop_grace=0)
        self.leases.close()
        for session_id in list(self._active):
            self._begin_close(session_id, ReleaseReason.SHUTDOWN)
        closers = [self._reaper.close, self._wait_for_closing]
        await close_all([*closers, self._kill_parting] if at_once else closers)

    async def create(
        self,
        project: str,
        request: CreateRequest,
        *,
        wait: bool = True,
        hung_up: Callable[[], bool] = lambda: False,
    ) -> tuple[Session, bool]:
        """Start a session, or find the one that lives under this id with the same options.

        Returns its record and whether this call made it. Without *wait* it returns at once, with a
        session that waits for its turn or is still starting. *hung_up* tells whether the caller has
        gone: a place in the line that nobody asks for is given up after a while.

        Raises `InvalidRequest` (the engine does not offer it), `Conflict` (the id is in use with
        other options, has ended, or was released before), `LaunchFailed`, `BrowserNotFound`,
        `NoCapacity` (the line is full, or the project begins too many; or not live within 50 s:
        asking again with the same id goes on waiting), `ServiceError` 503, or
        `ConnectionResetError` once the caller has gone.

        The browser starts in a task of its own: cancelling this call leaves the session as it is,
        to be released by its id.
        """
        if self._shutting_down:
            raise shutting_down()
        if found := list(self._engine.refuses(request.options)):
            raise invalid(found)
        active, made = self._join_or_begin(project, request)
        if not wait:
            active.wanted = True
            await active.until_admitted()
        else:
            with self._attending(active):
                if not await active.until_live(self.life.patience.create_wait, hung_up):
                    raise self._not_yet(active)
                active.wanted = not hung_up()
        return self._shown(active), made

    def live(self, session_id: str) -> ActiveSession | None:
        """The session in the registry, whatever its project; `None` when its close has begun."""
        return self._active.get(session_id)

    def room(self, project: str) -> ServerCapacity:
        """How much room there is, as the project may know it."""
        return self.admission.seen_by(project)

    def counts(self) -> Mapping[str, int]:
        """How many sessions have each status, those that are ending included."""
        found = Counter(str(active.session.status) for active in self._active.values())
        found[SessionStatus.RELEASING] += len(self._closing)
        return {str(status): found[status] for status in SessionStatus if not status.ended}

    async def get(self, project: str, session_id: str) -> Session:
        """The record, ended ones too. Raises `SessionNotFound`, also for another project's."""
        active = self._active.get(session_id) or self._closing.get(session_id)
        if active is not None and active.project == project and active.recorded:
            self._seen(active)
            return self._shown(active)
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
        await self.life.extend(active, life)
        return self._shown(active)

    async def release(self, project: str, session_id: str, *, wait: bool = True) -> Released:
        """End the session and return when all of it is gone.

        Without *wait* it returns when the session has left the registry and its browser is told to
        go: what cannot be removed then is in the record only.

        An id never seen leaves a tombstone, so that a create which arrives later is refused, and
        raises `SessionNotFound`.
        """
        while True:
            active = self._active.get(session_id)
            if active is not None and active.project == project:
                return await self._release_active(active, wait=wait)
            row = await self._store.get(session_id)
            if row is not None and row.project == project:
                return await self._already_ended(session_id, wait=wait)
            if row is not None:
                raise not_found(session_id)
            await self._store.bury(project, session_id)
            # A create may have come in while the tombstone was written; it looked before it stood.
            late = self._active.get(session_id)
            if late is None or late.project != project:
                raise not_found(session_id)

    async def release_all(self, project: str, *, wait: bool = True) -> int:
        """End every session of the project; return how many there were. *wait* as for `release`."""
        mine = [active for active in self._active.values() if active.project == project]
        for active in mine:
            self._begin_close(active.id, ReleaseReason.USER_REQUESTED)
        await asyncio.gather(*(active.until_ended(wait=wait) for active in mine))
        return len(mine)

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
        await reconcile.repair(self, self._engine, self._store)

    def _capacity(self) -> Capacity:
        if self._max_sessions is None:
            return self._engine.capacity()
        return Capacity(sessions=self._max_sessions, reason="set by --max-sessions")

    async def _look_after(self) -> None:
        """What the reaper does regularly."""
        await self.reconcile()
        await self._store.prune(now() - timedelta(seconds=self.life.patience.keep_ended))

    # ------------------------------------------------------------------ for `reconcile`

    def known(self, session_id: str) -> bool:
        """Whether the session is in the registry, or its close has begun and not ended."""
        return session_id in self._active or session_id in self._closing

    def running(self) -> Sequence[ActiveSession]:
        """The sessions that are live."""
        live = SessionStatus.LIVE
        return [active for active in self._active.values() if active.session.status is live]

    async def adopt(self, row: SessionRow, handle: BrowserHandle) -> None:
        """Go on with a session of a predecessor whose browser still runs."""
        active = await self._resume(row)
        active.wanted = True
        active.admitted.set()
        active.ticket = self.admission.occupy(row.project, active.id)
        self._active[active.id] = active
        await self.life.adopt(active, handle)

    async def wait_again(self, row: SessionRow) -> None:
        """Put a session of a predecessor that had no browser yet back into the line.

        Its client has to come again.
        """
        active = await self._resume(row)
        active.ticket = self.admission.rejoin(row.project, active.id)
        self._active[active.id] = active
        self._reaper.expect(active.id, self.life.patience.attendance)
        self._begin(active)

    async def give_up(self, row: SessionRow) -> None:
        """Record the end of a session that nobody runs."""
        await self.life.give_up(await self._resume(row))

    async def _resume(self, row: SessionRow) -> ActiveSession:
        active = ActiveSession(row.project, row.request, self._journal, row.session)
        active.recorded = True
        await self._journal.resume(active.id)
        return active

    # ------------------------------------------------------------------ starting

    def _join_or_begin(self, project: str, request: CreateRequest) -> tuple[ActiveSession, bool]:
        # No await in here: of two creates at the same moment one begins and the other joins.
        active = self._active.get(request.session_id)
        if active is None and request.session_id in self._closing:
            raise Conflict(f"session {request.session_id} is ending; choose a new sessionId")
        if active is None:
            try:
                ticket = self.admission.enter(project, request.session_id)
            except NoCapacity as error:
                self._metrics.refused(error.code)
                raise
            active = ActiveSession(project, request, self._journal)
            active.ticket = ticket
            self._active[active.id] = active
            self._begin(active)
            return active, True
        if active.project != project or active.request != request:
            raise Conflict(
                f"session {request.session_id} exists with other options; choose another sessionId"
            )
        return active, False

    def _begin(self, active: ActiveSession) -> None:
        active.starting = asyncio.create_task(self.life.start(active), name=f"start {active.id}")

    def _not_yet(self, active: ActiveSession) -> NoCapacity:
        if not active.claim.granted.done():
            return self.admission.wait_longer(active.claim)
        return NoCapacity(
            f"session {active.id} is still starting; ask again with the same sessionId",
            retry_after=1,
        )

    @contextmanager
    def _attending(self, active: ActiveSession) -> Iterator[None]:
        """Somebody waits for the session; when nobody does any more, it is kept for a while."""
        active.attending += 1
        self._reaper.attended(active.id)
        try:
            yield
        finally:
            active.attending -= 1
            if not (active.attending or active.wanted) and active.id in self._active:
                self._reaper.expect(active.id, self.life.patience.attendance)

    def _seen(self, active: ActiveSession) -> None:
        """Its owner has looked at the session: it is wanted, or at least waited for."""
        if active.closing is not None:
            return
        if active.session.status is SessionStatus.LIVE:
            active.wanted = True
            self._reaper.attended(active.id)
        elif not (active.attending or active.wanted):
            self._reaper.expect(active.id, self.life.patience.attendance)

    # ------------------------------------------------------------------ ending

    def _begin_close(
        self, session_id: str, reason: ReleaseReason, failure: SessionFailure | None = None
    ) -> asyncio.Task[SessionFailure | None]:
        active = self._active.pop(session_id, None)
        if active is None:
            ending = self._closing.get(session_id)
            return asyncio.create_task(_nothing()) if ending is None else ending.end
        work = self.life.close(active, reason, failure)
        task = asyncio.create_task(work, name=f"close {session_id}")
        active.closing = task
        self._closing[session_id] = active
        task.add_done_callback(lambda _: self._closed(active, task))
        return task

    def _closed(self, active: ActiveSession, task: asyncio.Task[SessionFailure | None]) -> None:
        if self._closing.get(active.id) is active:
            del self._closing[active.id]
        self.admission.leave(active.claim)
        self._journal.forget(active.id)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("session %s: its end could not be recorded", active.id, exc_info=error)

    async def _wait_for_closing(self) -> None:
        while self._closing:
            await asyncio.wait(self._ends())

    async def _kill_parting(self) -> None:
        handles = [active.handle for active in self._closing.values() if active.handle is not None]
        await asyncio.gather(*(self._engine.stop(handle, grace=0) for handle in handles))

    def _ends(self) -> set[asyncio.Future[Any]]:
        return {active.end for active in self._closing.values()}

    async def _release_active(self, active: ActiveSession, *, wait: bool) -> Released:
        self._begin_close(active.id, ReleaseReason.USER_REQUESTED)
        left = await active.until_ended(wait=wait)
        return Released(
            success=left is None,
            message="Session released" if left is None else left.message,
            release_reason=active.session.release_reason,
        )

    async def _already_ended(self, session_id: str, *, wait: bool) -> Released:
        closing = self._closing.get(session_id)
        left = await closing.until_ended(wait=wait) if closing is not None else None
        row = await self._store.get(session_id)
        reason = row.session.release_reason if row is not None else None
        if row is not None and unclean(row.session):
            left = row.session.error
        return Released(
            success=left is None,
            message=f"Session had already ended: {reason}" if left is None else left.message,
            release_reason=reason,
            already_ended=True,
        )

    def _warn(self, session_id: str) -> None:
        active = self._active.get(session_id)
        if active is not None:
            active.note(EventType.TIMEOUT_SOON, expires_at=active.session.expires_at)

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

    def _refused(self, active: ActiveSession) -> None:
        self._active.pop(active.id, None)
        self.admission.leave(active.claim)

    def _shown(self, active: ActiveSession) -> Session:
        """The record as it is at this moment, with the place in the line."""
        place = self.admission.place(active.claim)
        return attrs.evolve(at_this_moment(active.session), queue_position=place)


async def _nothing() -> None:
    """What is left to close of a session that nobody knows."""
