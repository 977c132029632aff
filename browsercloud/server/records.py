"""What a session's record says at each turn of its life. Pure: facts in, records out."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs

from browsercloud.models import (
    BrowserExit,
    CreateRequest,
    ReleaseReason,
    Seconds,
    Session,
    SessionFailure,
    SessionStatus,
)
from browsercloud.stores.base import SessionRow


def first_record(request: CreateRequest) -> Session:
    """The record of a session that has just been asked for."""
    options = request.options
    return Session(
        id=request.session_id,
        status=SessionStatus.STARTING,
        created_at=now(),
        timeout=options.timeout,
        idle_timeout=options.idle_timeout,
        adapter=options.adapter,
        browser=options.browser,
        dimensions=options.dimensions,
        user_agent=options.user_agent,
        headless=options.headless,
        name=options.name,
        build=options.build,
        metadata=options.metadata,
        config=request.given,
    )


def at_this_moment(session: Session) -> Session:
    """The record with its duration up to now, or to its end."""
    if session.started_at is None:
        return session
    lived = (session.ended_at or now()) - session.started_at
    return attrs.evolve(session, duration=Seconds(max(0.0, lived.total_seconds())))


def lost(row: SessionRow) -> SessionRow:
    """A row that says it lives, of a session that nobody runs."""
    session = attrs.evolve(
        row.session,
        status=SessionStatus.FAILED,
        release_reason=ReleaseReason.SHUTDOWN,
        ended_at=now(),
        error=SessionFailure(code="server_lost", message="the server that ran it is gone"),
    )
    return attrs.evolve(row, session=session)


def browser_gone(ended: BrowserExit) -> tuple[ReleaseReason, SessionFailure | None]:
    """Why a session ends whose browser is gone: it left by itself, or something broke."""
    if ended.clean:
        return ReleaseReason.BROWSER_CLOSED, None
    how = f"signal {ended.signal}" if ended.signal else f"exit code {ended.exit_code}"
    return ReleaseReason.BROWSER_CRASHED, SessionFailure(
        code=ReleaseReason.BROWSER_CRASHED,
        message=f"the browser ended by {how}",
        exit_code=ended.exit_code,
        signal=ended.signal,
        stderr=ended.stderr,
    )


def now() -> datetime:
    """The time, aware and in UTC."""
    return datetime.now(UTC)
