"""The benchmark suite's own measuring: order, statistics, targets, and one row of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench import __main__ as runner
from tests.bench import control, report
from tests.bench.ground import Ground
from tests.bench.measure import (
    Contender,
    Group,
    Once,
    Outcome,
    Skipped,
    at_most,
    contest,
    faster,
    p95,
    part_of,
    shown,
    side_by_side,
    times_of,
)
from tests.conftest import Site


class Fake:
    """Contenders that say when it is their turn; *breaks* is the turn that raises."""

    def __init__(self) -> None:
        self.log: list[str] = []

    @asynccontextmanager
    async def make(
        self, name: str, breaks: int | None = None, closes: bool = True
    ) -> AsyncIterator[Once]:
        """Open, take turns, close."""
        if breaks == 0:
            raise OSError("cannot open")
        self.log.append(f"open {name}")
        turns = 0

        async def once() -> Mapping[str, float]:
            nonlocal turns
            turns += 1
            self.log.append(name)
            if turns == breaks:
                raise ValueError("broken\nand more")
            return {"time": float(turns)}

        yield once
        self.log.append(f"close {name}")
        if not closes:
            raise OSError("cannot close")

    async def pause(self) -> None:
        """Before every turn."""
        self.log.append("·")

    async def contest(self, rounds: int, **contenders: Callable[[], object]) -> Outcome:
        """Let them."""
        found = [Contender(name, make) for name, make in contenders.items()]  # type: ignore[arg-type]
        return await contest(found, rounds, pause=self.pause)


async def test_contenders_take_turns() -> None:
    """A B A B, a pause before each turn, the first round not counted, closed in reverse order."""
    fake = Fake()
    outcome = await fake.contest(2, A=partial(fake.make, "A"), B=partial(fake.make, "B"))
    assert ["open A", "open B", *"·A·B·A·B·A·B", "close B", "close A"] == fake.log
    assert {"time": {"A": [2.0, 3.0], "B": [2.0, 3.0]}} == outcome.samples
    assert {} == outcome.failed


async def test_who_fails_is_out_and_the_others_go_on() -> None:
    """A contender that does not open or breaks in a turn is told with one line, without samples."""
    fake = Fake()
    outcome = await fake.contest(
        2,
        A=partial(fake.make, "A", breaks=3),
        B=partial(fake.make, "B", breaks=0),
        C=partial(fake.make, "C"),
    )
    assert {"time": {"C": [2.0, 3.0]}} == outcome.samples
    assert {"A": "ValueError: broken", "B": "OSError: cannot open"} == outcome.failed
    assert ["close C", "close A"] == fake.log[-2:]


async def test_who_fails_to_close_keeps_its_samples() -> None:
    """What was measured before stays, and the failure is told; the others close all the same."""
    fake = Fake()
    outcome = await fake.contest(
        1, A=partial(fake.make, "A"), B=partial(fake.make, "B", closes=False)
    )
    assert {"time": {"A": [2.0], "B": [2.0]}} == outcome.samples
    assert {"B": "OSError: cannot close"} == outcome.failed
    assert "close A" == fake.log[-1]


@pytest.mark.parametrize(
    ("expected", "values"),
    [(19.0, range(1, 21)), (20.0, range(1, 22)), (7.0, [7.0]), (3.0, [3.0, 1.0, 2.0])],
)
def test_p95_is_a_sample(expected: float, values: list[float]) -> None:
    """By nearest rank: the smallest sample that 95 % do not exceed."""
    assert expected == p95(list(values))


@pytest.mark.parametrize(
    ("expected", "value"),
    [("0", 0.0), ("0.0123", 0.012345), ("1.23", 1.2345), ("12.3", 12.345), ("1234", 1234.5)],
)
def test_numbers_have_three_digits_that_count(expected: str, value: float) -> None:
    """Never an exponent, never more than can be meant."""
    assert expected == shown(value)


def group(**changes: object) -> Group:
    """Ours takes 10 at the median, theirs 30."""
    values: dict[str, object] = {
        "row": "row",
        "title": "title",
        "unit": "ms",
        "base": "browsercloud",
        "samples": {"browsercloud": [9.0, 10.0, 50.0], "other": [30.0, 29.0, 31.0], "out": []},
    }
    return Group(**{**values, **changes})  # type: ignore[arg-type]


def test_ratios_are_of_medians() -> None:
    """One wild sample moves no ratio; who has no samples has none."""
    assert {"browsercloud": 1.0, "other": 3.0} == group().ratios()


def test_the_bad_end_depends_on_what_is_better() -> None:
    """Where more is better, p5 is shown and not p95."""
    assert ("p95", 50.0) == (group().bad_end, group().bad("browsercloud"))
    assert ("p5", 9.0) == (group(more=True).bad_end, group(more=True).bad("browsercloud"))


@pytest.mark.parametrize(
    ("expected", "target"),
    [
        (True, at_most("browsercloud", 10, "ms")),
        (False, at_most("browsercloud", 9.9, "ms")),
        (True, faster("browsercloud", "other", 3)),
        (False, faster("browsercloud", "other", 3.1)),
        (True, part_of("browsercloud", "other", 0.34)),
        (False, part_of("browsercloud", "other", 0.33)),
        (True, times_of("other", "browsercloud", 3)),
        (False, times_of("other", "browsercloud", 3.1)),
        (None, faster("browsercloud", "out", 1)),
    ],
)
def test_targets_tell_good_from_bad(expected: bool | None, target: object) -> None:
    """At the limit it is reached, beyond it is not, and without a contender nobody knows."""
    assert [expected] == [verdict.ok for verdict in group(targets=[target]).verdicts()]


def test_kinds_stand_side_by_side() -> None:
    """The same comparison of both kinds comes together."""
    kinds = [[group(title=f"{name}{kind}") for name in "ab"] for kind in "12"]
    assert ["a1", "a2", "b1", "b2"] == [one.title for one in side_by_side(kinds)]


def test_the_report_says_what_was_needed() -> None:
    """The tables have medians, ratios, failures, and each target's mark with the number needed."""
    target = faster("browsercloud", "other", 12)
    one = group(targets=[target, at_most("out", 5, "ms")], failed={"out": "OSError: gone"})
    told = Console(file=StringIO(), width=120)
    report.print_group(told, one)
    report.print_verdicts(told, one.verdicts())
    assert isinstance(told.file, StringIO)
    text = told.file.getvalue()
    for part in ("10.0", "50.0", "3.00×", "OSError: gone", "✗", "≥ 12 ×", "not measured"):
        assert part in text
    assert "✓" not in text
    found = json.loads(json.dumps(report.as_json([one], {"cores": 2})))["groups"][0]
    assert [30.0, 29.0, 31.0] == found["contenders"]["other"]["samples"]
    assert [False, None] == [entry["reached"] for entry in found["targets"]]


async def test_a_row_that_fails_is_told(
    monkeypatch: pytest.MonkeyPatch, root: Path, site: Site
) -> None:
    """One that cannot be measured here and one that breaks are a line each; the rest goes on."""

    async def skipped(_: Ground) -> list[Group]:
        raise Skipped("no jar")

    async def broken(_: Ground) -> list[Group]:
        raise OSError("no disk")

    async def good(_: Ground) -> list[Group]:
        return [group()]

    monkeypatch.setattr(runner, "ROWS", {"a": skipped, "b": broken, "c": good})
    told = Console(file=StringIO(), width=120)
    found = await runner.measure(["a", "b", "c"], Ground(root, site, {}, 1, quick=True), told)
    assert isinstance(told.file, StringIO)
    assert ["title"] == [one.title for one in found]
    assert "a: skipped, no jar" in told.file.getvalue()
    assert "b: failed, OSError: no disk" in told.file.getvalue()


async def test_the_control_row(root: Path, site: Site) -> None:
    """Every operation on both stores at each number of live sessions has its samples."""

    async def no_pause() -> None:
        """Numbers do not matter here."""

    ground = Ground(root, site, {}, rounds=2, quick=True)
    groups = await control.measure(ground, levels=(1, 3), pause=no_pause)
    expected = {
        f"{operation}, {store} store"
        for operation in control.OPERATIONS
        for store in control.STORES
    }
    assert expected == {one.title for one in groups}
    for one in groups:
        assert {} == one.failed
        assert {"browsercloud, 1 live": 2, "browsercloud, 3 live": 2} == {
            name: len(samples) for name, samples in one.samples.items()
        }
