"""A hand on a page's mouse and keyboard, over a CDP connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from attrs import Factory, define

from browsercloud.cdp.actions import (
    Action,
    ClickMouse,
    DragMouse,
    GetCursorPosition,
    MoveMouse,
    PressKey,
    Scroll,
    TakeScreenshot,
    TypeText,
    Wait,
)
from browsercloud.cdp.connection import CdpConnection, CdpError
from browsercloud.cdp.keys import MODIFIERS, Key, find_key, on_keyboard, shifted

INPUT_TIMEOUT = 10.0
"""How long a page may take for one event, in seconds. One that shows a dialog takes for ever."""

GIVE_UP_PATIENCE = 1.0
"""How long a page may take to hear that keys and buttons are up after a failure, in seconds."""

BUTTONS: Mapping[str, int] = {"left": 1, "right": 2, "middle": 4, "back": 8, "forward": 16}
"""The bits by which events tell what is held."""


@define(eq=False)
class Mouse:
    """Where a session's mouse is, and what it holds: no page tells that."""

    x: float = 0.0
    y: float = 0.0
    held: int = 0
    """Its buttons that are down, as the sum of their `BUTTONS`."""

    turn: asyncio.Lock = Factory(asyncio.Lock)
    """There is one mouse and one keyboard: one action at a time."""


async def perform(endpoint: str, page_id: str, action: Action, mouse: Mouse) -> str:
    """Do *action* to the page of the browser at *endpoint*, and say what was done.

    *page_id* is a CDP target. Keys are up again when it returns or raises; a button stays down when
    that was asked for. Raises `CdpError` when the browser refuses or does not answer in time.
    """
    match action:
        case Wait():
            await asyncio.sleep(action.duration)
            return f"waited {action.duration:g} s"
        case GetCursorPosition():
            return f"X={mouse.x:g},Y={mouse.y:g}"
        case TakeScreenshot():
            return "took a screenshot"
    async with mouse.turn, await CdpConnection.open(endpoint, timeout=INPUT_TIMEOUT) as browser:
        asked = {"targetId": page_id, "flatten": True}
        attached = await browser.send("Target.attachToTarget", asked, timeout=INPUT_TIMEOUT)
        return await _Hand(browser, attached["sessionId"], mouse).do(action)


class _Hand:
    """Moves the mouse and presses keys. Its own keys are all up when it is done."""

    def __init__(self, browser: CdpConnection, cdp_session_id: str, mouse: Mouse) -> None:
        self._browser = browser
        self._cdp_session_id = cdp_session_id
        self._mouse = mouse
        self._modifiers = 0

    async def do(
        self, action: MoveMouse | ClickMouse | DragMouse | Scroll | PressKey | TypeText
    ) -> str:
        if isinstance(action, PressKey):
            async with self._holding(action.keys):
                await asyncio.sleep(action.duration)
            return f"pressed {'+'.join(action.keys)}"
        async with self._holding(action.hold_keys):
            match action:
                case MoveMouse():
                    await self._move(action.coordinates)
                    return f"moved the mouse to {self._place}"
                case ClickMouse():
                    return await self._click(action)
                case DragMouse():
                    await self._drag(action.path)
                    return f"dragged to {self._place}"
                case Scroll():
                    await self._scroll(action)
                    return f"scrolled at {self._place}"
                case TypeText():
                    await self._type(action.text)
                    return f"typed {len(action.text)} characters"

    @property
    def _place(self) -> str:
        return f"({self._mouse.x:g}, {self._mouse.y:g})"

    async def _move(self, to: tuple[float, ...]) -> None:
        self._mouse.x, self._mouse.y = to
        await self._mouse_event("mouseMoved")

    async def _click(self, action: ClickMouse) -> str:
        if action.coordinates is not None:
            await self._move(action.coordinates)
        for count in range(1, action.num_clicks + 1):
            if action.click_type != "up":
                await self._button(action.button, down=True, count=count)
            if action.click_type != "down":
                await self._button(action.button, down=False, count=count)
        word = {"click": "clicked", "down": "pressed", "up": "released"}[action.click_type]
        return f"{word} the {action.button} button at {self._place}"

    async def _drag(self, path: Iterable[tuple[float, ...]]) -> None:
        start, *rest = path
        await self._move(start)
        try:
            await self._button("left", down=True)
            for point in rest:
                await self._move(point)
        except BaseException:
            await self._give_up(self._button("left", down=False))
            raise
        await self._button("left", down=False)

    async def _scroll(self, action: Scroll) -> None:
        if action.coordinates is not None:
            await self._move(action.coordinates)
        await self._mouse_event("mouseWheel", deltaX=action.delta_x, deltaY=action.delta_y)

    async def _type(self, text: str) -> None:
        for char in text.replace("\r\n", "\n"):
            if not on_keyboard(char):
                await self._send("Input.insertText", {"text": char})
                continue
            async with self._holding((char,)):
                pass

    async def _button(self, name: str, *, down: bool, count: int = 1) -> None:
        bit = BUTTONS[name]
        # The pressed button counts as held in its own event already, the released one no more.
        self._mouse.held = self._mouse.held | bit if down else self._mouse.held & ~bit
        kind = "mousePressed" if down else "mouseReleased"
        await self._mouse_event(kind, button=name, clickCount=count)

    async def _mouse_event(self, kind: str, **more: Any) -> None:
        if kind == "mouseMoved":
            # While one is dragged with, pages are told which; the first of them if there are more.
            held = (name for name, bit in BUTTONS.items() if self._mouse.held & bit)
            more["button"] = next(held, "none")
        where = {"x": self._mouse.x, "y": self._mouse.y}
        told = {"buttons": self._mouse.held, "modifiers": self._modifiers, **where, **more}
        await self._send("Input.dispatchMouseEvent", {"type": kind, **told})

    @asynccontextmanager
    async def _holding(self, names: Iterable[str]) -> AsyncIterator[None]:
        """Keys that are down in the block; they come up in the reverse order, whatever happens."""
        down: list[Key] = []
        try:
            for name in names:
                await self._press(name, down)
            yield
        except BaseException:
            await self._give_up(self._release(down))
            raise
        await self._release(down)

    async def _release(self, down: Iterable[Key]) -> None:
        for key in reversed([*down]):
            self._modifiers &= ~MODIFIERS.get(key.key, 0)
            await self._send("Input.dispatchKeyEvent", key.up(self._modifiers))

    async def _give_up(self, work: Coroutine[Any, Any, None]) -> None:
        """Let go after a failure, if the page still hears it; the failure is what is told."""
        with contextlib.suppress(CdpError, TimeoutError):
            async with asyncio.timeout(GIVE_UP_PATIENCE):
                await work

    async def _press(self, name: str, down: list[Key]) -> None:
        key = find_key(name)
        if key is None:
            raise ValueError(f"there is no key {name!r}")  # the action was read without its checks
        if self._modifiers & MODIFIERS["Shift"]:
            key = shifted(key)
        down.append(key)
        self._modifiers |= MODIFIERS.get(key.key, 0)
        await self._send("Input.dispatchKeyEvent", key.down(self._modifiers))

    async def _send(self, method: str, params: Mapping[str, Any]) -> None:
        await self._browser.send(method, params, self._cdp_session_id, timeout=INPUT_TIMEOUT)
