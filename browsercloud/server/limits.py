"""How many sessions a project may begin in a minute, and how a refusal looks."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Any

from browsercloud.errors import NoCapacity
from browsercloud.stores.base import Limits

WINDOW = 60.0
"""Seconds in which a rate is counted."""


class Rates:
    """Counts what each project begins. Counts from the server's start."""

    def __init__(self, limits_of: Callable[[str], Limits]) -> None:
        self._limits_of = limits_of
        self._begun: dict[str, deque[float]] = {}

    def count(self, project: str) -> None:
        """Count one more, or raise `NoCapacity`. What is refused does not count."""
        rate = self._limits_of(project).rate
        if rate is None:
            return
        now = asyncio.get_running_loop().time()
        begun = self._begun.setdefault(project, deque())
        while begun and begun[0] <= now - WINDOW:
            begun.popleft()
        if len(begun) >= rate:
            # The limit may have been lowered: so many have to leave the window first.
            leaves = begun[len(begun) - rate]
            raise refused(
                f"this project may begin {rate} sessions in a minute",
                code="rate_limited",
                limit=rate,
                in_use=len(begun),
                retry_after=leaves + WINDOW - now,
            )
        begun.append(now)


def refused(
    message: str,
    *,
    code: str,
    limit: int,
    in_use: int,
    retry_after: float,
    place: int | None = None,
    retryable: bool = True,
) -> NoCapacity:
    """A refusal with what a program needs to decide when to ask again."""
    detail: dict[str, Any] = {
        "path": "",
        "reason": message,
        "limit": limit,
        "inUse": in_use,
        "retryable": retryable,
    }
    if place is not None:
        detail["place"] = place
    return NoCapacity(message, code=code, retry_after=math.ceil(retry_after), details=[detail])
