"""The folder of a local engine: whose it is, what is in it, and what a dead one has left.

<data_dir>/lock                         held while an engine lives, and by whoever cleans up
<data_dir>/sessions/<session_id>/       one browser's own: profile/, tmp/, stderr, process.json
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import secrets
import stat
import tempfile
import time
import weakref
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from browsercloud.browser import group
from browsercloud.browser.group import Deed, Mark, read_deed, write_deed
from browsercloud.errors import UsageError

PRIVATE = 0o700
OURS = {"lock", "secrets.json", "browsercloud.db"}
"""One of these in a folder shows that it is a data folder."""

LOCK_PATIENCE = 15.0
"""Seconds to wait for the guard of a killed predecessor, which cleans up and then lets go."""

LOCK_INTERVAL = 0.05
NOBODY = Deed(0, 0, "")
FORGOTTEN_AFTER = 600.0
"""Seconds after which an embedded folder that was never locked counts as left behind."""

log = logging.getLogger(__name__)


def embedded_data_dir() -> Path:
    """Make a data folder for an engine that lives inside somebody's program, and return it.

    It is `<temporary folder>/browsercloud-<uid>/<random>/`, for this user only. The engine removes
    it when closed. Raises `UsageError` if somebody else owns its parent, as the temporary folder is
    open to everyone.
    """
    parent = Path(tempfile.gettempdir()) / f"browsercloud-{os.getuid()}"
    make_private(parent)
    folder = parent / secrets.token_hex(8)
    folder.mkdir(mode=PRIVATE)
    return folder


def is_embedded(data_dir: Path) -> bool:
    """Whether *data_dir* is one that `embedded_data_dir` has made."""
    return data_dir.parent.name == f"browsercloud-{os.getuid()}"


def make_private(folder: Path) -> None:
    """Make *folder* if need be, for this user only. Raises `UsageError` if it is not ours."""
    folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    found = folder.lstat()  # not stat: a link could lead anywhere
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UsageError(
            f"{folder} is a link or belongs to another user; remove it or choose another data_dir"
        )
    if stat.S_IMODE(found.st_mode) != PRIVATE:
        folder.chmod(PRIVATE)


def take(data_dir: Path) -> None:
    """Make *data_dir* if need be. Raises `UsageError` for one that serves another purpose.

    A folder that was there is left as it is: only what we put into it is ours to restrict.
    """
    if is_embedded(data_dir) or not data_dir.exists():
        make_private(data_dir)
        return
    if not data_dir.is_dir() or data_dir.stat().st_uid != os.getuid():
        raise UsageError(f"{data_dir} is no folder of yours; choose another data folder")
    names = {path.name for path in data_dir.iterdir()}
    if names and not names & OURS:
        raise UsageError(
            f"{data_dir} holds other things than a browser cloud's ({min(names)}, …); "
            "choose a new or an empty folder for --data-dir"
        )


class Lock:
    """The right to use a data folder. Held by one engine at a time, in whatever process."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "lock"
        self.fd: int | None = None

    async def acquire(self) -> None:
        """Take it; waits for the guard of a dead owner. Raises `UsageError` if the owner lives."""
        loop = asyncio.get_running_loop()
        end = loop.time() + LOCK_PATIENCE
        while True:
            # In every round: a sweep that took the folder for a dead one may have removed it.
            take(self._path.parent)
            if self.try_acquire():
                return
            if self._owner_lives() or loop.time() > end:
                raise UsageError(
                    f"{self._path.parent} is in use by another engine "
                    f"(process {self._owner().pid}); give each one a data folder of its own "
                    "(--data-dir)"
                )
            await asyncio.sleep(LOCK_INTERVAL)

    def try_acquire(self) -> bool:
        """Take it if it is free; whether it was."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        if os.fstat(fd).st_nlink == 0:  # removed, with its folder, before we had the lock
            os.close(fd)
            return False
        me = group.look(os.getpid())
        write_deed(fd, Deed(os.getpid(), me.start if me else 0, secrets.token_hex(8)))
        self.fd = fd
        _held.add(self)
        return True

    def release(self) -> None:
        """Let go. Safe to call twice."""
        if self.fd is not None and (deed := read_deed(self.fd)) is not None:
            # We live on, and whoever holds it next may be a guard, which has no word of its own.
            write_deed(self.fd, deed._replace(pid=0, start=0))
        self.forget()

    def forget(self) -> None:
        """Close our descriptor of it, whoever else has it. Safe to call twice."""
        _held.discard(self)
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def _owner(self) -> Deed:
        with contextlib.suppress(OSError), self._path.open() as file:
            # None: it is writing this very moment, or has just left.
            return read_deed(file.fileno()) or NOBODY
        return NOBODY

    def _owner_lives(self) -> bool:
        owner = self._owner()
        process = group.look(owner.pid) if owner.pid else None
        return process is not None and not process.zombie and process.start == owner.start


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget_locks() -> None:
    # A lock belongs to all who share its descriptor, and a child that the user forks shares it: it
    # would keep the folder locked after we are dead.
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_locks)


class Left(NamedTuple):
    """What an earlier engine has left of a session."""

    mark: Mark
    complete: bool
    """Whether its browser was ready and is not being ended: one that can be adopted."""


def write_mark(folder: Path, browser: Mark, *, complete: bool) -> None:
    """Leave word of whose processes these are, for a successor: to adopt, or to sweep."""
    text = json.dumps({"browser": browser._asdict(), "complete": complete})
    # Never half a file: a kill in between would make a stranger of a living browser.
    fresh = folder / "process.json.new"
    fresh.write_text(text)
    fresh.replace(folder / "process.json")


def read_mark(folder: Path) -> Left:
    """What is left in *folder*; if its mark is not there yet, one that knows the folder."""
    try:
        word = json.loads((folder / "process.json").read_text())
        found = Mark(**word["browser"])
        complete = word.get("complete") is True
    except (OSError, ValueError, TypeError, KeyError):
        return Left(Mark(0, 0, "", "", str(folder)), complete=False)
    # What the file says is not trusted to name folders.
    return Left(found._replace(folder=str(folder)), complete)


def left_over(data_dir: Path) -> dict[str, Left]:
    """What an earlier engine has left, by session id. Blocks."""
    return {
        folder.name: read_mark(folder)
        for folder in sorted((data_dir / "sessions").glob("*"))
        if _is_a_session(folder)
    }


def sweep(data_dir: Path, only: Collection[str] | None = None) -> None:
    """End and remove what a killed engine has left in a folder whose lock we hold. Blocks.

    *only* names the sessions; `None` means all. Raises `OSError` for the first thing that cannot
    be removed, having tried all.
    """
    failure: OSError | None = None
    for folder in sorted((data_dir / "sessions").glob("*")):
        if not _is_a_session(folder):
            log.warning("%s is none of ours; leaving it alone", folder)
            continue
        if only is not None and folder.name not in only:
            continue
        try:
            _sweep_one(folder)
        except OSError as error:
            log.warning("cannot clean up %s: %s", folder, error)
            failure = failure or error
        else:
            log.info("removed what session %s had left", folder.name)
    if failure is not None:
        raise failure


def _is_a_session(folder: Path) -> bool:
    """Whether an engine has made this folder, as far as it came with it."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return not names or bool(names & {"process.json", "profile"})


def _sweep_one(folder: Path) -> None:
    if living := group.kill(read_mark(folder).mark):
        raise OSError(f"processes outlive SIGKILL: {[process.pid for process in living]}")
    group.remove(str(folder))


def sweep_siblings(data_dir: Path) -> None:
    """Clean up after embedded engines that are dead. Blocks; failures are logged."""
    for sibling in _siblings(data_dir):
        lock = Lock(sibling)
        with contextlib.suppress(OSError):
            if not lock.try_acquire():
                continue
            try:
                sweep(sibling)
                group.remove(str(sibling))
            finally:
                lock.release()


def _siblings(data_dir: Path) -> Iterator[Path]:
    for folder in sorted(data_dir.parent.glob("*")):
        if folder == data_dir or folder.is_symlink():
            continue
        # One without a lock file is just being made by its owner, or was forgotten.
        with contextlib.suppress(OSError):
            age = time.time() - folder.stat().st_mtime
            if (folder / "lock").exists() or age > FORGOTTEN_AFTER:
                yield folder
