"""A browser's process that a dead server had started, and that has been adopted."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import struct
import threading
import time
from pathlib import Path

from browsercloud.browser import group
from browsercloud.browser.child import WATCHES_PIDFD, wait_by_kqueue
from browsercloud.browser.group import Mark

LOOK_INTERVAL = 0.2
"""Seconds between two looks where the kernel does not tell of the end."""

# `ioctl(pidfd, PIDFD_GET_INFO)` of Linux 6.13 and later; the exit is told since 6.15.
GET_INFO = 0xC040FF0B
INFO_EXIT = 8
INFO_SIZE = 64
EXIT_CODE_AT = 60


class Orphan:
    """What `Child` is for processes of our own; raises `ProcessLookupError` if it has ended.

    Somebody else collects it: so its number may be given again once it is dead, which is why
    `held` is never true, and how it ended is known only where the kernel tells it to strangers.
    """

    held = False

    def __init__(self, mark: Mark) -> None:
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int | None] = self._loop.create_future()
        """The exit code, negative for a signal, `None` if it cannot be known."""

        self.pid = mark.pid
        self._mark = mark
        self._lock = Path(mark.folder) / "profile" / "SingletonLock"
        # A full Chromium removes it when it leaves in order, and only then; the headless shell
        # never makes one.
        self._locks = os.path.lexists(self._lock)
        self._pidfd = group.hold(mark.pid)
        self._watched = False
        # Asked with the handle held: now the number cannot change its owner unnoticed.
        if not self._lives():
            self.release()
            raise ProcessLookupError(mark.pid)
        self._watch()

    def look(self) -> tuple[bool, int | None]:
        """Whether the process has ended, and its exit code; asks the system."""
        if self.exited.done():
            return True, self.exited.result()
        if self._lives():
            return False, None
        return True, self._code()

    def release(self) -> None:
        """Let go of what is held. Safe to call twice."""
        if self._pidfd is not None:
            if self._watched:
                self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _lives(self) -> bool:
        now = group.look(self.pid)
        return now is not None and not now.zombie and now.start == self._mark.start

    def _code(self) -> int | None:
        # In this order: the system tells it of a zombie until that is collected, then by handle.
        for status in (self._of_zombie(), self._of_handle()):
            if status is not None:
                return os.waitstatus_to_exitcode(status)
        return 0 if self._locks and not os.path.lexists(self._lock) else None

    def _of_zombie(self) -> int | None:
        now = group.look(self.pid)
        if now is None or not now.zombie or now.start != self._mark.start or not group.has_proc():
            return None
        with contextlib.suppress(OSError, ValueError):
            return int(Path(f"/proc/{self.pid}/stat").read_text().split()[-1])
        return None

    def _of_handle(self) -> int | None:
        if self._pidfd is None:
            return None
        answer = bytearray(INFO_SIZE)
        struct.pack_into("Q", answer, 0, INFO_EXIT)
        try:
            fcntl.ioctl(self._pidfd, GET_INFO, answer, True)
        except OSError:  # an older kernel
            return None
        known: int = struct.unpack_from("Q", answer, 0)[0]
        status: int = struct.unpack_from("i", answer, EXIT_CODE_AT)[0]
        return status if known & INFO_EXIT else None

    def _watch(self) -> None:
        if WATCHES_PIDFD and self._pidfd is not None:
            self._loop.add_reader(self._pidfd, self._tell)
            self._watched = True
            return
        threading.Thread(target=self._wait, name=f"orphan-{self.pid}", daemon=True).start()

    def _wait(self) -> None:
        if hasattr(select, "kqueue"):
            with contextlib.suppress(OSError):
                wait_by_kqueue(self.pid)
        while self._lives():
            time.sleep(LOOK_INTERVAL)
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if self._watched and self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            self._watched = False
        if not self.exited.done():
            self.exited.set_result(self._code())
