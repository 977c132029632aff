"""A session that has not ended, and why one is refused or does not start."""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

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
from browsercloud.models import CreateRequest, ReleaseReason
from browsercloud.server.records import first_record
from browsercloud.server.traffic import Traffic
from browsercloud.stores.base import SessionRow

log = logging.getLogger(__name__)


class ActiveSession:
    """A session that has not ended: its record, and what runs for it."""

    def __init__(self, project: str, request: CreateRequest) -> None:
        self.project = project
        self.request = request
        self.session = first_record(request)
        self.handle: BrowserHandle | None = None
        self.traffic = Traffic(last=asyncio.get_running_loop().time())
        self.ended: asyncio.Future[ReleaseReason] = asyncio.get_running_loop().create_future()
        """Done when its close begins. Whoever holds something open for the session lets go then."""

        self.starting: asyncio.Task[None] | None = None
        self.problem: BrowserCloudError | None = None
        """Why it could not be started, once that is known."""

        self.admitted = asyncio.Event()
        """Set when its id is known to be free and its row is written."""

        self.recorded = False
        """Whether the row in the store is ours to write."""

    @property
    def id(self) -> str:
        """The session's id."""
        return self.session.id

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
