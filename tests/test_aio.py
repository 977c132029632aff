"""Finishing what must be finished."""

import asyncio
import time

import pytest

from browsercloud._aio import close_all, deadline, join, settle, stop_task


async def test_settle_returns_the_result() -> None:
    """Undisturbed it is an await."""

    async def work() -> int:
        return 7

    assert await settle(work, patience=1) == 7


async def test_settle_holds_cancellations_back() -> None:
    """Cancelled three times, the work still ends, and the cancellation is raised then."""
    begun, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.sleep(0.1)
        done.set()

    task = asyncio.create_task(settle(work, patience=5))
    await begun.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()


async def test_settle_begins_again() -> None:
    """Somebody who cancels every task of the loop does not end the work."""
    runs, begun, done = [], asyncio.Event(), asyncio.Event()

    async def work() -> None:
        runs.append(asyncio.current_task())
        begun.set()
        await asyncio.sleep(0.05)
        done.set()

    task = asyncio.create_task(settle(work, patience=5))
    await begun.wait()
    runs[0].cancel()  # type: ignore[union-attr]
    await task
    assert len(runs) == 2
    assert done.is_set()


async def test_settle_is_bounded() -> None:
    """Work that never ends is given up after its patience."""
    begun = time.monotonic()
    with pytest.raises(TimeoutError, match="sweeping did not end within 0.1 s"):
        await settle(lambda: asyncio.sleep(60), patience=0.1, what="sweeping")
    assert time.monotonic() - begun < 1


async def test_settle_raises_what_the_work_raises() -> None:
    """An error of the work is the caller's, unless a cancellation outranks it."""

    async def work() -> None:
        await asyncio.sleep(0.02)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await settle(work, patience=1)
    task = asyncio.create_task(settle(work, patience=1))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_settle_inside_a_timeout() -> None:
    """`asyncio.timeout` around it becomes `TimeoutError` after the work, not during it."""
    done = []

    async def work() -> None:
        await asyncio.sleep(0.1)
        done.append(True)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await settle(work, patience=5)
    assert done == [True]


async def test_close_all_goes_on() -> None:
    """Reverse order, all of them, and every failure is reported."""
    closed: list[str] = []

    def closer(name: str, error: Exception | None = None):  # type: ignore[no-untyped-def]
        async def close() -> None:
            closed.append(name)
            if error is not None:
                raise error

        return close

    with pytest.raises(ExceptionGroup) as caught:
        await close_all(
            [closer("first"), closer("second", OSError("a")), closer("third", ValueError("b"))]
        )
    assert closed == ["third", "second", "first"]
    assert [str(error) for error in caught.value.exceptions] == ["b", "a"]
    with pytest.raises(OSError, match="a"):
        await close_all([closer("only", OSError("a"))])


async def test_join_does_not_cancel() -> None:
    """Being cancelled while waiting leaves the other task alone."""
    other = asyncio.create_task(asyncio.sleep(0.05, "kept"))
    waiting = asyncio.create_task(join(other))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await other == "kept"


async def test_stop_task() -> None:
    """It has ended when the call returns; none and an ended one are fine."""
    task = asyncio.create_task(asyncio.sleep(60))
    await stop_task(task)
    assert task.cancelled()
    await stop_task(task)
    await stop_task(None)


async def test_deadline_says_what() -> None:
    """The error names what took too long."""
    with pytest.raises(TimeoutError, match="reading took longer than 0.01 s"):
        async with deadline(0.01, "reading"):
            await asyncio.sleep(1)
