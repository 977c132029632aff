"""What browsers use of the machine's memory, and the end of those that use too much.

Two measures: the sum of resident sizes (RSS) is cheap and counts shared pages again and again, so
it is never too low; the proportional size (PSS) is what a browser really takes, and costs some
milliseconds for each process. The second is only asked for where it could decide something.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import NamedTuple

from attrs import define

from browsercloud._aio import in_thread, stop_task
from browsercloud.browser import confine, group
from browsercloud.browser.confine import Confinement
from browsercloud.browser.process import BrowserProcess

INTERVAL = 0.5
"""Seconds between two looks at everybody."""

MAX_INTERVAL = 2.0
SHARE = 20
"""How many times as long as a look it rests at least, up to the longest interval."""

FRESH = 5.0
"""Seconds for which a PSS is good enough to be told."""

REFRESHED = 2
"""Browsers whose PSS is measured anew in one look, the oldest first: 25 ms of a core for each."""

MOVED = 0.25
"""By how much of itself the RSS has changed when a PSS is measured anew before that."""

log = logging.getLogger(__name__)


class Sum(NamedTuple):
    """The processes of one group, and their resident sizes together in bytes."""

    pids: tuple[int, ...]
    resident: int


@define
class _Known:
    """What was measured of one browser, and when."""

    processes: int
    proportional: int
    resident: int
    time: float


def sums(groups: Collection[int]) -> dict[int, Sum]:
    """For each group with a living process, from one scan of `/proc`. Blocks."""
    page = os.sysconf("SC_PAGE_SIZE")
    found: dict[int, Sum] = {}
    for name in os.listdir(group.PROC):
        if not name.isdigit():
            continue
        try:
            stat = (group.PROC / name / "stat").read_text(errors="replace")
        except OSError:  # it has just ended
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        number = int(fields[2])
        if number in groups and fields[0] not in "ZX":
            before = found.get(number, Sum((), 0))
            size = int(fields[21]) * page
            found[number] = Sum((*before.pids, int(name)), before.resident + size)
    return found


def proportional(pids: Collection[int]) -> int:
    """The PSS of these processes in bytes, without those that have ended. Blocks.

    One that does not let itself be looked at counts with its RSS.
    """
    return sum(_proportional(pid) for pid in pids)


def _proportional(pid: int) -> int:
    folder = group.PROC / str(pid)
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def can_watch() -> bool:
    """Whether this system tells what processes use: Linux does."""
    return group.has_proc()


class MemoryWatch:
    """Keeps the memory cap of each browser, and knows what they use.

    *browsers* gives those that run, by session id; *cap* is how many bytes one may use, 0 for no
    end. Where control groups can be made the kernel keeps it. Else all are looked at twice a second
    and each that has passed its cap is ended, and only that: between two looks a page can take
    more. Where neither `can_watch` it does nothing.
    """

    def __init__(
        self,
        browsers: Callable[[], Mapping[str, BrowserProcess]],
        cap: int,
    ) -> None:
        self._browsers = browsers
        self._cap = cap
        self._confinement: Confinement | None = None
        self._known: dict[BrowserProcess, _Known] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, on the running loop."""
        if self._cap:
            self._confinement = await in_thread(confine.find)
        if self._confinement is not None:
            await in_thread(self._confinement.tidy)
        if can_watch():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="memory watch")

    async def close(self) -> None:
        """End. Safe to call twice."""
        task, self._task = self._task, None
        await stop_task(task)

    def begin(self, session_id: str, browser: BrowserProcess) -> None:
        """A browser was just started: give it a control group, if there are any."""
        if self._confinement is not None:
            pid = browser.mark.pid
            browser.confined = self._confinement.confine(session_id, pid, self._cap)

    def again(self, session_id: str, browser: BrowserProcess) -> None:
        """A browser was adopted: it may have a control group already."""
        if self._confinement is not None:
            browser.confined = self._confinement.again(session_id, browser.mark.pid)

    async def usage(self) -> dict[str, tuple[int, int]]:
        """Processes and PSS of each browser, some seconds old at most; not of one just started."""
        if can_watch():
            stale = [one for one in self._browsers().values() if self._age(one) > FRESH]
            found = await in_thread(partial(sums, {one.mark.pid for one in stale}))
            await self._weigh_all(stale, found)
        return {
            session: (known.processes, known.proportional)
            for session, browser in self._browsers().items()
            if (known := self._known.get(browser)) is not None
        }

    async def _run(self) -> None:
        while True:
            begun = time.monotonic()
            try:
                await self._look()
            except OSError as error:
                log.warning("memory cannot be watched now: %s", error)
            # Where thousands of other processes run a look is dear, and must not take a core.
            pause = SHARE * (time.monotonic() - begun)
            await asyncio.sleep(min(max(INTERVAL, pause), MAX_INTERVAL))

    async def _look(self) -> None:
        browsers = dict(self._browsers())
        if not browsers:
            self._known.clear()
            return
        found = await in_thread(partial(sums, {one.mark.pid for one in browsers.values()}))
        for session, browser in browsers.items():
            now = found.get(browser.mark.pid)
            if now is None or not self._could_exceed(browser, now):
                continue
            size = await self._weigh(browser, now)
            if size > self._cap:
                said = "session %s uses %d MB of memory and may use %d: ending it"
                log.warning(said, session, size >> 20, self._cap >> 20)
                browser.starve()
        stale = [one for one in browsers.values() if self._stale(one, found)]
        stale.sort(key=self._age, reverse=True)
        await self._weigh_all(stale[:REFRESHED], found)
        living = set(self._browsers().values())
        self._known = {one: known for one, known in self._known.items() if one in living}

    def _could_exceed(self, browser: BrowserProcess, now: Sum) -> bool:
        if not self._cap or browser.confined is not None or now.resident <= self._cap:
            return False
        known = self._known.get(browser)
        if known is None or time.monotonic() - known.time > FRESH:
            return True
        # PSS grows hardly more than RSS does: no need to ask again while that has not moved much.
        return now.resident - known.resident > (self._cap - known.proportional) / 2

    def _stale(self, browser: BrowserProcess, found: Mapping[int, Sum]) -> bool:
        known, now = self._known.get(browser), found.get(browser.mark.pid)
        if known is None or now is None or self._age(browser) > FRESH:
            return True
        return abs(now.resident - known.resident) > known.resident * MOVED

    def _age(self, browser: BrowserProcess) -> float:
        known = self._known.get(browser)
        return float("inf") if known is None else time.monotonic() - known.time

    async def _weigh_all(
        self, browsers: Collection[BrowserProcess], found: Mapping[int, Sum]
    ) -> None:
        for browser in browsers:
            if (now := found.get(browser.mark.pid)) is not None:
                await self._weigh(browser, now)

    async def _weigh(self, browser: BrowserProcess, now: Sum) -> int:
        size = await in_thread(partial(proportional, now.pids))
        # One that has ended meanwhile is weighed by halves: what was known of it is worth more.
        if size and browser.poll() is None:
            browser.memory = size
            known = _Known(len(now.pids), size, now.resident, time.monotonic())
            self._known[browser] = known
        return size
