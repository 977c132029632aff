"""Cancels a coroutine at every place where it can be cancelled, one place for each run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any


class SuspendedAt:
    """Awaits *work*; when it is suspended for the *n*-th time, *then* is called soon after."""

    def __init__(
        self, work: Coroutine[Any, Any, object], n: int, then: Callable[[], object], again: int = 0
    ) -> None:
        self.work = work
        self.then = then
        self.at = {n, n + again}
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, object]:
        steps = self.work.__await__()
        value: object = None
        error: BaseException | None = None
        while True:
            try:
                waits_for = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as stop:
                return stop.value
            self.suspensions += 1
            if self.suspensions in self.at:
                # After the task has begun to wait, as any other task would do it.
                asyncio.get_running_loop().call_soon(self.then)
            value, error = None, None
            try:
                value = yield waits_for
            except BaseException as thrown:
                error = thrown


async def at_every_await(
    work: Callable[[], Coroutine[Any, Any, object]],
    after_each: Callable[[], Awaitable[None]],
    *,
    again: int = 0,
    every: int = 1,
) -> int:
    """Run *work* until it is not cancelled any more, cancelling one suspension further each time.

    With *again* a second cancellation follows so many suspensions later. Each run must end, with
    `CancelledError` or by itself, and *after_each* checks what it left. Returns how many places
    were tried.
    """
    n = 1
    while True:
        task, runner = _cancelled_at(work(), n, again)
        await asyncio.wait({task}, timeout=60)
        assert task.done(), f"cancelled at suspension {n}, it never ended"
        if not task.cancelled():
            task.result()
        await after_each()
        if runner.suspensions < n:
            return n - 1
        n += every


def _cancelled_at(
    work: Coroutine[Any, Any, object], n: int, again: int
) -> tuple[asyncio.Task[object], SuspendedAt]:
    def cancel() -> None:
        task.cancel()

    runner = SuspendedAt(work, n, cancel, again)

    async def run() -> object:
        return await runner

    task = asyncio.create_task(run())
    return task, runner
