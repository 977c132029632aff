"""What a hand on mouse and keyboard can do to a page: Steel's actions, as it names them.

Coordinates are CSS pixels from the viewport's corner. Durations are seconds, on the wire as well:
it is Steel's part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_type_hints

from attrs import field, frozen

from browsercloud.bounds import Bounded, FieldError
from browsercloud.cdp.keys import NAMES, find_key
from browsercloud.wire import invalid, read

MAX_DURATION = 30
"""How long an action may wait or hold a key, in seconds."""

MAX_PLACE = 100_000
MAX_POINTS, MAX_KEYS, MAX_TEXT, MAX_CLICKS = 1_000, 20, 10_000, 10

_POINT_SCHEMA: Mapping[str, Any] = {
    "minItems": 2,
    "maxItems": 2,
    "items": {"type": "number", "minimum": 0, "maximum": MAX_PLACE},
}
_POINTS_SCHEMA: Mapping[str, Any] = {
    "minItems": 2,
    "maxItems": MAX_POINTS,
    "items": {"type": "array", **_POINT_SCHEMA},
}
_KEY_SCHEMA: Mapping[str, Any] = {
    "anyOf": [{"type": "string", "minLength": 1, "maxLength": 1}, {"enum": [*NAMES]}]
}


def _within(low: float, high: float) -> Bounded:
    def check(_: object, attribute: Any, value: float) -> None:
        if not low <= value <= high:
            raise FieldError(attribute.name, f"must be between {low:g} and {high:g}, not {value:g}")

    return Bounded(check, {"minimum": low, "maximum": high})


def _check_point(_: object, attribute: Any, value: tuple[float, ...] | None) -> None:
    if value is None:
        return
    if len(value) != 2:
        raise FieldError(attribute.name, f"must be [x, y], not {len(value)} numbers")
    if not all(0 <= number <= MAX_PLACE for number in value):
        raise FieldError(attribute.name, f"x and y must be between 0 and {MAX_PLACE}")


def _check_points(_: object, attribute: Any, value: tuple[tuple[float, ...], ...]) -> None:
    if not 2 <= len(value) <= MAX_POINTS:
        raise FieldError(attribute.name, f"must have between 2 and {MAX_POINTS} points")
    for point in value:
        _check_point(_, attribute, point)


def _check_keys(_: object, attribute: Any, value: tuple[str, ...]) -> None:
    if len(value) > MAX_KEYS:
        raise FieldError(attribute.name, f"at most {MAX_KEYS} keys, not {len(value)}")
    for name in value:
        if find_key(name) is None:
            known = "a character, or a name such as Enter, ArrowLeft, Control"
            raise FieldError(attribute.name, f"there is no key {name[:40]!r}: {known}")


def _check_some_keys(_: object, attribute: Any, value: tuple[str, ...]) -> None:
    if not value:
        raise FieldError(attribute.name, "must name a key at least")
    _check_keys(_, attribute, value)


def _check_text(_: object, attribute: Any, value: str) -> None:
    if len(value) > MAX_TEXT:
        raise FieldError(attribute.name, f"at most {MAX_TEXT} characters, not {len(value)}")


_POINT = Bounded(_check_point, _POINT_SCHEMA)
_POINTS = Bounded(_check_points, _POINTS_SCHEMA)
_KEYS = Bounded(_check_keys, {"maxItems": MAX_KEYS, "items": _KEY_SCHEMA})
_SOME_KEYS = Bounded(_check_some_keys, {"minItems": 1, "maxItems": MAX_KEYS, "items": _KEY_SCHEMA})
_TEXT = Bounded(_check_text, {"maxLength": MAX_TEXT})
_DURATION = _within(0, MAX_DURATION)
_DELTA = _within(-MAX_PLACE, MAX_PLACE)


@frozen(kw_only=True)
class _Shown:
    screenshot: bool = False
    """Whether to send a picture of the page as it is afterwards."""


@frozen(kw_only=True)
class _Held(_Shown):
    hold_keys: tuple[str, ...] = field(default=(), validator=_KEYS)
    """Keys that are down meanwhile."""


@frozen(kw_only=True)
class MoveMouse(_Held):
    """Move the mouse."""

    action: Literal["move_mouse"]
    coordinates: tuple[float, ...] = field(validator=_POINT)
    """`[x, y]`, in CSS pixels of the viewport."""


@frozen(kw_only=True)
class ClickMouse(_Held):
    """Press a button of the mouse, release it, or both."""

    action: Literal["click_mouse"]
    coordinates: tuple[float, ...] | None = field(default=None, validator=_POINT)
    """`[x, y]`; where the mouse is by default."""

    button: Literal["left", "right", "middle", "back", "forward"] = "left"
    click_type: Literal["down", "up", "click"] = "click"
    num_clicks: int = field(default=1, validator=_within(1, MAX_CLICKS))


@frozen(kw_only=True)
class DragMouse(_Held):
    """Move the mouse along a path with the left button down."""

    action: Literal["drag_mouse"]
    path: tuple[tuple[float, ...], ...] = field(validator=_POINTS)
    """The points, `[x, y]` each."""


@frozen(kw_only=True)
class Scroll(_Held):
    """Turn the wheel of the mouse."""

    action: Literal["scroll"]
    coordinates: tuple[float, ...] | None = field(default=None, validator=_POINT)
    """`[x, y]`; where the mouse is by default."""

    delta_x: float = field(default=0.0, validator=_DELTA)
    """To the right, in CSS pixels."""

    delta_y: float = field(default=0.0, validator=_DELTA)
    """Down, in CSS pixels."""


@frozen(kw_only=True)
class PressKey(_Shown):
    """Press keys together, and release them in the reverse order."""

    action: Literal["press_key"]
    keys: tuple[str, ...] = field(validator=_SOME_KEYS)
    duration: float = field(default=0.0, validator=_DURATION)
    """How long they are down, in seconds."""


@frozen(kw_only=True)
class TypeText(_Held):
    """Type a text, key by key; what is on no US keyboard arrives as if it were pasted."""

    action: Literal["type_text"]
    text: str = field(validator=_TEXT)


@frozen(kw_only=True)
class Wait(_Shown):
    """Do nothing for a while."""

    action: Literal["wait"]
    duration: float = field(validator=_DURATION)
    """In seconds."""


@frozen(kw_only=True)
class TakeScreenshot:
    """Send a picture of the page."""

    action: Literal["take_screenshot"]


@frozen(kw_only=True)
class GetCursorPosition:
    """Tell where the mouse is."""

    action: Literal["get_cursor_position"]


Action = (
    MoveMouse
    | ClickMouse
    | DragMouse
    | Scroll
    | PressKey
    | TypeText
    | Wait
    | TakeScreenshot
    | GetCursorPosition
)

ACTIONS: Mapping[str, type[Action]] = {
    get_args(get_type_hints(kind)["action"])[0]: kind for kind in get_args(Action)
}
"""By the name that asks for each."""


def read_action(body: Any) -> Action:
    """The action that a request asks for. Raises `InvalidRequest` with every path that is wrong."""
    name = body.get("action") if isinstance(body, Mapping) else None
    kind = ACTIONS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise invalid([("action", f"must be one of {', '.join(ACTIONS)}")])
    return read(body, kind)
