"""Bounds of what can be asked for: validators that say what they let through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen


class FieldError(ValueError):
    """A field's value is out of its range, or does not go with another's."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


Schema = Mapping[str, Any]


@frozen
class Bounded:
    """A validator that tells what it lets through, in the words of JSON Schema."""

    check: Callable[[object, Any, Any], None]
    schema: Schema | Callable[[], Schema]
    """In Python's units. A function where it takes data that nobody else needs."""

    def __call__(self, instance: object, attribute: Any, value: Any) -> None:
        """Raise `FieldError` for a value out of bounds."""
        self.check(instance, attribute, value)


def in_range(low: float, high: float, unit: str) -> Bounded:
    """A number from *low* to *high*."""

    def check(_: object, attribute: Any, value: float) -> None:
        # NaN compares false with everything, so the test asks for "inside", never for "outside".
        if not low <= value <= high:
            raise FieldError(
                attribute.name, f"must be between {low:g} and {high:g} {unit}, not {value:g}"
            )

    return Bounded(check, {"minimum": low, "maximum": high})
