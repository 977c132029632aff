"""Browsers started ahead: how many of which kind, when, and for whom. What a browser is, is given.

Nothing here starts or ends a process: an engine hands in how that is done, so that all of it holds
for browsers elsewhere too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from attrs import define, frozen

from browsercloud._aio import in_thread, join, stop_task
from browsercloud.browser.capacity import MACHINE_MEMORY, SESSION_MEMORY, free_memory

K = TypeVar("K", bound=Hashable)
"""What is known of a browser before it is started; equal kinds serve the same requests."""

T = TypeVar("T")

MAX_AGE = 600.0
"""Seconds after which a browser that nobody wanted is replaced."""

REST = 0.1
"""Seconds after a browser was asked for in which none is started ahead.

Whoever asked attaches to it now, and a Chromium that starts takes a core from that.
"""

FIRST_REST = 2.0
"""The same after the first request of all, in somebody's own program: a script that needs one
browser, and ends, does not pay for a second one, and its first page has both cores."""

RETRY_AFTER = 10.0
"""Seconds without another try after a browser could not be started ahead."""

TICK = 5.0
"""Seconds between two looks at memory and ages when nothing else happens."""

REMEMBERED = 8
"""How many requests back it is looked which kinds are wanted."""

log = logging.getLogger(__name__)


@frozen(kw_only=True)
class Trade(Generic[K, T]):
    """How browsers are made and ended, by whoever owns them."""

    make: Callable[[K], Awaitable[T]]
    """Starts one; when it raises, its cancellation included, nothing of it is left."""

    end: Callable[[T], Awaitable[None]]
    """Ends one that nobody has used, at once. Never raises."""

    ended: Callable[[T], asyncio.Future[Any]]
    """Done when it has died by itself."""

    room: Callable[[], int]
    """How many browsers there may be besides those in use."""


@define(eq=False)
class _Spare(Generic[K, T]):
    kind: K
    browser: T
    born: float


@define(eq=False)
class _Launch(Generic[K, T]):
    kind: K
    task: asyncio.Task[T] | None = None
    claimed: bool = False


class Pool(Generic[K, T]):
    """Keeps up to *size* browsers that nobody has used; each is given away once, or ended.

    It yields to demand: what the running sessions need goes first, cores as well as room. *kinds*
    are wanted before anybody has asked; afterwards those that were asked for lately, in
    proportion. *first_rest* is for how many seconds none is started after the first request.
    *free* tells the free memory in bytes, blocking. It must be closed.
    """

    def __init__(
        self,
        trade: Trade[K, T],
        size: int,
        *,
        kinds: Sequence[K],
        max_age: float = MAX_AGE,
        first_rest: float = 0.0,
        parallel: int = max(1, (os.cpu_count() or 1) // 2),
        free: Callable[[], int] = free_memory,
    ) -> None:
        self._trade = trade
        self._size = size
        self._max_age = max_age
        self._first_rest = first_rest
        self._parallel = parallel
        self._free = free
        self._asked: deque[K] = deque(kinds, maxlen=REMEMBERED)
        self._spares: list[_Spare[K, T]] = []
        self._launches: list[_Launch[K, T]] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._starts = 0
        self._rest_until = 0.0
        self._retry_at = 0.0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many browsers wait for somebody."""
        return len(self._spares)

    def open(self) -> None:
        """Begin, on the running loop: the first browser is started at once."""
        if self._size and self._task is None:
            self._refill(self._free())  # here and now, so that whoever comes next finds it begun
            self._task = asyncio.get_running_loop().create_task(self._run(), name="pool")

    async def close(self) -> None:
        """End everything that nobody has taken. Safe to call twice."""
        task, self._task = self._task, None
        await stop_task(task)
        launches = [launch.task for launch in self._launches if launch.task is not None]
        for launch in launches:
            launch.cancel()
        while self._spares:
            self._drop(self._spares[0])
        if waiting := {*launches, *self._ending}:
            await asyncio.wait(waiting)
        if self._ending:  # a launch that ended a moment before it was cancelled
            await asyncio.wait(self._ending)

    async def take(self, kind: K) -> T | None:
        """An unused browser of this kind, the caller's from now on; `None` if there is none.

        It waits for one that is being started, as that is further than a new one would be.
        Cancelled, the browser stays in the pool.
        """
        if self._task is None:
            return None
        self._asked.append(kind)
        rest, self._first_rest = max(REST, self._first_rest), 0.0
        self._rest_until = self._now() + rest
        asyncio.get_running_loop().call_later(rest, self._changed.set)
        self._drop_old()
        for spare in self._spares:
            if spare.kind == kind:
                self._spares.remove(spare)
                return spare.browser
        for launch in self._launches:
            if launch.kind == kind and not launch.claimed:
                return await self._claim(launch)
        return None

    @contextmanager
    def starting(self) -> Iterator[None]:
        """While somebody starts a browser outside the pool: it makes room, and starts none."""
        self._starts += 1
        self.yield_room()
        try:
            yield
        finally:
            self._starts -= 1
            self._changed.set()

    def yield_room(self) -> None:
        """Give up what exceeds the room there is; the ends go on behind."""
        while self._count() > max(0, self._trade.room()):
            waiting = [launch for launch in self._launches if not launch.claimed]
            if waiting and waiting[-1].task is not None:
                self._launches.remove(waiting[-1])
                self._behind(_cancelled(waiting[-1].task))
            else:
                self._drop(self._spares[0])

    async def _claim(self, launch: _Launch[K, T]) -> T | None:
        assert launch.task is not None  # noqa: S101 - it is in the list
        launch.claimed = True
        try:
            await asyncio.wait({launch.task})
        except asyncio.CancelledError:
            launch.claimed = False
            if launch.task.done():
                self._arrived(launch)
            raise
        if launch.task.cancelled() or launch.task.exception() is not None:
            return None
        return launch.task.result()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            self._drop_old()
            self._drop_surplus()
            pause = self._refill(await in_thread(self._free))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    def _refill(self, free: int) -> float:
        """Start one if that is due; how long to wait for what comes next, in seconds."""
        if free < MACHINE_MEMORY and self._spares:
            log.info("little memory is free (%d MB): one browser less is kept ahead", free >> 20)
            self._drop(self._spares[0])
        kind = self._missing()
        if kind is None or self._starts or len(self._launches) >= self._parallel:
            return TICK
        if free < MACHINE_MEMORY + SESSION_MEMORY:
            return TICK
        if (rest := max(self._rest_until, self._retry_at) - self._now()) > 0:
            return min(rest, TICK)
        launch: _Launch[K, T] = _Launch(kind)
        launch.task = asyncio.get_running_loop().create_task(self._make(kind), name="start ahead")
        self._launches.append(launch)
        launch.task.add_done_callback(lambda _: self._launched(launch))
        self._changed.set()
        return TICK

    async def _make(self, kind: K) -> T:
        return await self._trade.make(kind)

    def _launched(self, launch: _Launch[K, T]) -> None:
        if launch in self._launches:
            self._launches.remove(launch)
        self._changed.set()
        if not launch.claimed:
            self._arrived(launch)

    def _arrived(self, launch: _Launch[K, T]) -> None:
        """What nobody waits for any more goes into the pool."""
        assert launch.task is not None  # noqa: S101 - it is done
        if launch.task.cancelled():
            return
        if (error := launch.task.exception()) is not None:
            log.warning("no browser could be started ahead: %s", error)
            self._retry_at = self._now() + RETRY_AFTER
            return
        spare = _Spare(launch.kind, launch.task.result(), self._now())
        self._spares.append(spare)
        if self._task is None:
            self._drop(spare)
            return
        self._trade.ended(spare.browser).add_done_callback(lambda _: self._died(spare))
        self.yield_room()

    def _died(self, spare: _Spare[K, T]) -> None:
        if spare in self._spares:
            log.info("a browser that was kept ahead has died; it is replaced")
            self._drop(spare)

    def _drop(self, spare: _Spare[K, T]) -> None:
        self._spares.remove(spare)
        self._behind(self._trade.end(spare.browser))
        self._changed.set()

    def _behind(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        task = asyncio.get_running_loop().create_task(run(), name="end of a spare browser")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _drop_old(self) -> None:
        for spare in [one for one in self._spares if self._now() - one.born > self._max_age]:
            self._drop(spare)

    def _drop_surplus(self) -> None:
        wanted = self._wanted()
        for kind in {spare.kind for spare in self._spares}:
            spares = [spare for spare in self._spares if spare.kind == kind]
            for spare in spares[: max(0, len(spares) - wanted[kind])]:
                self._drop(spare)

    def _missing(self) -> K | None:
        wanted = self._wanted()
        wanted.subtract(spare.kind for spare in self._spares)
        wanted.subtract(launch.kind for launch in self._launches if not launch.claimed)
        kind, count = max(wanted.items(), key=lambda item: item[1], default=(None, 0))
        return kind if count > 0 else None

    def _wanted(self) -> Counter[K]:
        """How many of each kind there should be; of equal claims the latest request counts."""
        total = min(self._size, max(0, self._trade.room()))
        asked = Counter(reversed(self._asked))  # keeps the order of the first sight: latest first
        shares = {kind: total * count / len(self._asked) for kind, count in asked.items()}
        wanted = Counter({kind: math.floor(share) for kind, share in shares.items()})
        by_rest = sorted(shares, key=lambda kind: wanted[kind] - shares[kind])
        for kind in by_rest[: total - wanted.total()]:
            wanted[kind] += 1
        return wanted

    def _count(self) -> int:
        return len(self._spares) + sum(not launch.claimed for launch in self._launches)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await join(task)
