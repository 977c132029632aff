"""What a session's record says at each turn of its life. Pure: facts in, records out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from browsercloud.models import (
    BrowserExit,
    CreateRequest,
    ReleaseReason,
    Session,
    SessionFailure,
    SessionProtocol,
    SessionStatus,
)
from browsercloud.options import Seconds, place_of

CRASHED = (ReleaseReason.BROWSER_CRASHED, ReleaseReason.OUT_OF_MEMORY)
"""Ends with nothing left to be asked to leave."""

CLEANUP_FAILED = "cleanup_failed"
"""The code of an end that has left something over."""

MASK = "…"

FAILED = (*CRASHED, ReleaseReason.STARTUP_FAILED, ReleaseReason.CREATION_TIMEOUT)
"""Ends after which a session counts as failed."""


def first_record(request: CreateRequest) -> Session:
    """The record of a session that has just been asked for."""
    options = request.options.of(request.session_id)
    return Session(
        id=request.session_id,
        status=SessionStatus.STARTING,
        created_at=now(),
        timeout=options.timeout,
        idle_timeout=options.idle_timeout,
        adapter=options.adapter,
        browser=options.browser,
        dimensions=options.size,
        user_agent=options.user_agent,
        headless=options.headless,
        device=options.device,
        stealth=options.stealth,
        name=options.name or _text(options.lambdatest_options.get("name")),
        build=options.build or _text(options.lambdatest_options.get("build")),
        metadata=options.metadata,
        config=shown(request.given),
    )


def shown(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options as they may be shown to whoever sees the record."""
    told = {**given}
    for name in ("customWebSocketUrl", "startUrl"):
        if name in told:
            told[name] = place_of(told[name])
    if told.get("sessionContext"):
        told["sessionContext"] = MASK
    if told.get("extraHeaders"):
        told["extraHeaders"] = dict.fromkeys(told["extraHeaders"], MASK)
    return told


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def at_this_moment(session: Session) -> Session:
    """The record with its duration up to now, or to its end."""
    if session.started_at is None:
        return session
    lived = (session.ended_at or now()) - session.started_at
    return attrs.evolve(session, duration=Seconds(max(0.0, lived.total_seconds())))


def queued(session: Session) -> Session:
    """It waits for its turn."""
    return attrs.evolve(session, status=SessionStatus.QUEUED)


def starting(session: Session) -> Session:
    """Its turn has come."""
    return attrs.evolve(session, status=SessionStatus.STARTING)


def live(
    session: Session, user_agent: str, protocol: SessionProtocol = SessionProtocol.CDP
) -> Session:
    """Its browser is there, and its life begins."""
    started = now()
    return attrs.evolve(
        session,
        status=SessionStatus.LIVE,
        started_at=started,
        expires_at=started + timedelta(seconds=session.timeout),
        user_agent=user_agent or None,
        protocol=protocol,
    )


def extended(session: Session, life: Seconds) -> Session:
    """It has so many seconds from now."""
    return attrs.evolve(session, timeout=life, expires_at=now() + timedelta(seconds=life))


def life_left(session: Session) -> float:
    """Seconds until its `timeout` is over, at least 0."""
    if session.expires_at is None:
        return session.timeout
    return max(0.0, (session.expires_at - now()).total_seconds())


def releasing(session: Session, reason: ReleaseReason, failure: SessionFailure | None) -> Session:
    """Its close has begun."""
    return attrs.evolve(
        session, status=SessionStatus.RELEASING, release_reason=reason, error=failure
    )


def unclean(session: Session) -> bool:
    """Whether something of it is left over."""
    return session.error is not None and session.error.code == CLEANUP_FAILED


def ended(session: Session, left: SessionFailure | None) -> Session:
    """All of it is gone, but for what is *left*."""
    failed = left is not None or session.release_reason in FAILED
    return attrs.evolve(
        session,
        status=SessionStatus.FAILED if failed else SessionStatus.RELEASED,
        ended_at=now(),
        error=session.error or left,
    )


def lost(session: Session) -> Session:
    """The end of a session that nobody runs: its own, if it was being released already."""
    if session.status is SessionStatus.RELEASING:
        return ended(session, None)
    failure = SessionFailure(code="server_lost", message="the server that ran it is gone")
    return ended(releasing(session, ReleaseReason.SHUTDOWN, failure), failure)


def browser_gone(ended: BrowserExit) -> tuple[ReleaseReason, SessionFailure | None]:
    """Why a session ends whose browser is gone: it left by itself, or something broke."""
    if ended.clean:
        return ReleaseReason.BROWSER_CLOSED, None
    if ended.out_of_memory:
        used = f"{(ended.memory or 0) / 2**20:.0f} MB"
        return ReleaseReason.OUT_OF_MEMORY, SessionFailure(
            code=ReleaseReason.OUT_OF_MEMORY,
            message=f"the browser used {used} of memory, more than a session may",
            stderr=ended.stderr,
            memory=ended.memory,
        )
    how = f"signal {ended.signal}" if ended.signal else f"exit code {ended.exit_code}"
    if ended.signal is None and ended.exit_code is None:
        how = "itself, nobody knows how"
    return ReleaseReason.BROWSER_CRASHED, SessionFailure(
        code=ReleaseReason.BROWSER_CRASHED,
        message=f"the browser ended by {how}",
        exit_code=ended.exit_code,
        signal=ended.signal,
        stderr=ended.stderr,
        memory=ended.memory,
    )


def now() -> datetime:
    """The time, aware and in UTC."""
    return datetime.now(UTC)
