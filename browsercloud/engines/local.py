"""Browsers on this machine: one Chromium for each session, in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from browsercloud._aio import close_all, deadline, in_thread, settle
from browsercloud.browser.capacity import capacity, room
from browsercloud.browser.chromedriver import Chromedrivers
from browsercloud.browser.find import Found
from browsercloud.browser.first_page import show
from browsercloud.browser.guard import Guard
from browsercloud.browser.launch import Launched, Launcher, adopt
from browsercloud.browser.memory import MemoryWatch
from browsercloud.browser.pool import FIRST_REST, Pool, Trade
from browsercloud.browser.process import BrowserProcess
from browsercloud.browser.warm import Kind, fit, needs_fresh, warm
from browsercloud.cdp.connection import CdpError
from browsercloud.engines.adoption import endpoint_in
from browsercloud.engines.base import BrowserHandle, Usage, refused_lambdatest_options
from browsercloud.engines.folders import Left, is_embedded
from browsercloud.engines.holding import Holding
from browsercloud.engines.programs import Programs
from browsercloud.engines.running import Running
from browsercloud.errors import LaunchFailed, UsageError
from browsercloud.models import BrowserExit, Capacity
from browsercloud.options import Adapter, Browser, SessionOptions

START_TIMEOUT = 30.0
RESTORE_PATIENCE = 8.0
"""Seconds for a browser of a dead server to answer; many may be asked at a time."""

STOP_PATIENCE = 60.0
"""Seconds for ending a browser and removing its folder, beyond the grace it was given."""

CLOSE_GRACE = 2.0
RETRY_AFTER = 5.0
"""Seconds until the remains of a failed start are cleaned up again, if that failed too."""

log = logging.getLogger(__name__)


class LocalEngine:
    """The `Engine` that runs Chromium as processes of this machine.

    *data_dir* belongs to one engine at a time; see `folders`. *chromium*, *headless_shell* and
    *chromedriver* are paths, for when the search of `find` should not decide. *start_timeout*
    bounds one start, in seconds. *orphan_grace* is how many seconds the browsers outlive a kill of
    this process, for a successor to `restore` them; an embedded engine leaves nothing, whatever it
    says. *memory_cap* is how many bytes one session may use before it is ended; 0: as many as there
    are. *pool_size* is how many browsers are started ahead, and *max_sessions* how many there may
    be with them; `None`: the `capacity`.

    Between `open` and `sweep` it answers for what an earlier engine has left: closed in that time,
    it leaves that to the guard of that engine if it still waits for a successor, else ends it.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        *,
        chromium: str | os.PathLike[str] | None = None,
        headless_shell: str | os.PathLike[str] | None = None,
        chromedriver: str | os.PathLike[str] | None = None,
        start_timeout: float = START_TIMEOUT,
        orphan_grace: float = 0,
        memory_cap: int = 0,
        pool_size: int = 0,
        max_sessions: int | None = None,
    ) -> None:
        self.data_dir = Path(data_dir).absolute()
        self._programs = Programs(
            {Browser.CHROMIUM: chromium, Browser.HEADLESS_SHELL: headless_shell}
        )
        self._start_timeout = start_timeout
        self._grace = 0 if is_embedded(self.data_dir) else orphan_grace
        self._launcher = Launcher()
        self._chromedrivers = Chromedrivers(chromedriver)
        self._holding = Holding(self.data_dir, self._grace)
        self._browsers: dict[str, Running] = {}
        self._memory = MemoryWatch(self._alive, memory_cap)
        self._behind: set[asyncio.Task[None]] = set()
        self._pool_size = pool_size
        self._pool: Pool[Kind, Running] | None = None
        self._max_sessions = max_sessions
        self._capacity: Capacity | None = None
        self._open = False

    async def open(self) -> None:
        """Find the browsers, take the data folder, look what a killed predecessor left.

        Raises `BrowserNotFound` when there is neither kind, or a setting leads nowhere;
        `UsageError` when another engine lives in the data folder.
        """
        if self._open:
            return
        await self._holding.take()
        try:
            await self._holding.watch_over()
            await in_thread(self._programs.look)
            self._capacity = await in_thread(lambda: capacity(room()))
            await self._memory.start()
            self._start_ahead()
        except BaseException:
            await settle(self._let_go, patience=STOP_PATIENCE)
            raise
        self._open = True

    async def restore(
        self, session_id: str, options: SessionOptions, state: Mapping[str, Any]
    ) -> BrowserHandle | None:
        """Take over a browser of a killed predecessor; see `Engine.restore`. Any number at once."""
        taken = self._holding.take_left(session_id, state)
        if taken is None:
            return None
        name, left = taken
        try:
            return await self._restore(session_id, options, state, left)
        except (OSError, CdpError) as error:  # a TimeoutError too
            log.warning("session %s cannot be restored: %s", session_id, error)
            return None
        finally:
            if session_id not in self._browsers:
                self._holding.left[name] = left

    async def sweep(self) -> None:
        """End and remove what is left of earlier engines; see `Engine.sweep`. Failures are logged.

        From now on an earlier engine's guard need not wait any more. What dead embedded engines
        have left elsewhere goes behind, before `close` returns: no first page waits for that.
        """
        await self._holding.sweep()
        self._go_on(self._holding.sweep_siblings())

    def refuses(self, options: SessionOptions) -> Sequence[tuple[str, str]]:
        """What only TestMu's cloud could do."""
        return refused_lambdatest_options(options)

    def capacity(self) -> Capacity:
        """For how many sessions cores and memory of this machine suffice, and the sum."""
        if self._capacity is None:
            raise UsageError("the engine is not open")
        return self._capacity

    async def usage(self) -> Mapping[str, Usage]:
        """What every running browser takes; empty where the system does not tell, as on macOS."""
        measured = await self._memory.usage()
        return {name: Usage(processes=n, memory=size) for name, (n, size) in measured.items()}

    async def close(self) -> None:
        """Stop every browser, remove an embedded data folder, let go of it. Safe to call twice.

        Raises `OSError`, or a group of them, when something is left over.
        """
        self._open = False
        await settle(self._let_go, patience=STOP_PATIENCE + CLOSE_GRACE, what="closing the engine")

    async def start(self, session_id: str, options: SessionOptions) -> BrowserHandle:
        """Start a browser for the session; see `Engine.start`. Any number may start at once."""
        if not self._open:
            raise UsageError("the engine is not open")
        if Path(session_id).name != session_id:
            raise UsageError(f"{session_id!r} is no session id")
        if session_id in self._browsers or session_id in self._holding.left:
            raise UsageError(f"session {session_id} has a browser already")
        options = options.of(session_id)
        found = self._programs.of(options.browser)
        running = Running(session_id, self._folder(session_id))
        self._browsers[session_id] = running
        try:
            async with deadline(self._start_timeout, "the start of the browser"):
                if options.adapter is Adapter.SELENIUM:
                    await self._chromedrivers.fitting(found.path)  # before there is a browser
                pooled = await self._from_pool(running, options)
                handle = pooled or await self._fresh(running, found, options)
                if options.start_url is not None:
                    await show(handle.endpoint, options.start_url)
                return handle
        except TimeoutError as error:
            running = self._browsers.get(session_id, running)
            await self._discard(running)
            words = running.process.words[-5:] if running.process else ()
            raise LaunchFailed(
                f"{error}; last words: {' | '.join(words) or 'none'}. Is the machine overloaded? "
                "`browsercloud doctor` says what is wrong with it"
            ) from error
        except OSError as error:
            await self._discard(self._browsers.get(session_id, running))
            raise LaunchFailed(f"the browser cannot be started: {error}") from error
        except BaseException:
            await self._discard(self._browsers.get(session_id, running))
            raise

    async def stop(self, handle: BrowserHandle, *, grace: float) -> None:
        """End the browser, then remove its folder; see `Engine.stop`."""
        running = self._of(handle)
        if running is not None:
            if grace <= 0 and running.process is not None:
                running.process.kill()  # now, also when a more patient stop is under way
            await settle(
                lambda: self._end(running, grace),
                patience=STOP_PATIENCE + grace,
                what="stopping a browser",
            )

    async def poll(self, handle: BrowserHandle) -> BrowserExit | None:
        """`None` while the main process runs, else how it ended; see `Engine.poll`."""
        running = self._of(handle)
        if running is None or running.process is None:
            return handle.exited.result() if handle.exited.done() else BrowserExit()
        return running.process.poll()

    async def webdriver(self, handle: BrowserHandle) -> str:
        """The address of a chromedriver for this browser; see `Engine.webdriver`."""
        running = self._of(handle)
        if running is None or running.process is None or running.ending.locked():
            raise LaunchFailed("the browser is being stopped, or is gone")
        program = Path(running.process.mark.program)
        return await self._chromedrivers.address(handle.session_id, program, running.folder)

    def leave_nothing(self) -> None:
        """Nobody is to take over from here: if we are killed now, nothing gets the grace."""
        if self._guard is not None:
            for running in self._browsers.values():
                self._guard.ending(running.folder.name)

    @property
    def sandbox_reason(self) -> str | None:
        """Why Chromium's own sandbox is off, as far as is known by now; `None` while it is on."""
        return self._launcher.sandbox_reason

    def running(self) -> Mapping[str, BrowserHandle]:
        """Every started browser that `stop` has not finished with, by session id."""
        return {
            session_id: running.handle
            for session_id, running in self._browsers.items()
            if running.handle is not None
        }

    def _of(self, handle: BrowserHandle) -> Running | None:
        running = self._browsers.get(handle.session_id)
        return running if running is not None and running.handle is handle else None

    @property
    def _guard(self) -> Guard | None:
        return self._holding.guard

    def _folder(self, name: str) -> Path:
        return self.data_dir / "sessions" / name

    async def _restore(
        self, session_id: str, options: SessionOptions, state: Mapping[str, Any], left: Left
    ) -> BrowserHandle | None:
        endpoint = await in_thread(partial(endpoint_in, state, left))
        if endpoint is None:
            log.warning("session %s cannot be restored: its browser is gone", session_id)
            return None
        async with deadline(RESTORE_PATIENCE, "the browser's answer"):
            pooled = Path(left.mark.folder).name != session_id
            launched = await adopt(
                options.of(session_id), session_id, left.mark, endpoint, pooled=pooled
            )
        running = Running(session_id, Path(left.mark.folder), process=launched.process)
        self._memory.again(running.folder.name, launched.process)
        self._browsers[session_id] = running
        if self._pool is not None:
            self._pool.yield_room()
        return running.hand_out(launched, self._guard)

    def _alive(self) -> Mapping[str, BrowserProcess]:
        return {
            key: running.process
            for key, running in self._browsers.items()
            if running.process is not None
            and not running.spare
            and not running.process.exited.done()
        }

    def _start_ahead(self) -> None:
        trade = Trade(
            make=self._ahead,
            end=self._discard,
            ended=lambda running: running.exited,
            room=self._room,
        )
        self._pool = Pool(
            trade,
            self._pool_size,
            kinds=[Kind(self._programs.usual())],
            first_rest=FIRST_REST if is_embedded(self.data_dir) else 0.0,
        )
        self._pool.open()

    def _room(self) -> int:
        most = self._max_sessions or self.capacity().sessions
        used = sum(not running.spare for running in self._browsers.values())
        return most - used - len(self._holding.left)

    async def _ahead(self, kind: Kind) -> Running:
        """A warm browser that no session has; it is in `_browsers` already."""
        found, options = self._programs.of(kind.browser), kind.options()
        name = f"ahead-{secrets.token_hex(8)}"
        running = self._browsers[name] = Running(name, self._folder(name), spare=True)
        try:
            async with deadline(self._start_timeout, "starting a browser ahead"):
                running.launched = await self._launch(running, found, options)
                running.warm = await warm(
                    running.launched, kind.browser, self._launcher.frame_of(found)
                )
        except CdpError as error:
            await self._discard(running)
            raise LaunchFailed(f"a browser that was started ahead is silent: {error}") from error
        except BaseException:
            await self._discard(running)
            raise
        return running

    async def _from_pool(self, reserved: Running, options: SessionOptions) -> BrowserHandle | None:
        """A browser that was started ahead, fitted to *options*, in place of the *reserved* one."""
        key = reserved.key
        while self._pool is not None and not needs_fresh(options):
            running = await self._pool.take(Kind.of(options))
            if running is None or running.warm is None:
                return None
            if self._browsers.get(key) is not reserved:  # the engine is being closed
                await self._discard(running)
                return None
            self._rename(running, key)
            try:
                launched = await fit(running.warm, options, key)
            except CdpError as error:
                log.warning("a browser that was started ahead does not answer: %s", error)
                self._rename(running, running.folder.name)
                self._browsers[key] = reserved
                self._go_on(self._discard(running))
                continue
            if launched.overrides is None:
                self._go_on(running.warm.cdp.close())
            return running.hand_out(launched, self._guard)
        return None

    def _rename(self, running: Running, key: str) -> None:
        del self._browsers[running.key]
        running.key, running.spare = key, False
        self._browsers[key] = running

    def _go_on(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it behind; closing waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def _fresh(
        self, running: Running, found: Found, options: SessionOptions
    ) -> BrowserHandle:
        with contextlib.nullcontext() if self._pool is None else self._pool.starting():
            return running.hand_out(await self._launch(running, found, options), self._guard)

    async def _launch(self, running: Running, found: Found, options: SessionOptions) -> Launched:
        if self._guard is None or self._browsers.get(running.key) is not running:
            raise LaunchFailed("the engine was closed meanwhile")
        return await running.launch(
            self._launcher, found, options, guard=self._guard, memory=self._memory
        )

    async def _discard(self, running: Running) -> None:
        try:
            await settle(
                lambda: self._end(running, 0),
                patience=STOP_PATIENCE,
                what="undoing a start",
            )
        except OSError as error:
            # The start's own error matters more. It stays in `_browsers`: closing tries again too.
            log.warning("something of %s is left: %s; trying again", running.key, error)
            loop = asyncio.get_running_loop()
            loop.call_later(RETRY_AFTER, self._discard_again, running)

    def _discard_again(self, running: Running) -> None:
        if self._open:
            self._go_on(self._discard(running))

    async def _end(self, running: Running, grace: float) -> None:
        """The one way out of `_browsers`: group first, folder last. Safe to repeat."""
        async with running.ending:
            if self._browsers.get(running.key) is not running:
                return
            await self._chromedrivers.stop(running.key)
            await running.end(self._guard, grace)
            del self._browsers[running.key]
            if self._guard is not None:
                self._guard.gone(running.folder.name)

    async def _let_go(self) -> None:
        steps = (self._release, self._stop_all, self._memory.close, self._wait, self._close_pool)
        await close_all(steps)

    async def _close_pool(self) -> None:
        if self._pool is not None:
            await self._pool.close()

    async def _wait(self) -> None:
        if self._behind:
            await asyncio.wait(self._behind)

    async def _stop_all(self) -> None:
        results = await asyncio.gather(
            *(self._end(running, CLOSE_GRACE) for running in list(self._browsers.values())),
            return_exceptions=True,
        )
        failures = [result for result in results if isinstance(result, Exception)]
        if failures:
            raise ExceptionGroup("some browsers could not be stopped", failures)

    async def _release(self) -> None:
        await self._holding.release(lambda: not self._browsers)
