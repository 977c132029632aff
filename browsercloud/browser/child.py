"""A child process whose end is told at once, and whose number stays its own until we let it go."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

WATCHES_PIDFD = hasattr(os, "pidfd_open")
CAN_LOOK = hasattr(os, "waitid")
"""Whether a dead child can be looked at and left as a zombie, which macOS cannot."""


class Child:
    """A process in a session and group of its own, so that no Ctrl-C meant for us reaches it.

    While `held`, even a dead child keeps its number (a zombie), and with it that of its group: so
    signalling either can never meet a stranger. `release` lets go of it. Works on an event loop in
    any thread; there is no child watcher and no `SIGCHLD`.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
        program: str | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int | None] = self._loop.create_future()
        """The exit code, negative for a signal, `None` if somebody else has collected it."""

        self._pidfd: int | None = None
        self.popen = subprocess.Popen(  # noqa: S603 - the browser, or our own guard
            argv,
            executable=program,  # where the first word of the command line is something else
            env=env,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            close_fds=True,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self.pid = self.popen.pid
        self._watch()

    @property
    def held(self) -> bool:
        """Whether the process is ours still: alive, or dead and not collected by anyone."""
        if self.popen.returncode is not None:
            return False
        if not CAN_LOOK:
            return self.popen.poll() is None
        try:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def look(self) -> tuple[bool, int | None]:
        """Whether the process has ended, and its exit code; asks the system."""
        if not CAN_LOOK or self.popen.returncode is not None:
            code = self.popen.poll()
            return code is not None, code
        try:
            end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # the user's program collects every child, or ignores SIGCHLD
            return True, None
        if end is None:
            return False, None
        return True, end.si_status if end.si_code == os.CLD_EXITED else -end.si_status

    def release(self) -> None:
        """Collect the dead child and close what is held. Safe to call twice."""
        self._unwatch()
        if self.look()[0]:
            self.popen.wait()
            self._tell()

    def _watch(self) -> None:
        if WATCHES_PIDFD:
            with contextlib.suppress(OSError):  # an old kernel, or a sandbox that forbids it
                self._pidfd = os.pidfd_open(self.pid)
                self._loop.add_reader(self._pidfd, self._tell)
                return
        threading.Thread(target=self._wait, name=f"child-{self.pid}", daemon=True).start()

    def _unwatch(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _wait(self) -> None:
        with contextlib.suppress(OSError):
            if CAN_LOOK:
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            else:
                wait_by_kqueue(self.pid)
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        ended, code = self.look()
        if ended:
            self._unwatch()
            if not self.exited.done():
                self.exited.set_result(code)


def wait_by_kqueue(pid: int) -> None:
    """Block until the process ends, whoever started it: macOS. Raises `OSError` if it has."""
    # Named by string, as type checkers know these only on the systems that have them.
    exit_of = {name: getattr(select, name) for name in dir(select) if name.startswith("KQ_")}
    event = getattr(select, "kevent")(  # noqa: B009
        pid, exit_of["KQ_FILTER_PROC"], exit_of["KQ_EV_ADD"], exit_of["KQ_NOTE_EXIT"]
    )
    queue = getattr(select, "kqueue")()  # noqa: B009
    try:
        queue.control([event], 1)
    finally:
        queue.close()
