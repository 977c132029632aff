"""A control group (cgroup v2) of its own for each browser: the kernel keeps its memory cap."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PREFIX = "browsercloud-"
ENABLE = "+memory"

log = logging.getLogger(__name__)


class Confined:
    """One browser's control group. *folder* is its place among the others."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def cap(self) -> int | None:
        """How many bytes it may use; `None` if that cannot be read."""
        try:
            return int((self._folder / "memory.max").read_text())
        except (OSError, ValueError):
            return None

    def starved(self) -> bool:
        """Whether the kernel has ended something in it for passing the cap."""
        with contextlib.suppress(OSError, ValueError):
            for line in (self._folder / "memory.events").read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count) > 0
        return False

    def holds(self, pid: int) -> bool:
        """Whether this process is in it."""
        with contextlib.suppress(OSError):
            return str(pid) in (self._folder / "cgroup.procs").read_text().split()
        return False

    def remove(self) -> None:
        """Take it away; one that still holds a process stays for the next engine to remove."""
        with contextlib.suppress(FileNotFoundError):
            try:
                self._folder.rmdir()
            except OSError as error:
                log.debug("the control group %s is not empty: %s", self._folder.name, error)


class Confinement:
    """The control group below which those of the browsers are made. See `find`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def confine(self, session_id: str, pid: int, cap: int) -> Confined | None:
        """Put a browser that was just started into a group of its own; `None` if that fails.

        With it goes all that it starts. If one of its processes is killed for memory, all are.
        """
        folder = self._folder / (PREFIX + session_id)
        try:
            folder.mkdir()
            (folder / "memory.max").write_text(str(cap))
            (folder / "memory.oom.group").write_text("1")
            with contextlib.suppress(OSError):  # there is none where swap is not accounted
                (folder / "memory.swap.max").write_text("0")
            (folder / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            log.warning("no control group for session %s: %s", session_id, error)
            Confined(folder).remove()
            return None
        return Confined(folder)

    def again(self, session_id: str, pid: int) -> Confined | None:
        """The group in which an earlier engine has put a browser; `None` if it has not."""
        confined = Confined(self._folder / (PREFIX + session_id))
        return confined if confined.holds(pid) else None

    def tidy(self) -> None:
        """Remove what earlier engines have left and nobody is in: only such can be removed."""
        for folder in self._folder.glob(PREFIX + "*"):
            Confined(folder).remove()


def find(root: Path = Path("/")) -> Confinement | None:
    """Where control groups can be made for browsers; `None` where they cannot. Blocks a moment.

    In our own group, or in the one above if systemd has handed that over to us: nobody may meddle
    with other groups. A group that has processes of its own cannot share out its memory, unless it
    is the root; so under systemd it takes `Delegate=memory` with `DelegateSubgroup=`.
    """
    mount = root / CGROUPS.relative_to("/")
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    path = next((line[3:] for line in lines if line.startswith("0::/")), None)
    if path is None:
        return None
    own = mount.joinpath(*path.strip("/").split("/"))
    for folder in (own, own.parent):
        if (folder == own or _is_delegated(folder)) and _shares_memory(folder):
            return Confinement(folder)
    return None


def _is_delegated(folder: Path) -> bool:
    for name in ("trusted.delegate", "user.delegate"):
        with contextlib.suppress(OSError, AttributeError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


def _shares_memory(folder: Path) -> bool:
    try:
        if "memory" not in (folder / "cgroup.controllers").read_text().split():
            return False
        if not os.access(folder, os.W_OK):
            return False
        shared = folder / "cgroup.subtree_control"
        if "memory" not in shared.read_text().split():
            shared.write_text(ENABLE)
    except OSError:
        return False
    return True
