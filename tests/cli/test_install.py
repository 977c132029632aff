"""`browsercloud install`: what is tried, in which order, and what is said."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence

import pytest
from rich.console import Console

from browsercloud.cli import install as module
from browsercloud.cli.install import Installation
from browsercloud.engines.facts import BrowserFacts, DriverFacts
from browsercloud.options import Browser


class Machine:
    """A machine without a browser, on which some commands bring one."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, brings: dict[str, list[Browser]]
    ) -> None:
        self.there: set[Browser] = set()
        self.commands: list[str] = []
        self.brings = brings
        self.drives = True
        self.console = Console(file=io.StringIO(), width=200)
        monkeypatch.setattr(module, "look_up", self.look_up)
        monkeypatch.setattr(module, "try_out", self.try_out)
        monkeypatch.setattr(module, "look_up_driver", self.look_up_driver)
        monkeypatch.setattr(module.shutil, "which", lambda name: f"/bin/{name}")
        monkeypatch.setattr(module.os, "geteuid", lambda: 0)

    def look_up(self, kind: Browser, setting: object = None) -> BrowserFacts:
        """There or not."""
        return BrowserFacts(kind=kind, path="/x/chrome" if kind in self.there else None)

    async def try_out(self, kind: Browser, setting: object = None) -> BrowserFacts:
        """What is there also starts."""
        there = kind in self.there
        return BrowserFacts(
            kind=kind, path="/x/chrome" if there else None, start_seconds=0.1 if there else None
        )

    def look_up_driver(
        self, browsers: Sequence[BrowserFacts], setting: object = None
    ) -> DriverFacts:
        """There once a command has asked for it by name, and before that a remedy."""
        there = any("driver" in command for command in self.commands)
        path = "/x/chromedriver" if there and self.drives else None
        return DriverFacts(path=path, version="1", problem=None if path else "get 156")

    def run(self, command: Sequence[str], timeout: float) -> bool:
        """Write down the command."""
        assert timeout > 0
        text = " ".join(command)
        self.commands.append(text)
        found = [kinds for part, kinds in self.brings.items() if part in text]
        for kinds in found:
            self.there.update(kinds)
        return bool(found)

    def install(self) -> tuple[int, str]:
        """The exit code, and what was said."""
        code = Installation(self.console, {}, run=self.run).run()
        assert isinstance(self.console.file, io.StringIO)
        return code, self.console.file.getvalue()


def test_xvfb_comes_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the system's package; where it is already, nothing is run."""
    machine = Machine(monkeypatch, brings={})
    installation = Installation(machine.console, {}, run=machine.run)
    installation.screen()
    assert [] == machine.commands
    lacks = lambda name: None if name == "Xvfb" else f"/bin/{name}"  # noqa: E731
    monkeypatch.setattr(module.shutil, "which", lacks)
    installation.screen()
    assert ["apt-get install -y --no-install-recommends xvfb"] == machine.commands


def test_nothing_is_done_when_all_is_there() -> None:
    """On this machine, with real browsers: says so, quickly, with exit code 0."""
    done = subprocess.run(
        [sys.executable, "-m", "browsercloud", "install"],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert "Nothing to install" in done.stdout


def test_playwrights_download_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it brings both, no package manager is asked."""
    machine = Machine(monkeypatch, brings={"playwright install": list(Browser)})
    code, said = machine.install()
    assert 0 == code
    driver = "apt-get install -y --no-install-recommends chromium-driver"
    assert [f"{sys.executable} -m playwright install chromium", driver] == machine.commands
    assert "chromium" in said


def test_packages_follow_a_failed_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists first, the needed package, then each wished one by itself, as it may not exist."""
    machine = Machine(monkeypatch, brings={"apt-get install": [Browser.CHROMIUM]})
    code, said = machine.install()
    assert 0 == code
    start = "apt-get install -y --no-install-recommends"
    assert [
        "apt-get update",
        f"{start} chromium",
        f"{start} chromium-headless-shell",
        f"{start} fonts-liberation",
        f"{start} chromium-driver",
    ] == machine.commands[1:]
    assert "did not work here" in said
    assert "no headless-shell" in said


def test_without_root_the_command_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is run that would ask for a password."""
    machine = Machine(monkeypatch, brings={})
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)
    code, said = machine.install()
    assert 1 == code
    assert "sudo apt-get update && sudo apt-get install -y" in said
    assert "sudo apt-get install -y --no-install-recommends chromium-driver" in said
    assert 1 == len(machine.commands)


def test_when_nothing_works_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, and the way out by hand."""
    machine = Machine(monkeypatch, brings={})
    code, said = machine.install()
    assert 1 == code
    assert "BROWSERCLOUD_CHROMIUM" in said


def test_a_command_that_hangs_is_given_up() -> None:
    """The time of each command is bounded, and a missing one is a failure, not an error."""
    installation = Installation(Console(file=io.StringIO()), {})
    assert installation._show(["sleep", "0"], 5)
    assert not installation._show(["sleep", "30"], 0.1)
    assert not installation._show(["no-such-command-here"], 5)


def test_a_chromedriver_that_is_missing_is_got_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The browsers that are there are left as they are."""
    machine = Machine(monkeypatch, brings={"driver": []})
    machine.there.update(Browser)
    code, said = machine.install()
    assert 0 == code
    assert ["apt-get install -y --no-install-recommends chromium-driver"] == machine.commands
    assert "chromedriver 1: /x/chromedriver" in said


def test_a_chromedriver_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do; without Selenium nobody needs it, so the exit code is 0."""
    machine = Machine(monkeypatch, brings={"driver": []})
    machine.there.update(Browser)
    machine.drives = False
    code, said = machine.install()
    assert 0 == code
    assert "get 156" in said
