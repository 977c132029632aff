"""What of a session passes for a person's browser: what can be asked for, and its viewport."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import fields, frozen

from browsercloud.bounds import FieldError

if TYPE_CHECKING:
    import random

JITTER = 20
"""Pixels by which a viewport may be smaller or larger than asked for, each way."""


@frozen(kw_only=True)
class Stealth:
    """How much of a session passes for a person's browser."""

    humanize_interactions: bool = False
    """Playwright's `click`, `type` and `fill` take as long as a person's."""

    randomize_user_agent: bool = True
    """A user agent and client hints of some person's Chrome; else those of this machine's."""

    randomize_viewport: bool = True
    """The viewport is up to 20 pixels smaller or larger, each way."""

    skip_fingerprint_injection: bool = False
    """The browser is left as it is; only `humanize_interactions` counts."""


Asked = Stealth | Mapping[str, bool] | bool | None


def wanted(value: Asked) -> Stealth | None:
    """What an option's value asks for: `True` is all the defaults. Raises `FieldError`."""
    if value is None or isinstance(value, Stealth):
        return value
    if isinstance(value, bool):
        return Stealth() if value else None
    known = {attribute.name for attribute in fields(Stealth)}
    if unknown := sorted(value.keys() - known):
        reason = f"{unknown[0]!r} is none of {', '.join(sorted(known))}"
        raise FieldError("stealth", reason)
    return Stealth(**value)


def disguised(stealth: Stealth | None) -> bool:
    """Whether pages are told anything that is not so."""
    return stealth is not None and not stealth.skip_fingerprint_injection


def luck(session_id: str, what: str) -> random.Random:
    """What a session picks: the same after each restart, and each thing by itself."""
    import random

    return random.Random(f"{session_id} {what}")  # noqa: S311 - nothing has to be secret


def jittered(session_id: str, side: tuple[int, int], bounds: tuple[int, int]) -> tuple[int, int]:
    """Width and height, each a little off, and within *bounds*."""
    chance, (low, high) = luck(session_id, "viewport"), bounds
    width, height = (min(max(n + chance.randint(-JITTER, JITTER), low), high) for n in side)
    return width, height
