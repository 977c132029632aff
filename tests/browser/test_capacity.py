"""For how many sessions there is room: the sum, and where its numbers come from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from browsercloud.browser import capacity as module
from browsercloud.browser.capacity import MEGABYTE, Room, capacity, free_memory, room

GIGABYTE = 1024 * MEGABYTE


@pytest.mark.parametrize(
    ("cores", "memory", "sessions"),
    [
        (2, 64 * GIGABYTE, 16),
        (64, 4096 * MEGABYTE, 11),
        (0.5, 64 * GIGABYTE, 4),
        (0.1, 64 * GIGABYTE, 1),
        (8, 256 * MEGABYTE, 1),
        (8, 832 * MEGABYTE, 1),
        (8, 1152 * MEGABYTE, 2),
    ],
)
def test_the_lower_of_cores_and_memory_counts(cores: float, memory: int, sessions: int) -> None:
    """8 for each core, 320 MB for each session after 512 MB, and never none."""
    assert sessions == capacity(Room(cores=cores, memory=memory)).sessions


def test_the_sum_is_told() -> None:
    """Whoever reads it can do it again."""
    reason = capacity(Room(cores=2, memory=4096 * MEGABYTE)).reason
    assert "2 cores × 8 = 16; (4096 MB - 512 MB) / 320 MB = 11; the lower one counts" == reason
    assert capacity(Room(cores=2, memory=0)).reason.endswith("one is always tried")


def _machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("", {}, (4.0, 16 * GIGABYTE)),
        ("0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n"}, (4.0, 16 * GIGABYTE)),
        (
            "0::/\n",
            {"cpu.max": "150000 100000\n", "memory.max": "2147483648\n"},
            (1.5, 2 * GIGABYTE),
        ),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/memory.max": "1024"}, (2.0, 1024)),
        ("0::/not/seen/here\n", {"memory.max": "4096\n"}, (4.0, 4096)),
        ("0::/../x\n", {"memory.max": "4096\n"}, (4.0, 4096)),
        (
            "4:memory:/own\n3:cpu,cpuacct:/own\n0::/\n",
            {
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/own/memory.limit_in_bytes": "1073741824\n",
                "cpu,cpuacct/own/cpu.cfs_quota_us": "50000\n",
                "cpu,cpuacct/own/cpu.cfs_period_us": "100000\n",
            },
            (0.5, GIGABYTE),
        ),
        (
            "4:memory:/outside\n3:cpu:/outside\n",
            {
                "memory/memory.limit_in_bytes": "1073741824\n",
                "cpu/cpu.cfs_quota_us": "-1\n",
                "cpu/cpu.cfs_period_us": "100000\n",
            },
            (4.0, GIGABYTE),
        ),
        ("0::/\n", {"cpu.max": "nonsense", "memory.max": ""}, (4.0, 16 * GIGABYTE)),
    ],
)
def test_the_tightest_limit_counts(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    cgroup: str,
    files: dict[str, str],
    expected: tuple[float, int],
) -> None:
    """Of the machine and of every control group above us, version 1 and 2, also in a container."""
    monkeypatch.setattr(module, "_cores", lambda: 4)
    found = room(_machine(root, cgroup, files))
    assert expected == (found.cores, found.memory)


def test_cores_that_we_may_not_use_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Affinity narrows them, as `taskset` and container cpusets do."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert room().cores <= 1


def test_this_machine_has_room() -> None:
    """The real files can be read, and give something plausible."""
    found = room()
    assert found.cores > 0
    assert found.memory > 64 * MEGABYTE


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8 * GIGABYTE),
        ({"memory.max": "max\n", "memory.current": "1\n"}, 8 * GIGABYTE),
        ({"memory.max": "5000\n", "memory.current": "4000\n"}, 1000),
        (
            {
                "memory.max": "5000\n",
                "memory.current": "4000\n",
                "memory.stat": "anon 7\ninactive_file 500\n",
            },
            1500,
        ),
        ({"memory.max": "5000\n", "memory.current": "6000\n"}, 0),
    ],
)
def test_free_memory_is_what_machine_and_groups_leave(
    root: Path, files: dict[str, str], expected: int
) -> None:
    """The lower of both, and what the kernel would give back counts as free."""
    machine = _machine(root, "0::/\n", files)
    with (machine / "proc/meminfo").open("a") as meminfo:
        meminfo.write("MemAvailable:    8388608 kB\n")
    assert expected == free_memory(machine)


def test_free_memory_of_this_machine() -> None:
    """More than none, and less than all there is."""
    assert 0 < free_memory() < room().memory + 1
