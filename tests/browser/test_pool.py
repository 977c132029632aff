"""The pool's decisions, with browsers that cost nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from browsercloud.browser import pool as pool_module
from browsercloud.browser.capacity import MACHINE_MEMORY
from browsercloud.browser.pool import Pool, Trade
from browsercloud.options import Browser
from tests.processes import until

FULL, SHELL = Browser.CHROMIUM, Browser.HEADLESS_SHELL
PLENTY = 64 << 30


class Fake:
    """A browser: a kind and an end."""

    def __init__(self, kind: Browser) -> None:
        self.kind = kind
        self.exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Yard:
    """Where they are made, and counted."""

    def __init__(self) -> None:
        self.made: list[Fake] = []
        self.ended: list[Fake] = []
        self.beginning = 0
        self.most = 0
        self.room = 10
        self.free = PLENTY
        self.go = asyncio.Event()
        self.go.set()
        self.fails = False

    async def make(self, kind: Browser) -> Fake:
        """Takes until `go` is set."""
        self.beginning += 1
        self.most = max(self.most, self.beginning)
        try:
            await self.go.wait()
            await asyncio.sleep(0)
            if self.fails:
                raise OSError("no")
        finally:
            self.beginning -= 1
        self.made.append(Fake(kind))
        return self.made[-1]

    async def end(self, browser: Fake) -> None:
        """Note it down."""
        self.ended.append(browser)

    def trade(self) -> Trade[Browser, Fake]:
        """What a pool asks for."""
        return Trade(
            make=self.make,
            end=self.end,
            ended=lambda browser: browser.exited,
            room=lambda: self.room,
        )


@pytest.fixture
def yard(monkeypatch: pytest.MonkeyPatch) -> Yard:
    """A yard, with waits that suit a test."""
    monkeypatch.setattr(pool_module, "REST", 0.01)
    monkeypatch.setattr(pool_module, "TICK", 0.02)
    monkeypatch.setattr(pool_module, "RETRY_AFTER", 0.05)
    return Yard()


@pytest_asyncio.fixture
async def pooled(yard: Yard) -> AsyncIterator[Callable[..., Awaitable[Pool[Browser, Fake]]]]:
    """Opens a pool and waits until it is full; afterwards each browser was taken or ended once."""
    pools = []

    async def opened(size: int = 2, *, full: bool = True, **more: Any) -> Pool[Browser, Fake]:
        more.setdefault("kinds", [FULL])
        pool = Pool(yard.trade(), size, parallel=1, free=lambda: yard.free, **more)
        pools.append(pool)
        pool.open()
        if full:
            await until(lambda: size == len(pool), "a full pool")
        return pool

    yield opened
    for pool in pools:
        await pool.close()
        await pool.close()
        assert 0 == len(pool)
        assert await pool.take(FULL) is None
    assert 0 == yard.beginning
    assert len(yard.ended) == len(set(yard.ended))


async def test_the_first_request_of_all_may_have_a_longer_rest(yard: Yard, pooled: Any) -> None:
    """No browser is started for that long after it; whoever asks again ends the waiting."""
    pool = await pooled(1, first_rest=60.0)
    assert await pool.take(FULL) is not None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await until(lambda: len(pool), "a browser too early")
    assert await pool.take(FULL) is None
    await until(lambda: len(pool), "a browser")


async def test_each_is_given_away_once_and_replaced(yard: Yard, pooled: Any) -> None:
    """Ten takers get ten browsers, none of them twice, and the pool is full again afterwards."""
    pool = await pooled(2)
    taken = []
    for _ in range(10):
        await until(lambda: len(pool), "a browser")
        taken.append(await pool.take(FULL))
    assert 10 == len(set(taken))
    await until(lambda: len(pool) == 2, "a full pool")
    assert [] == yard.ended
    await pool.close()
    assert set(yard.made) == {*taken, *yard.ended}


async def test_size_0_is_off(yard: Yard, pooled: Any) -> None:
    """Nothing is started, and there is nothing to take."""
    pool = await pooled(0)
    assert await pool.take(FULL) is None
    assert [] == yard.made


async def test_one_launch_at_a_time(yard: Yard, pooled: Any) -> None:
    """However many are missing, the machine starts no more at once than it was told."""
    await pooled(5)
    assert 1 == yard.most


async def test_a_launch_under_way_is_taken_over(yard: Yard, pooled: Any) -> None:
    """Whoever comes while the first one starts gets that one; the next gets none of it."""
    yard.go.clear()
    pool = await pooled(1, full=False)
    await until(lambda: yard.beginning, "a launch")
    first = asyncio.create_task(pool.take(FULL))
    await asyncio.sleep(0)
    assert await pool.take(FULL) is None
    assert await pool.take(SHELL) is None
    yard.go.set()
    assert await first is yard.made[0]


async def test_a_cancelled_taker_leaves_the_launch_to_the_pool(yard: Yard, pooled: Any) -> None:
    """At any moment: the browser goes to the next taker, and to nobody else."""
    for steps in range(6):
        yard.go.clear()
        pool = await pooled(1, full=False)
        await until(lambda: yard.beginning, "a launch")
        taker = asyncio.create_task(pool.take(FULL))
        await asyncio.sleep(0)
        yard.go.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        taker.cancel()
        (outcome,) = await asyncio.gather(taker, return_exceptions=True)
        if isinstance(outcome, asyncio.CancelledError):
            await until(lambda: len(pool), "the browser")  # noqa: B023
            outcome = await pool.take(FULL)
        assert outcome is yard.made[-1]
        assert outcome not in yard.ended
        await pool.close()


async def test_a_launch_that_fails_is_tried_again(yard: Yard, pooled: Any) -> None:
    """Not at once; who waits for it is told that there is none."""
    yard.fails = True
    yard.go.clear()
    pool = await pooled(1, full=False)
    await until(lambda: yard.beginning, "a launch")
    taker = asyncio.create_task(pool.take(FULL))
    await asyncio.sleep(0)
    yard.go.set()
    assert await taker is None
    await asyncio.sleep(0.03)
    yard.fails = False
    await until(lambda: len(pool) == 1, "a browser")


async def test_a_dead_one_is_replaced(yard: Yard, pooled: Any) -> None:
    """It is ended at once and never given away."""
    pool = await pooled(1)
    dead = yard.made[0]
    dead.exited.set_result(None)
    await until(lambda: len(yard.made) == 2 and len(pool) == 1, "another one")
    assert [dead] == yard.ended
    assert yard.made[1] is await pool.take(FULL)


async def test_an_old_one_is_replaced(yard: Yard, pooled: Any) -> None:
    """After its time it is ended, and a young one is there."""
    pool = await pooled(1, max_age=0.1)
    await until(lambda: len(yard.made) >= 2 and len(pool) == 1, "another one")
    assert yard.made[0] in yard.ended


async def test_it_yields_to_demand(yard: Yard, pooled: Any) -> None:
    """With less room than browsers it ends its own, launches too; later it refills."""
    pool = await pooled(2)
    yard.room = 1
    with pool.starting():
        assert 1 == len(pool)
        yard.room = 0
        pool.yield_room()
        assert 0 == len(pool)
    await until(lambda: len(yard.ended) == 2, "their ends")
    yard.room, yard.go = 2, asyncio.Event()
    await until(lambda: yard.beginning, "a launch")
    yard.room = 0
    pool.yield_room()
    await until(lambda: not yard.beginning, "the end of the launch")
    yard.go.set()
    yard.room = 10
    await until(lambda: len(pool) == 2, "a full pool")


async def test_nothing_starts_ahead_while_somebody_starts(yard: Yard, pooled: Any) -> None:
    """A start outside the pool goes first."""
    pool = await pooled(1)
    with pool.starting():
        await pool.take(FULL)
        await asyncio.sleep(0.06)
        assert 1 == len(yard.made)
    await until(lambda: len(pool) == 1, "a browser")


async def test_no_more_than_the_room_there_is(yard: Yard, pooled: Any) -> None:
    """The setting is an upper bound."""
    yard.room = 1
    pool = await pooled(3, full=False)
    await until(lambda: len(pool) == 1, "a browser")
    await asyncio.sleep(0.06)
    assert (1, 0) == (len(yard.made), yard.beginning)


async def test_little_memory_makes_it_small(yard: Yard, pooled: Any) -> None:
    """Without free memory none is started, and those that are there go."""
    pool = await pooled(2)
    yard.free = MACHINE_MEMORY - 1
    await until(lambda: len(pool) == 0, "an empty pool")
    await asyncio.sleep(0.06)
    assert 2 == len(yard.made)
    yard.free = PLENTY
    await until(lambda: len(pool) == 2, "a full pool")


async def test_it_follows_the_kinds_asked_for(yard: Yard, pooled: Any) -> None:
    """One kind until another is asked for, then both in proportion, then the other alone."""
    pool = await pooled(2)
    assert [FULL, FULL] == [one.kind for one in yard.made]
    kinds = lambda: sorted(one.browser.kind for one in pool._spares)  # noqa: E731
    assert await pool.take(SHELL) is None
    await until(lambda: kinds() == [FULL, SHELL], "one of each")
    for _ in range(8):
        await pool.take(SHELL)
    await until(lambda: kinds() == [SHELL, SHELL], "two shells")
