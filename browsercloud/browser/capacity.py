"""For how many sessions this machine has room. The sum is pure; reading the numbers is apart."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from browsercloud.models import Capacity

SESSIONS_PER_CORE = 8
MEGABYTE = 1024 * 1024
SESSION_MEMORY = 320 * MEGABYTE
MACHINE_MEMORY = 512 * MEGABYTE
"""What is left to everything that is no session."""


@frozen(kw_only=True)
class Room:
    """What we may use of this machine."""

    cores: float
    """Parts of a core too, where a quota says so."""

    memory: int
    """In bytes."""


def capacity(room: Room) -> Capacity:
    """How many sessions at a time: 8 for each core, 320 MB for each after 512 MB; at least one."""
    by_cores = int(room.cores * SESSIONS_PER_CORE)
    by_memory = max(0, room.memory - MACHINE_MEMORY) // SESSION_MEMORY
    reason = (
        f"{room.cores:g} cores × {SESSIONS_PER_CORE} = {by_cores}; "
        f"({room.memory // MEGABYTE} MB - {MACHINE_MEMORY // MEGABYTE} MB) "
        f"/ {SESSION_MEMORY // MEGABYTE} MB = {by_memory}; the lower one counts"
    )
    lower = min(by_cores, by_memory)
    if not lower:
        reason += ", and one is always tried"
    return Capacity(sessions=max(1, lower), reason=reason)


def room(root: Path = Path("/")) -> Room:
    """What this process may use: of cores, memory, and the limits of its control groups.

    *root* is where `proc` and `sys` are. Blocks for a moment. What cannot be read does not limit.
    """
    cores = float(_cores())
    memory = _memory(root)
    for folder in _groups(root, "cpu"):
        cores = min(cores, _quota(folder) or cores)
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            memory = min(memory, _number(folder / name) or memory)
    return Room(cores=round(cores, 2), memory=memory)


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that could be used at this moment without taking from others. Blocks for a moment.

    The machine's, or what the limit of a control group leaves, if that is less. Where the system
    does not tell, as on macOS, all there is counts as free.
    """
    free = _memory(root, "MemAvailable")
    for folder in _groups(root, "memory"):
        for limit, usage in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            most, used = _number(folder / limit), _number(folder / usage)
            if most is not None and used is not None:
                free = min(free, max(0, most - used + _reclaimable(folder)))
    return free


def _reclaimable(folder: Path) -> int:
    """Bytes of files that the group holds in memory and the kernel takes back when it must."""
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            if line.startswith(("inactive_file ", "total_inactive_file ")):
                return int(line.split()[1])
    return 0


def _cores() -> int:
    with contextlib.suppress(AttributeError):  # macOS has no affinity
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory(root: Path, word: str = "MemTotal") -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith(f"{word}:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Our control groups for *controller*, of either version, from our own up to the root.

    In a container our path may be told as seen from outside; the root is ours then.
    """
    base = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines or ["0::/"]:
        _, names, path = line.split(":", 2)
        if not names:
            tops = [base, base / "unified"]
        elif controller in names.split(","):
            tops = [base / names, base / controller]
        else:
            continue
        for top in tops:
            yield from _upwards(top, path)


def _upwards(top: Path, path: str) -> Iterator[Path]:
    parts = [part for part in path.split("/") if part and part != ".."]
    for count in range(len(parts), -1, -1):
        yield top.joinpath(*parts[:count])


def _quota(folder: Path) -> float | None:
    """How many cores the group may use at a time; `None` where nothing is said."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)  # `max` is no number
    quota_us = _number(folder / "cpu.cfs_quota_us")
    period_us = _number(folder / "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us else None


def _number(file: Path) -> int | None:
    """What the file says; `None` for no limit, however that is put."""
    try:
        value = int(file.read_text())
    except (OSError, ValueError):
        return None
    return value if value > 0 else None
