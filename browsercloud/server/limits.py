"""What one project may ask of the server, so that it leaves room for the others."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from browsercloud.errors import NoCapacity
from browsercloud.stores.base import Limits

WINDOW = 60.0
"""Seconds in which a rate is counted."""

FULL_RETRY = 5.0
"""Seconds after which a project that is full may ask again: its sessions end when they like."""


class ProjectLimits:
    """Says no to a project that has reached its limits. Counts from the server's start."""

    def __init__(self, limits_of: Callable[[str], Limits]) -> None:
        self._limits_of = limits_of
        self._begun: dict[str, deque[float]] = {}

    def admit(self, project: str, active: int) -> None:
        """Let one more session begin in a project that has *active* ones, or raise `NoCapacity`.

        What is refused does not count towards the rate.
        """
        limits = self._limits_of(project)
        if limits.max_sessions is not None and active >= limits.max_sessions:
            raise _refused(
                f"this project may have {limits.max_sessions} sessions at a time; release one",
                code="no_capacity",
                limit=limits.max_sessions,
                in_use=active,
                retry_after=FULL_RETRY,
            )
        if limits.rate is not None:
            self._count(project, limits.rate)

    def _count(self, project: str, rate: int) -> None:
        now = asyncio.get_running_loop().time()
        begun = self._begun.setdefault(project, deque())
        while begun and begun[0] <= now - WINDOW:
            begun.popleft()
        if len(begun) >= rate:
            # The limit may have been lowered: so many have to leave the window first.
            leaves = begun[len(begun) - rate]
            raise _refused(
                f"this project may begin {rate} sessions in a minute",
                code="rate_limited",
                limit=rate,
                in_use=len(begun),
                retry_after=leaves + WINDOW - now,
            )
        begun.append(now)


def _refused(message: str, *, code: str, limit: int, in_use: int, retry_after: float) -> NoCapacity:
    return NoCapacity(
        message,
        code=code,
        retry_after=math.ceil(retry_after),
        details=[
            {"path": "", "reason": message, "limit": limit, "inUse": in_use, "retryable": True}
        ],
    )
