"""The error tree, and that its docstring tells the truth."""

from __future__ import annotations

import inspect
import re

import pytest

from browsercloud import errors
from browsercloud.errors import (
    ENDINGS,
    SERVICE_ERRORS,
    BrowserCloudError,
    NoCapacity,
    ServiceError,
    SessionEnded,
)
from browsercloud.models import ReleaseReason

KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, BrowserCloudError)
}


def test_the_drawn_tree_is_the_real_one() -> None:
    """Each class stands in the docstring once, below its base."""
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"( {4,})([A-Z]\w+)(?: {2,}|$)", line)
        if found is None or found[2] not in KINDS:
            continue
        depth, name = len(found[1]), found[2]
        above = [(d, n) for d, n in above if d < depth]
        assert name not in drawn
        drawn[name] = above[-1][1] if above else "Exception"
        above.append((depth, name))
    assert drawn == {name: kind.__bases__[0].__name__ for name, kind in KINDS.items()}


@pytest.mark.parametrize(("code", "kind"), sorted(SERVICE_ERRORS.items()))
def test_the_drawn_codes_are_the_real_ones(code: str, kind: type[ServiceError]) -> None:
    """Status and code stand behind the class's name."""
    line = next(
        line for line in (errors.__doc__ or "").splitlines() if line.split()[:1] == [kind.__name__]
    )
    assert str(kind.default_status) in line
    assert code in line


def test_an_error_brings_its_status_and_code() -> None:
    """By its class, unless something else is said."""
    usual = NoCapacity("full", retry_after=2)
    assert (usual.status, usual.code, usual.retry_after) == (429, "no_capacity", 2)
    limited = NoCapacity("slower", code="rate_limited")
    assert (limited.status, limited.code) == (429, "rate_limited")
    assert str(limited) == limited.message == "slower"


def test_details_belong_to_one_error() -> None:
    """Two errors share no list."""
    first, second = ServiceError("a"), ServiceError("b")
    first.details.append({"path": "x"})
    assert second.details == []


def test_every_end_under_a_user_has_its_class() -> None:
    """All reasons but a failed start, which create itself reports."""
    known = {str(reason) for reason in ReleaseReason} - {"startup_failed"}
    assert set(ENDINGS) == known
    assert all(issubclass(kind, SessionEnded) for kind in ENDINGS.values())
