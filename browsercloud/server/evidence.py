"""What is known of a session's end: gathered while the browser is still there to be asked."""

from __future__ import annotations

import logging
from typing import Any

import attrs

from browsercloud._aio import deadline
from browsercloud.engines.base import Engine
from browsercloud.models import ReleaseReason, Session, SessionFailure
from browsercloud.server.active import ActiveSession

log = logging.getLogger(__name__)

PATIENCE = 1.0
"""How long the engine may take to tell what a browser uses, in seconds."""

ASKED_FOR = (ReleaseReason.USER_REQUESTED, ReleaseReason.BROWSER_CLOSED)
"""Ends that need no evidence: somebody wanted them."""


def of(
    active: ActiveSession, reason: ReleaseReason, failure: SessionFailure | None
) -> SessionFailure | None:
    """Why the session ends, and what it had open; `None` for an end that was asked for."""
    if failure is None and reason in ASKED_FOR:
        return None
    failure = failure or SessionFailure(code=reason, message=_why(active.session, reason))
    return attrs.evolve(failure, urls=active.pages.urls)


async def weigh(active: ActiveSession, engine: Engine) -> None:
    """Add what the browser uses, unless that is known already. Never fails."""
    failure = active.session.error
    if failure is None or failure.memory is not None or active.handle is None:
        return
    try:
        async with deadline(PATIENCE, "weighing a browser"):
            usage = (await engine.usage()).get(active.id)
    except (OSError, TimeoutError) as error:
        log.debug("session %s: %s", active.id, error)
        return
    if usage is not None and usage.memory:
        failure = attrs.evolve(failure, memory=usage.memory)
        active.session = attrs.evolve(active.session, error=failure)


def details(session: Session) -> dict[str, Any]:
    """The end as an event tells it."""
    told: dict[str, Any] = {"reason": session.release_reason}
    if session.error is not None:
        facts = attrs.asdict(session.error)
        told |= {name: value for name, value in facts.items() if value not in (None, ())}
    return told


def _why(session: Session, reason: ReleaseReason) -> str:
    match reason:
        case ReleaseReason.TIMEOUT:
            return f"its timeout of {session.timeout:g} s was over"
        case ReleaseReason.INACTIVITY_TIMEOUT:
            return f"its driver had said nothing for {session.idle_timeout:g} s"
        case ReleaseReason.LEASE_LOST:
            return "the connection to its client was lost"
        case ReleaseReason.CREATION_TIMEOUT:
            return "nobody asked for it any more while it waited, or when its turn had come"
        case ReleaseReason.SHUTDOWN:
            return "its server was stopped"
        case _:
            return str(reason)
