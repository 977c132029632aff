"""What every row is made of: contenders that take turns, numbers, targets."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from attrs import define, evolve, field, frozen

TURN_TIMEOUT = 120.0
"""Seconds that one turn of a contender may take; one that is stuck is dropped."""

Once = Callable[[], Awaitable[Mapping[str, float]]]
"""One turn: what was measured, by the name of the measure."""

Pause = Callable[[], Awaitable[object]]


class Skipped(Exception):
    """A row that cannot be measured here, and why."""


@frozen
class Contender:
    """Somebody who takes turns. *make* opens what all the turns need and yields the turn."""

    name: str
    make: Callable[[], AbstractAsyncContextManager[Once]]


@define
class Outcome:
    """What came of a contest: samples by measure and contender, and who failed, with the reason."""

    samples: dict[str, dict[str, list[float]]] = field(factory=dict)
    failed: dict[str, str] = field(factory=dict)

    def note(self, contender: str, measured: Mapping[str, float]) -> None:
        """What one turn has measured."""
        for measure, value in measured.items():
            self.samples.setdefault(measure, {}).setdefault(contender, []).append(value)

    def fail(self, contender: str, error: BaseException) -> None:
        """It is out; what it has measured so far does not count."""
        self.complain(contender, error)
        for found in self.samples.values():
            found.pop(contender, None)

    def complain(self, contender: str, error: BaseException) -> None:
        """Something went wrong after it had measured."""
        self.failed[contender] = _reason(error)


async def contest(
    contenders: Sequence[Contender], rounds: int, *, pause: Pause, warm_up: int = 1
) -> Outcome:
    """Let all of them take turns: A B C A B C …, *warm_up* rounds that do not count before.

    All are open meanwhile; *pause* comes before every turn. Who fails is out, the others go on.
    """
    outcome = Outcome()
    async with AsyncExitStack() as stack:
        turns: dict[str, Once] = {}
        for contender in contenders:
            try:
                turn = await stack.enter_async_context(_told(contender, outcome))
            except Exception as error:
                outcome.fail(contender.name, error)
            else:
                turns[contender.name] = turn
        for number in range(warm_up + rounds):
            for name in list(turns):
                await pause()
                try:
                    async with asyncio.timeout(TURN_TIMEOUT):
                        measured = await turns[name]()
                except Exception as error:
                    outcome.fail(name, error)
                    del turns[name]
                else:
                    if number >= warm_up:
                        outcome.note(name, measured)
    return outcome


@asynccontextmanager
async def _told(contender: Contender, outcome: Outcome) -> AsyncIterator[Once]:
    """Open it; a failure to close is told, and hurts neither its samples nor anybody else."""
    opened = False
    try:
        async with contender.make() as once:
            opened = True
            yield once
    except Exception as error:
        if not opened:
            raise
        outcome.complain(contender.name, error)


def _reason(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__


@frozen
class Target:
    """What a group has to reach.

    *value* makes one number of the contenders' medians; *limit* is the most it may be, or the least
    with *at_least*. *unit* is `×` for ratios.
    """

    says: str
    value: Callable[[Mapping[str, float]], float]
    limit: float
    unit: str = "×"
    at_least: bool = False

    def reached(self, value: float) -> bool:
        """Whether *value* is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit


def at_most(contender: str, limit: float, unit: str) -> Target:
    """A median that must not be more."""
    return Target(contender, lambda medians: medians[contender], limit, unit)


def faster(contender: str, than: str, times: float) -> Target:
    """*than* must take at least so many times as long."""
    says = f"{contender}, faster than {than}"
    return Target(says, lambda medians: medians[than] / medians[contender], times, at_least=True)


def part_of(contender: str, other: str, limit: float) -> Target:
    """The most that a contender's median may be of the other's."""
    says = f"{contender}, of {other}"
    return Target(says, lambda medians: medians[contender] / medians[other], limit)


def times_of(contender: str, other: str, limit: float) -> Target:
    """The least that a contender's median must be of the other's."""
    return evolve(part_of(contender, other, limit), at_least=True)


@frozen
class Verdict:
    """A target and what came of it: *value* is `None` when it could not be measured."""

    group: str
    target: Target
    value: float | None

    @property
    def ok(self) -> bool | None:
        """Whether it was reached; `None` if that is not known."""
        return None if self.value is None else self.target.reached(self.value)


@define
class Group:
    """One comparison: a bar for each contender. Ratios are to the contender *base*.

    *more* is true where more is better: then the bad end of the samples is at p5 and not at p95.
    """

    row: str
    title: str
    unit: str
    base: str
    samples: dict[str, list[float]]
    failed: dict[str, str] = field(factory=dict)
    targets: list[Target] = field(factory=list)
    more: bool = False

    def medians(self) -> dict[str, float]:
        """The median of each contender that has any samples."""
        return {name: statistics.median(found) for name, found in self.samples.items() if found}

    def ratios(self) -> dict[str, float]:
        """Each median by that of *base*; empty when that one has none."""
        medians = self.medians()
        base = medians.get(self.base)
        return {name: value / base for name, value in medians.items()} if base else {}

    @property
    def bad_end(self) -> str:
        """Which percentile `bad` is."""
        return "p5" if self.more else "p95"

    def bad(self, contender: str) -> float:
        """What one in twenty samples is not better than."""
        found = self.samples[contender]
        return -p95([-value for value in found]) if self.more else p95(found)

    def verdicts(self) -> list[Verdict]:
        """What came of each target."""
        medians = self.medians()
        found = []
        for target in self.targets:
            try:
                value: float | None = target.value(medians)
            except (KeyError, ZeroDivisionError):
                value = None
            found.append(Verdict(self.title, target, value))
        return found


def side_by_side(kinds: Sequence[Sequence[Group]]) -> list[Group]:
    """The same comparison of each kind of browser next to each other."""
    return [group for same in zip(*kinds, strict=True) for group in same]


def p95(values: Sequence[float]) -> float:
    """The smallest value that 95 % of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(0.95 * len(ordered)) - 1)]


def shown(value: float) -> str:
    """Three digits that count, never an exponent."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"
