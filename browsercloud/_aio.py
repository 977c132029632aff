"""Finishing what must be finished, whatever cancels us. The only place for shielding."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


async def settle(work: Callable[[], Awaitable[T]], *, patience: float, what: str = "clean-up") -> T:
    """Run *work* to its end in a task of its own and return its result.

    A cancellation of the caller, once or many times, is held back until *work* has ended and raised
    then. If somebody cancels the inner task itself, as `asyncio.run` does with every task when its
    main one is done, *work* is begun again: it must be safe to repeat.

    *patience* is the bound in seconds for all of it; beyond it the inner task is cancelled and
    `TimeoutError` is raised. An error of *work* that a cancellation outranks is logged.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    cancelled: asyncio.CancelledError | None = None
    task = _begin(work)
    while True:
        try:
            await asyncio.wait({task}, timeout=max(0.0, end - loop.time()))
        except asyncio.CancelledError as error:
            cancelled = error
            continue
        if task.done() and task.cancelled() and loop.time() < end:
            task = _begin(work)
            continue
        break
    if not task.done():
        task.cancel(f"{what} took longer than {patience:g} s")
        task.add_done_callback(forget)
        log.error("%s did not end within %g s", what, patience)
    if cancelled is not None:
        failure = task.exception() if task.done() and not task.cancelled() else None
        if failure is not None:
            log.error("%s failed while being cancelled: %s", what, failure, exc_info=failure)
        raise cancelled
    if not task.done() or task.cancelled():
        raise TimeoutError(f"{what} did not end within {patience:g} s")
    return task.result()


def _begin(work: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
    async def run() -> T:
        return await work()

    return asyncio.get_running_loop().create_task(run())


def forget(task: asyncio.Future[Any]) -> None:
    """Read the outcome of a task nobody waits for, so that asyncio does not call it lost."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("a task that was given up ended with %r", error)


def give_up(task: asyncio.Task[Any]) -> None:
    """Cancel *task* without waiting for it."""
    task.cancel()
    task.add_done_callback(forget)


async def join(task: asyncio.Task[T] | asyncio.Future[T]) -> T:
    """Wait for *task* and return its result; being cancelled here does not cancel it."""
    await asyncio.wait({task})
    return task.result()


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking *work* in a thread; at the interpreter's end, when there are none, right here.

    Cancelling it does not stop the work.
    """
    try:
        return await asyncio.to_thread(work)
    except RuntimeError as error:
        if "cannot schedule new futures" not in str(error):
            raise
    return work()


async def stop_task(task: asyncio.Task[Any] | None) -> None:
    """Cancel *task* and wait for its end. An error it ends with is logged, never raised.

    Being cancelled while waiting raises at once: the task has its own cancellation already.
    """
    if task is None or task.done():
        return
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a stopped task ended with %r", error, exc_info=error)


async def close_all(closers: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Call every closer, one after the other, in the reverse order of opening.

    Goes on after a failure, and after a cancellation; raises what went wrong at the end:
    the first `BaseException` that is no `Exception`, else all failures as one `ExceptionGroup`, or
    the only one as it is.
    """
    failures: list[Exception] = []
    fatal: BaseException | None = None
    for closer in reversed(list(closers)):
        try:
            await closer()
        except Exception as error:
            failures.append(error)
        except BaseException as error:
            fatal = fatal or error
    if fatal is not None:
        for failure in failures:
            log.error("closing failed: %s", failure, exc_info=failure)
        raise fatal
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup("several parts failed to close", failures)


def keep_alive(found: Any, *, idle: int, interval: int, count: int) -> None:
    """Let the kernel find out when the other end of a connection is gone without a word.

    *found* is the transport's socket, or `None`; after *idle* seconds of silence it is asked every
    *interval* seconds, *count* times. Nothing of this reaches the program at the other end.
    """
    if found is None:
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # macOS calls the first one otherwise.
    name = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE")  # noqa: B009
    found.setsockopt(socket.IPPROTO_TCP, name, idle)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)


def deadline(seconds: float, what: str) -> _Deadline:
    """`asyncio.timeout` whose `TimeoutError` says what took too long."""
    return _Deadline(seconds, what)


class _Deadline:
    def __init__(self, seconds: float, what: str) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._message = f"{what} took longer than {seconds:g} s"

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *exc_info: Any) -> None:
        try:
            await self._timeout.__aexit__(*exc_info)
        except TimeoutError as error:
            raise TimeoutError(self._message) from error
