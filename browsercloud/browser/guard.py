"""The engine's side of the guard: a process that cleans up after us if we are killed.

The other side is `group.main`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from browsercloud.browser import group
from browsercloud.browser.child import Child
from browsercloud.browser.group import Mark

GOODBYE_PATIENCE = 5.0
RESTART_DELAY = 0.5
"""Seconds before another guard is started, so that a machine where none lives is not worn out."""

log = logging.getLogger(__name__)


class Guard:
    """Knows every browser and folder, and tells the guarding process.

    *label* is shown in its command line, and `others` finds it by that. *lock* is the descriptor of
    the data folder's lock: the guard holds it too, so that a successor waits until it has cleaned
    up. With a *grace*, in seconds, it leaves what is adoptable to a successor for so long if we
    are killed, see `group.bequeath`. A guard that dies is replaced.
    """

    def __init__(self, label: str, lock: int | None = None, grace: float = 0) -> None:
        self._label = label
        self._lock = lock
        self._grace = grace
        self._folders: dict[str, str] = {}
        self._browsers: dict[str, Mark] = {}
        self._adoptable: set[str] = set()
        self._taken = False
        self._child: Child | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The guarding process; `None` when there is none at the moment."""
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Start the process and tell it everything. Without a Python to run, only warns."""
        self._restart = None
        python = sys.executable or shutil.which("python3")
        if not python:
            log.warning("no guard: this Python does not know its own program")
            return
        try:
            self._child = Child(
                # -I -S: nothing of the user's environment is imported, and it starts in 15 ms.
                [python, "-I", "-S", group.__file__, *self._arguments()],
                env={},
                cwd=Path("/"),
                stdin=subprocess.PIPE,
                pass_fds=() if self._lock is None else (self._lock,),
            )
        except OSError as error:
            log.warning("no guard: %s", error)
            return
        os.set_blocking(self._pipe(self._child), False)
        self._child.exited.add_done_callback(self._died)
        for key, folder in self._folders.items():
            self._tell({"folder": [key, folder]})
        for key, browser in self._browsers.items():
            self._tell({"browser": [key, list(browser)]})
        for key in self._adoptable:
            self._tell({"adoptable": key})
        if self._taken:
            self._tell({"taken": True})

    def folder(self, key: str, path: Path) -> None:
        """Watch over a folder, and over any browser that has it. Tell it before using it."""
        self._folders[key] = str(path)
        self._tell({"folder": [key, str(path)]})

    def browser(self, key: str, browser: Mark) -> None:
        """Watch over a browser."""
        self._browsers[key] = browser
        self._tell({"browser": [key, list(browser)]})

    def adoptable(self, key: str) -> None:
        """The browser is complete: a successor could take it over."""
        self._adoptable.add(key)
        self._tell({"adoptable": key})

    def ending(self, key: str) -> None:
        """The browser is being ended: nobody shall take it over."""
        if key in self._adoptable:
            self._adoptable.discard(key)
            self._tell({"ending": key})

    def taken(self) -> None:
        """Everything an earlier engine left is adopted or gone: its guard may leave now."""
        self._taken = True
        self._tell({"taken": True})

    def gone(self, key: str) -> None:
        """Forget what was told under *key*: it is gone."""
        self._adoptable.discard(key)
        self._browsers.pop(key, None)
        if self._folders.pop(key, None) is not None:
            self._tell({"gone": key})

    async def close(self, *, goodbye: bool = True) -> None:
        """Part from the guard and wait until it has left. Safe to call twice.

        Without a *goodbye* it ends and removes at once what it still knows of.
        """
        self._closed = True
        if self._restart is not None:
            self._restart.cancel()
        child = self._child
        if child is None:
            return
        self._tell({"bye": True} if goodbye else {"end": True})
        await asyncio.wait({child.exited}, timeout=GOODBYE_PATIENCE)
        if not child.exited.done() and child.held:
            os.killpg(child.pid, signal.SIGKILL)
            await asyncio.wait({child.exited}, timeout=GOODBYE_PATIENCE)
        self._let_go(child)

    def _tell(self, message: Mapping[str, Any]) -> None:
        child = self._child
        if child is None or child.exited.done():
            return
        line = json.dumps(message).encode() + b"\n"
        try:
            written = os.write(self._pipe(child), line)
        except BrokenPipeError:
            log.debug("the guard has just died; the next one is told everything")
            return
        except BlockingIOError:
            written = 0
        if written != len(line):
            # It is stopped, or it hangs. A new one is told everything from the start.
            log.warning("the guard does not listen; replacing it")
            if child.held:
                os.killpg(child.pid, signal.SIGKILL)

    def _arguments(self) -> list[str]:
        lock = "-" if self._lock is None else str(self._lock)
        return [str(os.getpid()), self._label, str(self._grace), lock]

    @staticmethod
    def _pipe(child: Child) -> int:
        assert child.popen.stdin is not None  # noqa: S101 - made with a pipe
        return child.popen.stdin.fileno()

    def _died(self, code: asyncio.Future[int | None]) -> None:
        child, self._child = self._child, None
        if self._closed or child is None:
            self._child = child
            return
        log.warning("the guard ended (%s); starting another", code.result())
        self._let_go(child)
        loop = asyncio.get_running_loop()
        self._restart = loop.call_later(RESTART_DELAY, self.start)

    def _let_go(self, child: Child) -> None:
        child.release()
        if child.popen.stdin is not None:
            child.popen.stdin.close()
        if self._child is child:
            self._child = None


def others(label: str, own: int | None) -> bool:
    """Whether a guard besides the one with the id *own* still watches under this label. Blocks."""
    words = f" {group.__file__} "
    return any(
        words in one.command and f" {label} " in one.command
        for one in group.processes()
        if one.pid != own and not one.zombie
    )
