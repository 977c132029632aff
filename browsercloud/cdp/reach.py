"""What a person does to a browser from a viewer: events of mouse, keyboard and fingers, tabs.

Each message is a JSON object with a `type`. Coordinates are CSS pixels from the viewport's corner;
`modifiers` are CDP's bits (Alt 1, Control 2, Meta 4, Shift 8).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote_plus, urlsplit

from attrs import field, frozen

from browsercloud.bounds import Bounded, FieldError
from browsercloud.cdp.connection import CdpError
from browsercloud.cdp.screencast import Screencast
from browsercloud.wire import invalid, read

CALL_TIMEOUT = 10.0
MAX_TEXT = 100_000
MAX_NAME = 40
MAX_FINGERS = 10
MAX_PLACE = 100_000
SCHEMES = ("http", "https", "about", "data")
FORBIDDEN = ("javascript", "file", "chrome", "devtools", "view-source", "blob", "filesystem")
HOST = re.compile(
    r"(localhost|\[[0-9a-f:]+\]|[\w-]+(\.[\w-]+)+|[\w-]+(?=:\d))(:\d+)?([/?#].*)?", re.I
)


def _within(low: float, high: float) -> Bounded:
    def check(_: object, attribute: Any, value: float) -> None:
        if not low <= value <= high:
            raise FieldError(attribute.name, f"must be between {low:g} and {high:g}")

    return Bounded(check, {"minimum": low, "maximum": high})


def _no_longer_than(most: int) -> Bounded:
    def check(_: object, attribute: Any, value: str | tuple[Any, ...]) -> None:
        if len(value) > most:
            raise FieldError(attribute.name, f"must be no longer than {most}")

    return Bounded(check, {"maxLength": most})


_PLACE, _BITS = _within(-MAX_PLACE, MAX_PLACE), _within(0, 31)


@frozen(kw_only=True)
class MouseEvent:
    """The mouse moves, a button changes, the wheel turns."""

    type: Literal["mouse"]
    kind: Literal["mouseMoved", "mousePressed", "mouseReleased", "mouseWheel"]
    x: float = field(validator=_PLACE)
    y: float = field(validator=_PLACE)
    button: Literal["none", "left", "middle", "right", "back", "forward"] = "none"
    buttons: int = field(default=0, validator=_BITS)
    modifiers: int = field(default=0, validator=_within(0, 15))
    clicks: int = field(default=0, validator=_within(0, 3))
    wheel_x: float = field(default=0.0, validator=_PLACE)
    wheel_y: float = field(default=0.0, validator=_PLACE)

    def call(self) -> tuple[str, Mapping[str, Any]]:
        """The CDP command."""
        told: dict[str, Any] = {
            "type": self.kind,
            "x": self.x,
            "y": self.y,
            "button": self.button,
            "buttons": self.buttons,
            "modifiers": self.modifiers,
            "clickCount": self.clicks,
        }
        if self.kind == "mouseWheel":
            told |= {"deltaX": self.wheel_x, "deltaY": self.wheel_y}
        return "Input.dispatchMouseEvent", told


@frozen(kw_only=True)
class KeyEvent:
    """A key goes down or comes up, as `KeyboardEvent` tells it."""

    type: Literal["key"]
    down: bool
    key: str = field(validator=_no_longer_than(MAX_NAME))
    code: str = field(default="", validator=_no_longer_than(MAX_NAME))
    number: int = field(default=0, validator=_within(0, 65_535))
    """`keyCode`."""

    text: str = field(default="", validator=_no_longer_than(4))
    """What it types, if it types something."""

    location: int = field(default=0, validator=_within(0, 3))
    modifiers: int = field(default=0, validator=_within(0, 15))
    repeat: bool = False

    def call(self) -> tuple[str, Mapping[str, Any]]:
        """The CDP command."""
        kind = "keyUp" if not self.down else "keyDown" if self.text else "rawKeyDown"
        told: dict[str, Any] = {
            "type": kind,
            "key": self.key,
            "code": self.code,
            "windowsVirtualKeyCode": self.number,
            "location": self.location,
            "modifiers": self.modifiers,
            "autoRepeat": self.repeat,
            "isKeypad": self.location == 3,
        }
        if kind == "keyDown":
            told["text"] = self.text
        return "Input.dispatchKeyEvent", told


@frozen(kw_only=True)
class TextEvent:
    """Text arrives as a whole: pasted, or composed to its end."""

    type: Literal["text"]
    text: str = field(repr=False, validator=_no_longer_than(MAX_TEXT))

    def call(self) -> tuple[str, Mapping[str, Any]]:
        """The CDP command."""
        return "Input.insertText", {"text": self.text}


@frozen(kw_only=True)
class ComposeEvent:
    """Text is being composed: what stands there until it is committed; empty takes it back."""

    type: Literal["compose"]
    text: str = field(repr=False, validator=_no_longer_than(MAX_TEXT))

    def call(self) -> tuple[str, Mapping[str, Any]]:
        """The CDP command."""
        end = len(self.text.encode("utf-16-le")) // 2
        told = {"text": self.text, "selectionStart": end, "selectionEnd": end}
        return "Input.imeSetComposition", told


@frozen(kw_only=True)
class Finger:
    """Where one finger is."""

    id: int = field(validator=_within(0, 2**31))
    x: float = field(validator=_PLACE)
    y: float = field(validator=_PLACE)


@frozen(kw_only=True)
class TouchEvent:
    """Fingers touch, move and leave; *fingers* are those that touch now."""

    type: Literal["touch"]
    kind: Literal["touchStart", "touchMove", "touchEnd", "touchCancel"]
    fingers: tuple[Finger, ...] = field(default=(), validator=_no_longer_than(MAX_FINGERS))
    modifiers: int = field(default=0, validator=_within(0, 15))

    def call(self) -> tuple[str, Mapping[str, Any]]:
        """The CDP command."""
        points = [{"id": each.id, "x": each.x, "y": each.y} for each in self.fingers]
        told = {"type": self.kind, "touchPoints": points, "modifiers": self.modifiers}
        return "Input.dispatchTouchEvent", told


@frozen(kw_only=True)
class GoEvent:
    """The page goes somewhere: to an address, one step in its history, or where it is."""

    type: Literal["go"]
    to: Literal["address", "back", "forward", "reload"]
    address: str = field(default="", repr=False, validator=_no_longer_than(8_000))
    """As somebody types it: `example.com` is one too."""


@frozen(kw_only=True)
class TabEvent:
    """A tab is opened, closed, or put in front."""

    type: Literal["tab"]
    do: Literal["open", "close", "show"]
    page_id: str = field(default="", validator=_no_longer_than(MAX_NAME))


Event = MouseEvent | KeyEvent | TextEvent | ComposeEvent | TouchEvent | GoEvent | TabEvent
_BY_TYPE: Mapping[str, type[Any]] = {
    "mouse": MouseEvent,
    "key": KeyEvent,
    "text": TextEvent,
    "compose": ComposeEvent,
    "touch": TouchEvent,
    "go": GoEvent,
    "tab": TabEvent,
}


def read_event(message: Any) -> Event:
    """One message of a viewer. Raises `InvalidRequest` that names the field."""
    kind = message.get("type") if isinstance(message, Mapping) else None
    model = _BY_TYPE.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise invalid([("type", f"must be one of {', '.join(_BY_TYPE)}")])
    event: Event = read(message, model)
    if isinstance(event, GoEvent) and event.to == "address":
        full_address(event.address)
    return event


def full_address(typed: str) -> str:
    """The URL that somebody means who types this. Raises `InvalidRequest` for what may not be."""
    text = typed.strip()
    scheme = urlsplit(text).scheme.lower()
    if scheme in SCHEMES:
        return text
    if scheme not in FORBIDDEN and HOST.fullmatch(text):
        local = text.lower().startswith(("localhost", "127.", "[::1]"))
        return f"http{'' if local else 's'}://{text}"
    if not text or scheme or "\\" in text:
        raise invalid([("address", f"must be an address with {', '.join(SCHEMES)}")])
    raise invalid([("address", f"is no address; write https://{quote_plus(text[:40])}")])


async def do(cast: Screencast, event: Event) -> None:
    """Do to the browser what the person did. Raises `CdpError` when it refuses or is silent."""
    if isinstance(event, TabEvent):
        await _tab(cast, event)
        return
    page = cast.cdp_session_id
    if page is None:
        raise CdpError("there is no page")
    if isinstance(event, GoEvent):
        await _go(cast, event, page)
        return
    method, told = event.call()
    await cast.cdp.send(method, told, page, timeout=CALL_TIMEOUT)


async def _tab(cast: Screencast, event: TabEvent) -> None:
    match event.do:
        case "open":
            await cast.cdp.send("Target.createTarget", {"url": "about:blank"}, timeout=CALL_TIMEOUT)
        case "close":
            if [tab.id for tab in cast.view.tabs] == [event.page_id]:
                # A browser ends with its last tab, and with it the session.
                blank = {"url": "about:blank"}
                await cast.cdp.send("Target.createTarget", blank, timeout=CALL_TIMEOUT)
            wanted = {"targetId": event.page_id}
            await cast.cdp.send("Target.closeTarget", wanted, timeout=CALL_TIMEOUT)
        case "show":
            await cast.show(event.page_id)


async def _go(cast: Screencast, event: GoEvent, page: str) -> None:
    if event.to == "reload":
        await cast.cdp.send("Page.reload", {}, page, timeout=CALL_TIMEOUT)
        return
    if event.to == "address":
        wanted = {"url": full_address(event.address)}
        reply = await cast.cdp.send("Page.navigate", wanted, page, timeout=CALL_TIMEOUT)
        if reply.get("errorText") and not reply.get("isDownload"):
            raise CdpError(f"the page cannot be opened: {reply['errorText']}")
        return
    history = await cast.cdp.send("Page.getNavigationHistory", {}, page, timeout=CALL_TIMEOUT)
    index = history["currentIndex"] + (1 if event.to == "forward" else -1)
    if 0 <= index < len(history["entries"]):
        entry = {"entryId": history["entries"][index]["id"]}
        await cast.cdp.send("Page.navigateToHistoryEntry", entry, page, timeout=CALL_TIMEOUT)
