"""Playwright's `click`, `type` and `fill` at the pace of a person, for one session's pages.

Whatever page, frame or locator is asked, the frame that it is in does the work, so each frame of
the session gets functions of its own. Playwright's classes, and with them every other browser of
the program, stay as they are. Frames are found where Playwright keeps them for itself; should that
move, `pace` says so.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from browsercloud.errors import UsageError

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Frame, Page

BEFORE = (0.050, 0.150)
"""Seconds before anything is done."""

EACH_KEY = (0.030, 0.130)
"""Seconds from one character to the next."""

KIND = """element => {
  const field = element instanceof HTMLLabelElement && element.control || element;
  if (field.isContentEditable || field.nodeName === 'TEXTAREA') return 'lines';
  const typed = ['text', 'search', 'url', 'tel', 'email', 'password'];
  return field.nodeName === 'INPUT' && typed.includes(field.type) ? 'line' : 'other';
}"""
VALUE = """element => {
  const field = element instanceof HTMLLabelElement && element.control || element;
  return field.isContentEditable ? field.innerText : field.value;
}"""


def pace(context: BrowserContext) -> None:
    """From now on, act like a person on every page of *context*, those to come included."""
    for page in context.pages:
        _page(page)
    context.on("page", _page)


def _page(page: Page) -> None:
    for frame in page.frames:
        _frame(frame)
    page.on("frameattached", _frame)


def _frame(frame: Frame) -> None:
    inner: Any = getattr(frame, "_impl_obj", None)
    used = ("click", "type", "fill", "wait_for_selector", "_timeout")
    if not all(callable(getattr(inner, name, None)) for name in used):
        raise UsageError(
            "humanize_interactions does not know this version of Playwright: "
            "install the one that this package was tested with, or leave it out"
        )
    if "fill" not in vars(inner):
        person = _Person(inner)
        inner.click, inner.type, inner.fill = person.click, person.type, person.fill


class _Clock:
    """What is left of an action's timeout, in Playwright's milliseconds; 0 is for ever."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._begun = time.monotonic()

    def left(self) -> float:
        if not self._limit:
            return 0.0
        return max(1.0, self._limit - (time.monotonic() - self._begun) * 1000)


class _Person:
    """Acts in one frame, with Playwright's own functions."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self._click, self._type, self._fill = frame.click, frame.type, frame.fill

    async def click(self, selector: str, **options: Any) -> None:
        await _pause(BEFORE)
        await self._click(selector, **options)

    async def type(self, selector: str, text: str, **options: Any) -> None:
        """Character by character; a *delay* of the caller's own is kept to."""
        clock = self._clock(options)
        await _pause(BEFORE)
        if options.get("delay") or not text:
            await self._type(selector, text, **options, timeout=clock.left())
            return
        await self._keys(selector, text, options, clock)

    async def fill(self, selector: str, value: str, **options: Any) -> None:
        """Empty the field, then type; what keys cannot write is filled in at once."""
        clock, strict = self._clock(options), options.get("strict")
        await _pause(BEFORE)
        kind = "other"
        if value and (value.replace("\n", "").isprintable()):
            await self._fill(selector, "", **options, timeout=clock.left())
            kind = await self._look(selector, KIND, strict, clock)
        if kind == "lines" or (kind == "line" and "\n" not in value):
            await _pause(EACH_KEY)
            keys = {"delay": None, "strict": strict, "no_wait_after": None}
            await self._keys(selector, value, keys, clock)
            if await self._look(selector, VALUE, strict, clock) == value:
                return
            # The page writes it otherwise, or the field is too short for it.
        await self._fill(selector, value, **options, timeout=clock.left())

    async def _keys(
        self, selector: str, text: str, options: Mapping[str, Any], clock: _Clock
    ) -> None:
        for at, character in enumerate(text):
            if at:
                await _pause(EACH_KEY)
            await self._type(selector, character, **options, timeout=clock.left())

    async def _look(self, selector: str, what: str, strict: bool | None, clock: _Clock) -> Any:
        element = await self._frame.wait_for_selector(
            selector, strict=strict, timeout=clock.left(), state="attached"
        )
        try:
            return await element.evaluate(what, None)
        finally:
            await element.dispose()

    def _clock(self, options: dict[str, Any]) -> _Clock:
        return _Clock(self._frame._timeout(options.pop("timeout", None)))  # noqa: SLF001


async def _pause(bounds: tuple[float, float]) -> None:
    await asyncio.sleep(random.uniform(*bounds))  # noqa: S311 - nothing has to be secret
