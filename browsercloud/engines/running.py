"""One browser of a local engine, from the first file of its folder to the last."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from pathlib import Path

from attrs import define, field

from browsercloud._aio import in_thread
from browsercloud.browser import group
from browsercloud.browser.find import Found
from browsercloud.browser.guard import Guard
from browsercloud.browser.launch import Launched, Launcher
from browsercloud.browser.memory import MemoryWatch
from browsercloud.browser.process import BrowserProcess
from browsercloud.browser.warm import Warm
from browsercloud.engines.adoption import state_of
from browsercloud.engines.base import BrowserHandle
from browsercloud.engines.folders import PRIVATE, write_mark
from browsercloud.models import BrowserExit
from browsercloud.options import SessionOptions


@define(eq=False)
class Running:
    """A browser of the engine's. The guard knows it by the name of its folder."""

    key: str
    """By which the engine knows it: a session's id, or its folder's name until it has one."""

    folder: Path
    spare: bool = False
    """Whether it was started ahead and nobody has it yet."""

    process: BrowserProcess | None = None
    launched: Launched | None = None
    warm: Warm | None = None
    handle: BrowserHandle | None = None
    ending: asyncio.Lock = field(factory=asyncio.Lock)

    @property
    def exited(self) -> asyncio.Future[BrowserExit]:
        """Done when its process is gone; there has to be one."""
        assert self.process is not None  # noqa: S101
        return self.process.exited

    async def launch(
        self,
        launcher: Launcher,
        found: Found,
        options: SessionOptions,
        *,
        guard: Guard,
        memory: MemoryWatch,
    ) -> Launched:
        """Make the folder and start the browser, watched over from the first moment."""
        name = self.folder.name

        def started(process: BrowserProcess) -> None:
            self.process = process
            memory.begin(name, process)
            guard.browser(name, process.mark)
            write_mark(self.folder, process.mark, complete=False)

        guard.folder(name, self.folder)
        for folder in (self.folder, self.folder / "profile", self.folder / "tmp"):
            folder.mkdir(mode=PRIVATE)
        session_id = None if self.spare else self.key
        launched = await launcher.launch(
            found, options, self.folder, session_id=session_id, started=started
        )
        self.launched = launched
        # Of one that is not taken yet nobody knows the state, so nobody can adopt it.
        write_mark(self.folder, launched.process.mark, complete=True)
        return launched

    def hand_out(self, launched: Launched, guard: Guard | None) -> BrowserHandle:
        """The session's from now on: a successor may take it over."""
        if guard is not None:
            guard.adoptable(self.folder.name)
        self.launched = launched
        self.handle = BrowserHandle(
            session_id=self.key,
            endpoint=launched.endpoint,
            user_agent=launched.user_agent,
            exited=launched.process.exited,
            state=state_of(launched.process.mark, launched.endpoint),
        )
        return self.handle

    async def end(self, guard: Guard | None, grace: float) -> None:
        """Group first, folder last. Safe to repeat."""
        if self.process is not None:
            if guard is not None:
                guard.ending(self.folder.name)
            with contextlib.suppress(OSError):  # the disk is full, or the folder has gone already
                mark = partial(write_mark, self.folder, self.process.mark, complete=False)
                await in_thread(mark)
            await self.process.stop(grace=grace)
        if self.launched is not None and self.launched.display is not None:
            await self.launched.display.stop()
        # After the browser: its end has closed the connections, so this cannot take long.
        if self.warm is not None:
            await self.warm.cdp.close()
        if self.launched is not None and self.launched.overrides is not None:
            await self.launched.overrides.close()
        await in_thread(partial(group.remove, str(self.folder)))
