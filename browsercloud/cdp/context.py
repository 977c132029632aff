"""What a session's pages are told about the browser, applied before their first request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from attrs import frozen

from browsercloud._aio import give_up
from browsercloud.cdp.connection import CdpClosed, CdpConnection, CdpError
from browsercloud.cdp.look import Call, Look
from browsercloud.cdp.shared import SharedClock
from browsercloud.options import Dimensions

AUTO_ATTACH = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
RUN: Call = ("Runtime.runIfWaitingForDebugger", {})
OVERRIDE_TIMEOUT = 10.0
LISTENING_PATIENCE = 1.0
"""Seconds that a new target waits until it has taken all it is told, and then runs anyway."""

log = logging.getLogger(__name__)


@frozen
class NewWindows:
    """Windows that open in the size *usual* get the size *wanted*, frames included."""

    usual: Dimensions
    wanted: Dimensions


class PageOverrides:
    """Gives every page, frame and worker of a browser the same look.

    With *windows* a page that opens a window of the usual size has another one before it runs.
    Each new target waits until it has been told, so its first request is right. Holds until
    `close`; other CDP clients are not disturbed. `navigator.platform` follows only until a page
    moves to another process: Chromium forgets that one.
    """

    def __init__(self, cdp: CdpConnection, look: Look, windows: NewWindows | None = None) -> None:
        self._cdp = cdp
        self._look = look
        self._windows = windows
        self._clock = SharedClock(cdp, look) if look.is_shared else None
        self._contexts: set[str] = set()
        self._telling: set[asyncio.Task[None]] = set()
        cdp.on("Target.attachedToTarget", self._attached)

    async def apply(self) -> None:
        """Begin; returns when the present pages are told. The connection is ours from now on."""
        calls = [*self._look.grants(None), ("Target.setAutoAttach", AUTO_ATTACH)]
        if self._clock is not None:
            calls.append(self._clock.WATCH)
        for answer in await self._say("the browser", None, calls):
            if isinstance(answer, CdpClosed):
                raise answer
        while self._telling:
            await asyncio.wait(self._telling)

    async def close(self) -> None:
        """Let go; the pages keep nothing of it. Safe to call twice."""
        if self._clock is not None:
            self._clock.close()
        for task in self._telling:
            give_up(task)
        await self._cdp.close()

    def _attached(self, params: Mapping[str, Any], _: str | None) -> None:
        task = asyncio.get_running_loop().create_task(
            self._tell(
                params["sessionId"], params["targetInfo"], waits=params["waitingForDebugger"]
            )
        )
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, session: str, target: Mapping[str, Any], *, waits: bool) -> None:
        """Tell one target and everything under it, and let it run whatever happens."""
        kind = target["type"]
        if kind == "page" and self._windows is not None:
            await self._enlarge(target["targetId"], self._windows)
        calls = [*self._look.calls(kind, waits=waits), ("Target.setAutoAttach", AUTO_ATTACH)]
        said: list[Awaitable[Any]] = [
            self._allow(target.get("browserContextId")),
            self._say(f"a {kind}", session, calls),
        ]
        if self._clock is not None:
            said.append(self._clock.tell(session, target))
        telling = asyncio.gather(*said)
        try:
            if waits:
                # What has not been answered by then may miss a page that moves to another process.
                await asyncio.wait({telling}, timeout=LISTENING_PATIENCE)
            await self._say(f"a {kind}", session, [RUN])
            await telling
        finally:
            telling.cancel()

    async def _allow(self, context: str | None) -> None:
        """Grant what the session grants in a context that a client has made, too."""
        if context is not None and context not in self._contexts:
            self._contexts.add(context)
            await self._say("a context", None, [*self._look.grants(context)])

    async def _say(self, whom: str, session: str | None, calls: Sequence[Call]) -> Sequence[Any]:
        answers = await asyncio.gather(
            *(
                self._cdp.send(method, params, session, timeout=OVERRIDE_TIMEOUT)
                for method, params in calls
            ),
            return_exceptions=True,
        )
        for (method, _), answer in zip(calls, answers, strict=True):
            if isinstance(answer, CdpError):
                log.debug("%s for %s: %s", method, whom, answer)
            elif isinstance(answer, BaseException):
                raise answer
        return answers

    async def _enlarge(self, target: str, windows: NewWindows) -> None:
        try:
            found = await self._cdp.send(
                "Browser.getWindowForTarget", {"targetId": target}, timeout=OVERRIDE_TIMEOUT
            )
            size = (found["bounds"].get("width"), found["bounds"].get("height"))
            if size != (windows.usual.width, windows.usual.height):
                return  # a tab of a window that has its size, or one whose opener chose it
            bounds = {"width": windows.wanted.width, "height": windows.wanted.height}
            where = {"windowId": found["windowId"], "bounds": bounds}
            await self._cdp.send("Browser.setWindowBounds", where, timeout=OVERRIDE_TIMEOUT)
        except CdpError as error:  # it has closed meanwhile
            log.debug("the size of a new window: %s", error)
