"""A local engine's hold on its data folder: the lock, the guard, and what a dead engine left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from browsercloud._aio import in_thread, settle
from browsercloud.browser import group, guard
from browsercloud.browser.guard import Guard
from browsercloud.engines.folders import (
    Left,
    Lock,
    is_embedded,
    left_over,
    make_private,
    sweep,
    sweep_siblings,
)

SWEEP_PATIENCE = 60.0

ROOT = "data_dir"
"""Under this name the guard knows an embedded engine's whole folder."""

log = logging.getLogger(__name__)


class Holding:
    """The data folder while an engine has it. `left` is by folder name, and so is the guard's word.

    *grace* is how many seconds browsers outlive a kill of this process.
    """

    def __init__(self, data_dir: Path, grace: float) -> None:
        self.data_dir = data_dir
        self.guard: Guard | None = None
        self.left: dict[str, Left] = {}
        self._grace = grace
        self._lock = Lock(data_dir)

    async def take(self) -> None:
        """Take the folder, look what was left. Raises `UsageError` if another engine has it."""
        await self._lock.acquire()

    async def watch_over(self) -> None:
        """Start the guard, with all that is there: were we killed now, nothing would be lost."""
        make_private(self.data_dir / "sessions")
        assert self._lock.fd is not None  # noqa: S101 - just acquired
        self.left = await in_thread(partial(left_over, self.data_dir))
        self.guard = Guard(str(self.data_dir), self._lock.fd, self._grace)
        self.guard.start()
        if is_embedded(self.data_dir):
            self.guard.folder(ROOT, self.data_dir)
        for name, (mark, complete) in self.left.items():
            self.guard.folder(name, Path(mark.folder))
            self.guard.browser(name, mark)
            if complete:
                self.guard.adoptable(name)

    def take_left(self, session_id: str, state: Mapping[str, Any]) -> tuple[str, Left] | None:
        """Take what was left of the browser with this *state*, and the name of its folder."""
        name = state.get("folder", session_id)
        left = self.left.pop(name, None) if isinstance(name, str) else None
        return None if left is None else (name, left)

    async def sweep(self) -> None:
        """End and remove what is left of earlier engines here. Failures are logged.

        From now on an earlier engine's guard need not wait any more.
        """
        found = set(self.left)
        work = partial(sweep, self.data_dir, found)
        try:
            await settle(lambda: in_thread(work), patience=SWEEP_PATIENCE, what="the sweep")
        except OSError as error:
            log.warning("something of an earlier engine is left: %s", error)
        still = await in_thread(partial(left_over, self.data_dir))
        for name in found - still.keys():
            del self.left[name]
            if self.guard is not None:
                self.guard.gone(name)
        if self.guard is not None:
            self.guard.taken()

    async def sweep_siblings(self) -> None:
        """End and remove what embedded engines have left that are dead. Failures are logged."""
        if is_embedded(self.data_dir):
            await in_thread(partial(sweep_siblings, self.data_dir))

    async def release(self, is_empty: Callable[[], bool]) -> None:
        """Folder, guard, lock: in this order, so that a kill in between leaves nothing.

        *is_empty* is whether every browser of our own is gone.
        """
        own, self.guard = self.guard, None
        removed = False
        try:
            if is_embedded(self.data_dir) and self._lock.fd is not None:
                await in_thread(partial(group.remove, str(self.data_dir)))
                self.left = {}
            removed = is_empty() and not await self._must_end_left(own)
        finally:
            if own is not None:
                await own.close(goodbye=removed)
            self._lock.release()
            self.left = {}

    async def _must_end_left(self, own: Guard | None) -> bool:
        if not self.left or own is None:
            return False
        if not self._grace:
            return True
        return not await in_thread(partial(guard.others, str(self.data_dir), own.pid))
