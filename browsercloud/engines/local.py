"""Browsers on this machine: one Chromium for each session, in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, field

from browsercloud._aio import close_all, deadline, in_thread, settle
from browsercloud.browser import group, guard
from browsercloud.browser.capacity import capacity, room
from browsercloud.browser.chromedriver import Chromedrivers
from browsercloud.browser.find import Found
from browsercloud.browser.guard import Guard
from browsercloud.browser.launch import Launched, Launcher, adopt
from browsercloud.browser.memory import MemoryWatch
from browsercloud.browser.process import BrowserProcess
from browsercloud.cdp.connection import CdpError
from browsercloud.engines.adoption import endpoint_in, state_of
from browsercloud.engines.base import BrowserHandle, Usage, refused_lambdatest_options
from browsercloud.engines.folders import (
    PRIVATE,
    Left,
    Lock,
    is_embedded,
    left_over,
    make_private,
    sweep,
    sweep_siblings,
    write_mark,
)
from browsercloud.engines.programs import Programs
from browsercloud.errors import LaunchFailed, UsageError
from browsercloud.models import Adapter, Browser, BrowserExit, Capacity, SessionOptions

START_TIMEOUT = 30.0
RESTORE_PATIENCE = 8.0
"""Seconds for a browser of a dead server to answer; many may be asked at a time."""

STOP_PATIENCE = 60.0
"""Seconds for ending a browser and removing its folder, beyond the grace it was given."""

CLOSE_GRACE = 2.0
RETRY_AFTER = 5.0
"""Seconds until the remains of a failed start are cleaned up again, if that failed too."""

ROOT = "data_dir"
"""Under this name the guard knows an embedded engine's whole folder."""

log = logging.getLogger(__name__)


@define(eq=False)
class _Running:
    """A browser from the first file of its folder to the last."""

    folder: Path
    process: BrowserProcess | None = None
    launched: Launched | None = None
    handle: BrowserHandle | None = None
    ending: asyncio.Lock = field(factory=asyncio.Lock)


class LocalEngine:
    """The `Engine` that runs Chromium as processes of this machine.

    *data_dir* belongs to one engine at a time; see `folders`. *chromium*, *headless_shell* and
    *chromedriver* are paths, for when the search of `find` should not decide. *start_timeout*
    bounds one start, in seconds. *orphan_grace* is how many seconds the browsers outlive a kill of
    this process, for a successor to `restore` them; an embedded engine leaves nothing, whatever it
    says. *memory_cap* is how many bytes one session may use before it is ended; 0: as many as there
    are.

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
    ) -> None:
        self.data_dir = Path(data_dir).absolute()
        self._programs = Programs(
            {Browser.CHROMIUM: chromium, Browser.HEADLESS_SHELL: headless_shell}
        )
        self._start_timeout = start_timeout
        self._grace = 0 if is_embedded(self.data_dir) else orphan_grace
        self._launcher = Launcher()
        self._chromedrivers = Chromedrivers(chromedriver)
        self._lock = Lock(self.data_dir)
        self._guard: Guard | None = None
        self._browsers: dict[str, _Running] = {}
        self._left: dict[str, Left] = {}
        self._memory = MemoryWatch(self._alive, memory_cap)
        self._discarding: set[asyncio.Task[None]] = set()
        self._capacity: Capacity | None = None
        self._open = False

    async def open(self) -> None:
        """Find the browsers, take the data folder, look what a killed predecessor left.

        Raises `BrowserNotFound` when there is neither kind, or a setting leads nowhere;
        `UsageError` when another engine lives in the data folder.
        """
        if self._open:
            return
        await self._lock.acquire()
        try:
            await self._watch_over()
            await in_thread(self._programs.look)
            self._capacity = await in_thread(lambda: capacity(room()))
            await self._memory.start()
        except BaseException:
            await settle(self._let_go, patience=STOP_PATIENCE)
            raise
        self._open = True

    async def restore(
        self, session_id: str, options: SessionOptions, state: Mapping[str, Any]
    ) -> BrowserHandle | None:
        """Take over a browser of a killed predecessor; see `Engine.restore`. Any number at once."""
        left = self._left.pop(session_id, None)
        if left is None:
            return None
        try:
            return await self._restore(session_id, options, state, left)
        except (OSError, CdpError) as error:  # a TimeoutError too
            log.warning("session %s cannot be restored: %s", session_id, error)
            return None
        finally:
            if session_id not in self._browsers:
                self._left[session_id] = left

    async def sweep(self) -> None:
        """End and remove what is left of earlier engines; see `Engine.sweep`. Failures are logged.

        From now on an earlier engine's guard need not wait any more.
        """
        found = set(self._left)

        def work() -> None:
            sweep(self.data_dir, found)
            if is_embedded(self.data_dir):
                sweep_siblings(self.data_dir)

        try:
            await settle(lambda: in_thread(work), patience=STOP_PATIENCE, what="the sweep")
        except OSError as error:
            log.warning("something of an earlier engine is left: %s", error)
        still = await in_thread(partial(left_over, self.data_dir))
        for session_id in found - still.keys():
            del self._left[session_id]
            if self._guard is not None:
                self._guard.gone(session_id)
        if self._guard is not None:
            self._guard.taken()

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
        if not self._open or self._guard is None:
            raise UsageError("the engine is not open")
        if Path(session_id).name != session_id:
            raise UsageError(f"{session_id!r} is no session id")
        if session_id in self._browsers or session_id in self._left:
            raise UsageError(f"session {session_id} has a browser already")
        found = self._programs.of(options.browser)
        running = _Running(self.data_dir / "sessions" / session_id)
        self._browsers[session_id] = running
        try:
            async with deadline(self._start_timeout, "the start of the browser"):
                return await self._start(session_id, running, found, options, self._guard)
        except TimeoutError as error:
            await self._discard(session_id, running)
            words = running.process.words[-5:] if running.process else ()
            raise LaunchFailed(
                f"{error}; last words: {' | '.join(words) or 'none'}. Is the machine overloaded? "
                "`browsercloud doctor` says what is wrong with it"
            ) from error
        except OSError as error:
            await self._discard(session_id, running)
            raise LaunchFailed(f"the browser cannot be started: {error}") from error
        except BaseException:
            await self._discard(session_id, running)
            raise

    async def stop(self, handle: BrowserHandle, *, grace: float) -> None:
        """End the browser, then remove its folder; see `Engine.stop`."""
        running = self._of(handle)
        if running is not None:
            if grace <= 0 and running.process is not None:
                running.process.kill()  # now, also when a more patient stop is under way
            await settle(
                lambda: self._end(handle.session_id, running, grace),
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
            for session_id in self._browsers:
                self._guard.ending(session_id)

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

    def _of(self, handle: BrowserHandle) -> _Running | None:
        running = self._browsers.get(handle.session_id)
        return running if running is not None and running.handle is handle else None

    async def _watch_over(self) -> None:
        """Start the guard, with all that is there: were we killed now, nothing would be lost."""
        make_private(self.data_dir / "sessions")
        assert self._lock.fd is not None  # noqa: S101 - just acquired
        self._left = await in_thread(partial(left_over, self.data_dir))
        self._guard = Guard(str(self.data_dir), self._lock.fd, self._grace)
        self._guard.start()
        if is_embedded(self.data_dir):
            self._guard.folder(ROOT, self.data_dir)
        for session_id, (mark, complete) in self._left.items():
            self._guard.folder(session_id, Path(mark.folder))
            self._guard.browser(session_id, mark)
            if complete:
                self._guard.adoptable(session_id)

    async def _restore(
        self, session_id: str, options: SessionOptions, state: Mapping[str, Any], left: Left
    ) -> BrowserHandle | None:
        endpoint = await in_thread(partial(endpoint_in, state, left))
        if endpoint is None:
            log.warning("session %s cannot be restored: its browser is gone", session_id)
            return None
        async with deadline(RESTORE_PATIENCE, "the browser's answer"):
            launched = await adopt(options, left.mark, endpoint)
        running = _Running(Path(left.mark.folder), process=launched.process)
        self._memory.again(session_id, launched.process)
        self._browsers[session_id] = running
        return self._handed_out(session_id, running, launched)

    def _handed_out(self, session_id: str, running: _Running, launched: Launched) -> BrowserHandle:
        running.launched = launched
        running.handle = BrowserHandle(
            session_id=session_id,
            endpoint=launched.endpoint,
            user_agent=launched.user_agent,
            exited=launched.process.exited,
            state=state_of(launched.process.mark, launched.endpoint),
        )
        return running.handle

    def _alive(self) -> Mapping[str, BrowserProcess]:
        return {
            session_id: running.process
            for session_id, running in self._browsers.items()
            if running.process is not None and not running.process.exited.done()
        }

    async def _start(
        self,
        session_id: str,
        running: _Running,
        found: Found,
        options: SessionOptions,
        guard: Guard,
    ) -> BrowserHandle:
        def started(process: BrowserProcess) -> None:
            running.process = process
            self._memory.begin(session_id, process)
            guard.browser(session_id, process.mark)
            write_mark(running.folder, process.mark, complete=False)

        if options.adapter is Adapter.SELENIUM:
            await self._chromedrivers.fitting(found.path)  # before a browser is started for it
        guard.folder(session_id, running.folder)
        for folder in (running.folder, running.folder / "profile", running.folder / "tmp"):
            folder.mkdir(mode=PRIVATE)
        launched = await self._launcher.launch(found, options, running.folder, started=started)
        write_mark(running.folder, launched.process.mark, complete=True)
        guard.adoptable(session_id)
        return self._handed_out(session_id, running, launched)

    async def _discard(self, session_id: str, running: _Running) -> None:
        try:
            await settle(
                lambda: self._end(session_id, running, 0),
                patience=STOP_PATIENCE,
                what="undoing a start",
            )
        except OSError as error:
            # The start's own error matters more. It stays in `_browsers`: closing tries again too.
            log.warning("something of session %s is left: %s; trying again", session_id, error)
            loop = asyncio.get_running_loop()
            loop.call_later(RETRY_AFTER, self._discard_again, session_id, running)

    def _discard_again(self, session_id: str, running: _Running) -> None:
        if self._open:
            task = asyncio.create_task(self._discard(session_id, running))
            self._discarding.add(task)
            task.add_done_callback(self._discarding.discard)

    async def _end(self, session_id: str, running: _Running, grace: float) -> None:
        """The one way out of `_browsers`: group first, folder last. Safe to repeat."""
        async with running.ending:
            if self._browsers.get(session_id) is not running:
                return
            await self._chromedrivers.stop(session_id)
            if running.process is not None:
                self._not_adoptable(session_id, running.folder, running.process)
                await running.process.stop(grace=grace)
            if running.launched is not None and running.launched.overrides is not None:
                # After the browser: its end has closed the connection, so this cannot take long.
                await running.launched.overrides.close()
            await in_thread(partial(group.remove, str(running.folder)))
            del self._browsers[session_id]
            if self._guard is not None:
                self._guard.gone(session_id)

    def _not_adoptable(self, session_id: str, folder: Path, process: BrowserProcess) -> None:
        if self._guard is not None:
            self._guard.ending(session_id)
        with contextlib.suppress(OSError):  # the disk is full, or the folder has gone already
            write_mark(folder, process.mark, complete=False)

    async def _let_go(self) -> None:
        steps = (self._release, self._stop_all, self._memory.close, self._wait_for_discarding)
        await close_all(steps)

    async def _wait_for_discarding(self) -> None:
        if self._discarding:
            await asyncio.wait(self._discarding)

    async def _stop_all(self) -> None:
        results = await asyncio.gather(
            *(self._end(key, running, CLOSE_GRACE) for key, running in self._browsers.items()),
            return_exceptions=True,
        )
        failures = [result for result in results if isinstance(result, Exception)]
        if failures:
            raise ExceptionGroup("some browsers could not be stopped", failures)

    async def _release(self) -> None:
        """Folder, guard, lock: in this order, so that a kill in between leaves nothing."""
        own, self._guard = self._guard, None
        removed = False
        try:
            if is_embedded(self.data_dir) and self._lock.fd is not None:
                await in_thread(partial(group.remove, str(self.data_dir)))
                self._left = {}
            removed = not self._browsers and not await self._must_end_left(own)
        finally:
            if own is not None:
                await own.close(goodbye=removed)
            self._lock.release()
            self._left = {}

    async def _must_end_left(self, own: Guard | None) -> bool:
        if not self._left or own is None:
            return False
        if not self._grace:
            return True
        return not await in_thread(partial(guard.others, str(self.data_dir), own.pid))
