"""What a session's pages are told about the browser, applied before their first request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from browsercloud._aio import give_up
from browsercloud.cdp.connection import CdpConnection, CdpError
from browsercloud.cdp.look import Call, Look
from browsercloud.options import Dimensions

AUTO_ATTACH = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
OVERRIDE_TIMEOUT = 10.0

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
        self._telling: set[asyncio.Task[None]] = set()
        cdp.on("Target.attachedToTarget", self._attached)

    async def apply(self) -> None:
        """Begin; returns when the present pages are told. The connection is ours from now on."""
        granting = self._say("the browser", None, [*self._look.grants(None)])
        await asyncio.gather(granting, self._cdp.send("Target.setAutoAttach", AUTO_ATTACH))
        while self._telling:
            await asyncio.wait(self._telling)

    async def close(self) -> None:
        """Let go; the pages keep nothing of it. Safe to call twice."""
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
        calls: list[Call] = [
            *self._look.calls(kind, waits=waits),
            ("Target.setAutoAttach", AUTO_ATTACH),
            ("Runtime.runIfWaitingForDebugger", {}),
        ]
        await self._say(f"a {kind}", session, calls)

    async def _say(self, whom: str, session: str | None, calls: Sequence[Call]) -> None:
        # Sent together, as a target that waits answers some calls only when it runs. They are
        # carried out in this order.
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
