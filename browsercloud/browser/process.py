"""One browser as a process: started, watched, and taken away with everything it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from browsercloud._aio import deadline
from browsercloud.browser.child import Child
from browsercloud.browser.confine import Confined
from browsercloud.browser.group import Mark, Process, mark, members, send
from browsercloud.browser.orphan import Orphan
from browsercloud.browser.words import LastWords, listen
from browsercloud.cdp.connection import CdpClosed, CdpConnection, CdpError
from browsercloud.errors import LaunchFailed
from browsercloud.models import BrowserExit

TERM_PATIENCE = 2.0
"""Seconds between SIGTERM and SIGKILL. Only a browser that ignores `Browser.close` gets there."""

KILL_PATIENCE = 10.0
"""Seconds for the kernel to end what was killed: long only when a disk hangs."""

POLL_INTERVAL = 0.01


class BrowserProcess:
    """A running browser and all it starts: made by `begin`, or by `adopt` of a dead server's.

    On an event loop, which watches it from then on. `exited` is done at once when the main process
    is gone, whoever ended it. `stop` must be called in any case: it waits for the whole group, and
    frees what this object holds. Or `let_go`, which leaves the browser to whoever else has it.
    """

    def __init__(self, process: Child | Orphan, words: LastWords, mark: Mark) -> None:
        self.exited: asyncio.Future[BrowserExit] = asyncio.get_running_loop().create_future()
        self.mark = mark
        self.memory: int | None = None
        """What all of it used when that was last looked at, in bytes (PSS)."""

        self.confined: Confined | None = None
        """Its control group, if whoever started it has given it one."""

        self._process = process
        self._words = words
        self._starved = False
        self._gone = False
        process.exited.add_done_callback(self._ended)

    @classmethod
    def begin(cls, argv: Sequence[str], *, env: Mapping[str, str], folder: Path) -> Self:
        """Start it. Raises `OSError` if that cannot be."""
        reading, writing = listen(folder)
        try:
            child = Child(argv, env=env, cwd=folder, stderr=writing)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return cls(child, LastWords(reading), mark(child.pid, argv[0], str(folder)))

    @classmethod
    def adopt(cls, mark: Mark, endpoint: str) -> Self:
        """Take over one that a server which is dead now had started.

        How it will end is told as far as the system tells it to strangers. Raises `OSError`
        (`ProcessLookupError`) if it is not there.
        """
        orphan = Orphan(mark)
        try:
            reading, writing = listen(Path(mark.folder), again=True)
        except BaseException:
            orphan.release()
            raise
        os.close(writing)
        words = LastWords(reading)
        words.endpoint.set_result(endpoint)
        return cls(orphan, words, mark)

    async def endpoint(self) -> str:
        """The address of the browser's CDP, once it has named it.

        Raises `LaunchFailed` with its last words if it ends before.
        """
        either: set[asyncio.Future[Any]] = {self._words.endpoint, self.exited}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._words.endpoint.done() and not self._words.endpoint.cancelled():
            return self._words.endpoint.result()
        # Standard error may end a moment before the process does.
        await asyncio.wait({self.exited})
        raise LaunchFailed(f"the browser ended while starting: {describe(self.exited.result())}")

    @property
    def words(self) -> tuple[str, ...]:
        """Its last lines on standard error."""
        return self._words.lines

    def kill(self) -> None:
        """SIGKILL the group now, without waiting: `stop` is still to be called."""
        self._signal(signal.SIGKILL)

    def starve(self) -> None:
        """SIGKILL the group, as it has used up its memory; `BrowserExit` will say so."""
        if not self.exited.done():
            self._starved = True
            self.kill()

    def let_go(self) -> None:
        """Free what this object holds; the browser runs on. Safe to call twice."""
        self._process.release()
        self._words.close()
        self._gone = True

    def poll(self) -> BrowserExit | None:
        """How the main process ended, as the system says now; `None` while it runs."""
        if self.exited.done():
            return self.exited.result()
        ended, code = self._process.look()
        return self._exit(code) if ended else None

    async def stop(self, *, grace: float) -> None:
        """End the browser and everything it started: ask, SIGTERM, SIGKILL.

        *grace* is how many seconds it has to follow the request; 0 kills at once. Returns when
        nothing of it lives, whoever killed what; safe to repeat. Raises `OSError` naming the
        processes that outlive a SIGKILL. Wrap it in `settle`: cancelled, it stops waiting.
        """
        if self._gone:
            return
        if grace > 0 and not self.exited.done():
            await self._leave(grace)
        # What a browser leaves behind when it exits (its zygotes, crash handlers) has no use.
        if living := await self._end(signal.SIGKILL, KILL_PATIENCE):
            raise OSError(f"processes outlive SIGKILL: {_shown(living)}")
        with contextlib.suppress(TimeoutError):
            async with deadline(KILL_PATIENCE, "the end of the browser"):
                await asyncio.wait({self.exited})
        self.let_go()
        if self.confined is not None:
            self.confined.remove()

    async def _leave(self, grace: float) -> None:
        """Let it leave by itself, then with SIGTERM."""
        with contextlib.suppress(TimeoutError, CdpError):
            async with deadline(grace, "Browser.close"):
                await self._ask()
                await asyncio.wait({self.exited})
        if not self.exited.done():
            self._signal(signal.SIGTERM)
            await asyncio.wait({self.exited}, timeout=TERM_PATIENCE)

    async def _ask(self) -> None:
        if not self._words.endpoint.done() or self._words.endpoint.cancelled():
            raise CdpError("it has named no endpoint yet")
        async with await CdpConnection.open(self._words.endpoint.result()) as cdp:
            with contextlib.suppress(CdpClosed):  # it may be gone before it has answered
                await cdp.send("Browser.close")

    async def _end(self, number: signal.Signals, patience: float) -> Sequence[Process]:
        """Signal everything of it until nothing lives; what does all the same comes back."""
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        self._signal(number)
        while (living := members(self.mark)) and loop.time() < end:
            # Again each time: something may have been forked between the look and the signal.
            for process in living:
                with contextlib.suppress(PermissionError):
                    send(process, number)
            await asyncio.sleep(POLL_INTERVAL)
        return living

    def _signal(self, number: signal.Signals) -> None:
        # Only while the leader is held, its number, and so the group's, cannot be a stranger's.
        if self._process.held:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            return
        for process in members(self.mark):
            with contextlib.suppress(PermissionError):
                send(process, number)

    def _ended(self, code: asyncio.Future[int | None]) -> None:
        if not self.exited.done():  # whoever awaited it bare and was cancelled has cancelled it
            self.exited.set_result(self._exit(code.result()))

    def _exit(self, code: int | None) -> BrowserExit:
        by_signal = code is not None and code < 0
        by_kernel = self.confined is not None and self.confined.starved()
        if by_kernel and self.confined is not None:
            self.memory = self.confined.cap()
        return BrowserExit(
            exit_code=None if by_signal else code,
            signal=_signal_name(-code) if code is not None and by_signal else None,
            stderr=self._words.lines,
            out_of_memory=self._starved or by_kernel,
            memory=self.memory,
        )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _shown(living: Sequence[Process]) -> str:
    return ", ".join(f"{process.pid} ({process.command[:60]})" for process in living[:5])


def describe(end: BrowserExit) -> str:
    """How a browser ended and what it said last, in one sentence."""
    how = end.signal or (f"exit code {end.exit_code}" if end.exit_code is not None else "unknown")
    said = " | ".join(end.stderr[-5:]) or "it said nothing"
    return f"{how}; last words: {said}"
