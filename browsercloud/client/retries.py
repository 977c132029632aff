"""When a call may be repeated, and how: each policy is named by why repeating is safe."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from attrs import frozen

from browsercloud._later import later
from browsercloud.errors import BrowserCloudError, ConnectionFailed, LaunchFailed, ServiceError

if TYPE_CHECKING:
    import tenacity
else:
    tenacity = later("tenacity")

T = TypeVar("T")

log = logging.getLogger(__name__)

UNREACHABLE_ATTEMPTS = 5
"""How often in a row a server may be unreachable before that is the answer (about 3 s)."""


KNOWN_OUTCOMES = (
    "invalid_request",
    "not_authorized",
    "forbidden",
    "conflict",
    "launch_failed",
    "rate_limited",
    "too_large",
)
"""Codes of a create that made nothing."""


@frozen(kw_only=True)
class Policy:
    """Why repeating is safe, and which answers are worth another try."""

    why: str
    statuses: frozenset[int]

    def repeats(self, error: BaseException) -> bool:
        """Whether *error* may be gone the next time."""
        if isinstance(error, ConnectionFailed):
            return True
        # A browser that did not start is an answer; a 502 of a proxy on the way is not.
        return (
            isinstance(error, ServiceError)
            and error.status in self.statuses
            and not isinstance(error, LaunchFailed)
            and all(detail.get("retryable", True) for detail in error.details)
        )


_GATEWAY = frozenset({502, 503, 504})

CHANGES_NOTHING = Policy(why="reading changes nothing", statuses=_GATEWAY | {429})
SAME_ID = Policy(
    why="the client chose the id, so a repeated create finds the session that the first one made",
    statuses=_GATEWAY | {429},
)
AGAIN_IS_FINE = Policy(
    why="releasing or extending twice is the same as once",
    # A release must not be lost to a fault of the server that passes.
    statuses=_GATEWAY | {429, 500},
)


async def repeat(
    policy: Policy, work: Callable[[], Awaitable[T]], *, deadline: float, what: str, endpoint: str
) -> T:
    """Call *work* until it succeeds, fails for good, or *deadline* seconds are over.

    Waits as long as the server's `Retry-After` says, else 0.1 s growing to 2 s with jitter. Raises
    the last error; `ConnectionFailed` when there was no answer at all. A server that cannot be
    reached is given up after 5 tries in a row. Cancellation ends it at once.
    """
    counter = _Unreachable()
    try:
        async with asyncio.timeout(deadline):
            async for attempt in tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception(policy.repeats),
                wait=_wait,
                stop=lambda state: counter(state) or tenacity.stop_before_delay(deadline)(state),
                before_sleep=lambda state: _say(state, what),
                reraise=True,
            ):
                with attempt:
                    return await work()
    except TimeoutError:
        if counter.last is not None:
            raise counter.last from None
        raise ConnectionFailed(
            f"{what}: no answer from {endpoint} within {deadline:g} s", endpoint=endpoint
        ) from None
    raise AssertionError("unreachable: the loop returns or raises")


class _Unreachable:
    """Counts how often in a row the server could not be reached."""

    def __init__(self) -> None:
        self.last: BaseException | None = None
        self._count = 0

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        outcome = retry_state.outcome
        self.last = outcome.exception() if outcome is not None else None
        self._count = self._count + 1 if isinstance(self.last, ConnectionFailed) else 0
        return self._count >= UNREACHABLE_ATTEMPTS


def _wait(state: tenacity.RetryCallState) -> float:
    grow = tenacity.wait_exponential_jitter(multiplier=0.1, max=2.0, exp_base=2.5, jitter=0.1)
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, ServiceError) and error.retry_after is not None:
        # A server that says 0 does not mean to be asked without a pause.
        return max(error.retry_after, grow(state))
    return grow(state)


def _say(state: tenacity.RetryCallState, what: str) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    log.info("%s: try %d failed (%s); again", what, state.attempt_number, error)


def outcome_unknown(error: BaseException) -> bool:
    """Whether a session may exist although this try of create failed."""
    match error:
        case ConnectionFailed():
            return error.sent
        case ServiceError():
            # Only our server's own words are known; whatever a proxy on the way says is not.
            return error.code not in KNOWN_OUTCOMES
        case _:
            return not isinstance(error, BrowserCloudError)
