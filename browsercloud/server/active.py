"""A session that has not ended, and why one is refused or does not start."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NoReturn

import attrs

from browsercloud._aio import join
from browsercloud.cdp.capture import PageUrls
from browsercloud.cdp.input import Mouse
from browsercloud.cdp.timeline import PageEvent, Timeline
from browsercloud.engines.base import BrowserHandle
from browsercloud.errors import (
    BrowserCloudError,
    BrowserNotFound,
    Conflict,
    LaunchFailed,
    ServiceError,
    SessionEnded,
    SessionNotFound,
)
from browsercloud.models import CreateRequest, ReleaseReason, Session, SessionFailure, SessionStatus
from browsercloud.options import Record
from browsercloud.server.admission import Ticket
from browsercloud.server.journal import Journal
from browsercloud.server.records import first_record
from browsercloud.server.seeds import Seeds
from browsercloud.server.traffic import Traffic
from browsercloud.stealth import disguised
from browsercloud.stores.base import SessionRow

log = logging.getLogger(__name__)

REACH_PAUSE = 1.0
HANG_UP_CHECK = 1.0
"""How often a create that waits looks whether its client is still there, in seconds."""


class ActiveSession:
    """A session that has not ended: its record, and what runs for it.

    *session* is the record of one that has begun under an earlier server.
    """

    def __init__(
        self,
        project: str,
        request: CreateRequest,
        journal: Journal,
        session: Session | None = None,
    ) -> None:
        self.project = project
        self.request = request
        self.session = session or first_record(request)
        self._journal = journal
        self.ticket: Ticket | None = None
        """Its place in the line, or its slot."""

        self.handle: BrowserHandle | None = None
        self.pages = PageUrls()
        self._timeline: Timeline | None = None
        self._reached: dict[str, float] = {}
        self.mouse = Mouse()
        given = request.options.session_context
        self.seeds = Seeds(given.session_storage if given is not None else {})
        self.traffic = Traffic(last=asyncio.get_running_loop().time())
        self.ended: asyncio.Future[ReleaseReason] = asyncio.get_running_loop().create_future()
        """Done when its close begins. Whoever holds something open for the session lets go then."""

        self.starting: asyncio.Task[None] | None = None
        """Takes it from its create to *live*; `None` for one that an earlier server started."""

        self.closing: asyncio.Task[SessionFailure | None] | None = None
        self.parting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when its browser, if it has one, is told to go: the rest goes on behind."""

        self.problem: BrowserCloudError | None = None
        """Why it could not be started, once that is known."""

        self.admitted = asyncio.Event()
        """Set when its id is known to be free and its row is written."""

        self.recorded = False
        """Whether the row in the store is ours to write."""

        self.attending = 0
        """How many creates wait for it at this moment."""

        self.wanted = False
        """Whether somebody has been given its record, so that it need not be waited for."""

    @property
    def id(self) -> str:
        """The session's id."""
        return self.session.id

    @property
    def claim(self) -> Ticket:
        """Its ticket. Every session in the registry has one."""
        if self.ticket is None:
            raise RuntimeError(f"session {self.id} is registered without a ticket")
        return self.ticket

    def watch(self, endpoint: str) -> None:
        """See which pages the browser has open, and what happens there if that is to be kept."""
        options = self.request.options
        if options.record is Record.EVENTS and options.custom_websocket_url is None:
            note = lambda kind, details: self.note(kind, **details)  # noqa: E731
            self._timeline = Timeline(note, console=not disguised(options.stealth))
            self.pages.open(endpoint, self._timeline.begin)
        else:
            self.pages.open(endpoint)

    def reached_in(self, how: str) -> None:
        """Somebody has; at most once a second is kept of each kind, and never what was typed."""
        now = asyncio.get_running_loop().time()
        if self._timeline is not None and now > self._reached.get(how, 0) + REACH_PAUSE:
            self._reached[how] = now
            self.note(PageEvent.INPUT, kind=how)

    async def close_timeline(self) -> None:
        """Keep nothing more of what happens in the pages. Safe to call twice."""
        if self._timeline is not None:
            self._timeline.close()

    @property
    def end(self) -> asyncio.Task[SessionFailure | None]:
        """Its close, which has begun."""
        if self.closing is None:
            raise RuntimeError(f"the close of session {self.id} has not begun")
        return self.closing

    async def until_ended(self, *, wait: bool) -> SessionFailure | None:
        """Return what is left over when all of it is gone; without *wait* once it is parting."""
        if not wait:
            either: set[asyncio.Future[Any]] = {self.parting, self.end}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return await join(self.end) if wait or self.end.done() else None

    def note(self, kind: str, /, **details: object) -> None:
        """Add an event to its journal.

        Without a row of its own it has none: the id may be an ended session's, even another
        project's.
        """
        if not self.recorded:
            return
        self._journal.note(self.id, kind, **details)
        count = self._journal.count(self.id)
        self.session = attrs.evolve(self.session, event_count=count)

    async def until_admitted(self) -> None:
        """Return when its start has got as far as the row; raise if it will not."""
        if self.starting is None:
            return
        admitted = asyncio.create_task(self.admitted.wait())
        try:
            await asyncio.wait({admitted, self.starting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            admitted.cancel()
        if not self.admitted.is_set():
            raise_not_started(self)

    async def until_live(self, patience: float, hung_up: Callable[[], bool]) -> bool:
        """Wait so many seconds for it to become live; whether it has. Raises if it will not.

        Raises `ConnectionResetError` once the caller has *hung_up*.
        """
        if self.starting is None:
            return True
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        while not self.starting.done():
            left = end - loop.time()
            if left <= 0:
                return False
            await asyncio.wait({self.starting}, timeout=min(left, HANG_UP_CHECK))
            if hung_up():
                raise ConnectionResetError("the client has gone")
        if self.problem is None and self.session.status is SessionStatus.LIVE:
            return True
        if self.closing is not None:
            await join(self.closing)
        return raise_not_started(self)

    def row(self) -> SessionRow:
        """What the store keeps of it."""
        return SessionRow(
            project=self.project,
            session=self.session,
            request=self.request,
            engine_state=self.handle.state if self.handle is not None else None,
        )


def shutting_down() -> ServiceError:
    """The answer to whoever asks for something new while the server ends."""
    return ServiceError(
        "the server is shutting down", status=503, code="shutting_down", retry_after=5
    )


def not_found(session_id: str) -> SessionNotFound:
    """The answer for an id that the caller's project does not have."""
    return SessionNotFound(f"no session {session_id}")


def raise_not_started(active: ActiveSession) -> NoReturn:
    """Tell why the session did not become live."""
    if active.problem is not None:
        raise active.problem
    reason = active.session.release_reason
    if reason is ReleaseReason.USER_REQUESTED:
        raise Conflict(f"session {active.id} was released while it was starting")
    if reason is ReleaseReason.SHUTDOWN:
        raise shutting_down()
    raise SessionEnded(
        f"session {active.id} ended before it was live: {reason}",
        reason=reason,
        session=active.session,
    )


def launch_problem(error: Exception) -> BrowserCloudError:
    """What the caller is told of a start that failed. What nobody foresaw is logged."""
    if isinstance(error, ServiceError | BrowserNotFound):
        return error
    log.error("a browser could not be started: %s", error, exc_info=error)
    return LaunchFailed("the browser could not be started; the server's log says more")


def code_of(error: BrowserCloudError) -> str:
    """The code that goes into the record."""
    return error.code if isinstance(error, ServiceError) else LaunchFailed.default_code
