"""Why a session has ended, for the one who held it."""

from __future__ import annotations

import attrs

from browsercloud.client.transport import ended_error
from browsercloud.errors import ReleasedElsewhere, SessionEnded
from browsercloud.models import Released, ReleaseReason, Session, SessionFailure, SessionStatus

QUIET_ENDINGS = (None, ReleaseReason.USER_REQUESTED, ReleaseReason.BROWSER_CLOSED)
"""Endings that are no surprise to a body which ended well."""

_CRASHES = (ReleaseReason.BROWSER_CRASHED, ReleaseReason.OUT_OF_MEMORY)
MIB = 2**20


def ended_record(known: Session | None, released: Released, *, wait: bool) -> Session | None:
    """The record *known* as it is after a release; *wait* says that it has been waited for."""
    if known is None or released.release_reason is None:
        return known
    crashed = released.release_reason in _CRASHES
    gone = SessionStatus.RELEASED if wait or released.already_ended else SessionStatus.RELEASING
    status = SessionStatus.FAILED if crashed else gone
    return attrs.evolve(known, status=status, release_reason=released.release_reason)


def ending(session: Session) -> SessionEnded:
    """The error for the end of *session*, as its record tells it. Its notes are the evidence."""
    reason = session.release_reason
    error: SessionEnded
    if reason is ReleaseReason.USER_REQUESTED:
        message = f"session {session.id} was released by somebody else"
        error = ReleasedElsewhere(message, reason=reason, session=session)
    else:
        error = ended_error(_why(session), reason, session)
    if session.error is not None:
        for line in evidence(session.error):
            error.add_note(line)
    return error


def evidence(failure: SessionFailure) -> list[str]:
    """What is known of a browser's end, in lines for people; the last thing it said comes last."""
    lines = []
    if failure.signal is not None:
        lines.append(f"ended by: {failure.signal}")
    elif failure.exit_code is not None:
        lines.append(f"exit code: {failure.exit_code}")
    if failure.memory is not None:
        lines.append(f"memory: {failure.memory / MIB:.0f} MiB when last looked at")
    lines += [f"was open: {url}" for url in failure.urls]
    return lines + [f"stderr: {line}" for line in failure.stderr]


def _why(session: Session) -> str:
    """Why a session ended, and what to do about it."""
    match session.release_reason:
        case ReleaseReason.TIMEOUT:
            return (
                f"session {session.id} ended: its timeout of {session.timeout:g} s was over; give "
                "it a longer timeout=, or call client.sessions.extend"
            )
        case ReleaseReason.INACTIVITY_TIMEOUT:
            return (
                f"session {session.id} ended: nothing was asked of its browser for "
                f"{session.idle_timeout or 0:g} s; give it a longer idle_timeout="
            )
        case ReleaseReason.OUT_OF_MEMORY:
            return (
                f"session {session.id} ended: its browser used more memory than a session may"
                f"{_detail(session)}; close pages, or raise the server's --session-memory"
            )
        case ReleaseReason.SHUTDOWN:
            return f"session {session.id} ended: its server was stopped"
        case ReleaseReason.LEASE_LOST:
            return f"session {session.id} ended: the server had lost the connection to this client"
    return f"session {session.id} ended: {session.release_reason}{_detail(session)}"


def _detail(session: Session) -> str:
    return f": {session.error.message}" if session.error is not None else ""
