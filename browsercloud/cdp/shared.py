"""Locale and time zone, of which a process has one for all its pages.

Chromium lets one target of a process hold each of them. A second one is refused the locale, and
has none when it moves to another process; when the holder goes, the others lose both. So whoever
comes last takes over from whoever holds, and all are told again whenever somebody has gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from browsercloud._aio import give_up
from browsercloud.cdp.connection import CdpConnection, CdpError
from browsercloud.cdp.look import PAGES, Call, Look

PATIENCE = 2.0
"""Seconds: for a page that hangs nobody else waits longer."""

SETTLED = 0.1
"""Seconds after which a document that was left has let go of what it held."""

log = logging.getLogger(__name__)


class SharedClock:
    """Tells the targets of a connection, each when it comes, and all when one has gone."""

    WATCH: Call = (
        "Target.setDiscoverTargets",
        {"discover": True, "filter": [{"type": "page"}, {"exclude": True}]},
    )
    """What the browser has to be told for this to be heard of."""

    def __init__(self, cdp: CdpConnection, look: Look) -> None:
        self._cdp = cdp
        self._look = look
        self._sessions: dict[str, tuple[str, str]] = {}
        """CDP session → target and its kind."""

        self._holders: set[str] = set()
        self._urls: dict[str, str] = {}
        self._again: asyncio.Task[None] | None = None
        self._changed = False
        cdp.on("Target.detachedFromTarget", self._detached)
        cdp.on("Target.targetInfoChanged", self._moved)

    def close(self) -> None:
        """Tell nobody any more."""
        if self._again is not None:
            give_up(self._again)

    async def tell(self, session: str, target: Mapping[str, Any]) -> None:
        """Tell a target that has just come, before it runs."""
        kind = target["type"]
        self._sessions[session] = target["targetId"], kind
        if self._look.locale is None:
            await self._say(session, [*self._look.clock()])
            return
        if await self._hold(session) or kind not in PAGES:
            return
        opener = target.get("openerId")
        holders = sorted(self._holders, key=lambda one: self._sessions[one][0] != opener)
        for holder in holders:
            if await self._take_over(session, holder):
                return

    async def _hold(self, session: str) -> bool:
        """Whether it holds the locale now, so that it takes it along."""
        answers = await self._say(session, [*self._look.clock()])
        return self._note(session, answers)

    def _note(self, session: str, answers: Sequence[Any]) -> bool:
        refused = isinstance(answers[0], CdpError)
        if refused or session not in self._sessions:
            self._holders.discard(session)
        else:
            self._holders.add(session)
        return not refused

    async def _take_over(self, session: str, holder: str) -> bool:
        """In one go, so that whatever runs there notices nothing."""
        clock = [*self._look.clock()]
        nothing: list[Call] = [("Emulation.setLocaleOverride", {"locale": ""})]
        said = [(holder, nothing), (session, clock), (holder, clock)]
        _, mine, back = await asyncio.gather(*(self._say(whom, calls) for whom, calls in said))
        self._note(holder, back)
        return self._note(session, mine)

    async def _say(self, session: str, calls: Sequence[Call]) -> Sequence[Any]:
        said = [self._cdp.send(name, params, session, timeout=PATIENCE) for name, params in calls]
        answers = await asyncio.gather(*said, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, CdpError):
                raise answer
        return answers

    def _detached(self, params: Mapping[str, Any], _: str | None) -> None:
        if self._sessions.pop(params["sessionId"], None) is not None:
            self._holders.discard(params["sessionId"])
            self._tell_again()

    def _moved(self, params: Mapping[str, Any], _: str | None) -> None:
        target = params["targetInfo"]
        if self._urls.get(target["targetId"]) != target["url"]:
            self._urls[target["targetId"]] = target["url"]
            self._tell_again()

    def _tell_again(self) -> None:
        self._changed = True
        if self._again is None or self._again.done():
            self._again = asyncio.get_running_loop().create_task(self._tell_all())

    async def _tell_all(self) -> None:
        while self._changed:
            self._changed = False
            await self._say_to_all()
            # The browser tells of a new document a moment before the old one has let go.
            await asyncio.sleep(SETTLED)
            await self._say_to_all()

    async def _say_to_all(self) -> None:
        sessions = [*self._sessions]
        calls = [self._say(session, [*self._look.clock()]) for session in sessions]
        for session, answers in zip(sessions, await asyncio.gather(*calls), strict=True):
            if self._look.locale is not None:
                self._note(session, answers)
