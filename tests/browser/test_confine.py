"""Control groups for browsers, with a folder in the shape of the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from browsercloud.browser import confine
from browsercloud.browser.confine import Confined, Confinement, find


def _cgroups(root: Path, path: str, controllers: str, shared: str = "") -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"1:name=systemd:/x\n0::{path}\n")
    own = root / "sys/fs/cgroup" / path.strip("/")
    for folder in {own, own.parent} if path != "/" else {own}:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.controllers").write_text(controllers)
        (folder / "cgroup.subtree_control").write_text(shared)
    return own


def test_our_own_group_is_used_if_it_can_share_out_memory(tmp_path: Path) -> None:
    """The controller is switched on for what is below."""
    own = _cgroups(tmp_path, "/", "cpu memory")
    assert find(tmp_path) is not None
    assert "+memory" == (own / "cgroup.subtree_control").read_text()


def test_without_the_memory_controller_there_is_none(tmp_path: Path) -> None:
    """Such as where version 1 has it."""
    _cgroups(tmp_path, "/a/b", "hugetlb")
    assert find(tmp_path) is None
    assert find(tmp_path / "nowhere") is None


def test_the_group_above_is_used_only_if_it_was_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is systemd's else. Our own, with us in it, refuses."""
    own = _cgroups(tmp_path, "/service/main", "memory")
    (own / "cgroup.subtree_control").unlink()
    (own / "cgroup.subtree_control").mkdir()  # writing fails, as the kernel's EBUSY
    assert find(tmp_path) is None
    monkeypatch.setattr(
        os, "getxattr", lambda path, name: b"1" if Path(path) == own.parent else b"0", raising=False
    )
    assert find(tmp_path) is not None


def test_a_browser_gets_a_group_with_its_cap(tmp_path: Path) -> None:
    """Cap, one fate for all of its processes, and the process itself are written."""
    confined = Confinement(tmp_path).confine("one", 4711, 300)
    assert confined is not None
    folder = tmp_path / "browsercloud-one"
    words = {name: (folder / name).read_text() for name in ("memory.max", "memory.oom.group")}
    assert {"memory.max": "300", "memory.oom.group": "1"} == words
    assert (300, True, False) == (confined.cap(), confined.holds(4711), confined.holds(471))
    assert Confinement(tmp_path).again("one", 4711) is not None
    assert Confinement(tmp_path).again("one", 1) is None
    assert Confinement(tmp_path).again("two", 4711) is None


def test_the_kernels_kill_is_seen(tmp_path: Path) -> None:
    """In the group's events, and nowhere else."""
    confined = Confined(tmp_path)
    assert not confined.starved()
    (tmp_path / "memory.events").write_text("low 0\nmax 7\noom 1\noom_kill 0\noom_group_kill 0\n")
    assert not confined.starved()
    (tmp_path / "memory.events").write_text("low 0\nmax 7\noom 1\noom_kill 3\noom_group_kill 1\n")
    assert confined.starved()


def test_a_group_that_cannot_be_made_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The browser is watched then."""
    assert Confinement(tmp_path / "nowhere").confine("one", 1, 300) is None
    assert "no control group for session one" in caplog.text


def test_only_empty_groups_of_ours_are_tidied_away(tmp_path: Path) -> None:
    """One that still holds a browser stays."""
    (tmp_path / confine.PREFIX).mkdir()
    (tmp_path / "browsercloud-held" / "cgroup.procs").mkdir(parents=True)
    (tmp_path / "another").mkdir()
    Confinement(tmp_path).tidy()
    assert {"browsercloud-held", "another"} == set(os.listdir(tmp_path))
    Confined(tmp_path / "gone").remove()
