"""`browsercloud doctor` and the command line's manners."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from browsercloud.cli.doctor import report, show
from browsercloud.engines.facts import BrowserFacts, DriverFacts, Fact, machine
from browsercloud.options import Browser


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "browsercloud", *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def test_it_really_starts_the_browsers_of_this_machine() -> None:
    """As JSON: healthy, with path, version, start time and sandbox of each."""
    done = _run("doctor", "--json")
    assert (0, "") == (done.returncode, done.stderr)
    told = json.loads(done.stdout)
    assert told["healthy"]
    assert told["chromedriver"]["version"].count(".") == 3
    for browser in told["browsers"]:
        assert browser["start_seconds"] > 0
        assert browser["sandbox"].startswith(("on", "off: "))


def test_the_table_says_why_nothing_works() -> None:
    """A browser that does not start is shown with its reason, and the remedy comes last."""
    console = Console(file=io.StringIO(), width=120)
    broken = BrowserFacts(kind=Browser.CHROMIUM, path="/x", problem="it said: no memory")
    missing = BrowserFacts(kind=Browser.HEADLESS_SHELL, problem="nowhere")
    facts = [Fact("cores", "2"), Fact("cgroup", "absent", degraded=True)]
    show(console, [broken, missing], DriverFacts(problem="get 156"), facts)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for expected in (
        "no memory",
        "not there",
        "get 156",
        "No session can be run",
        "browsercloud install",
    ):
        assert expected in text
    assert not report([broken, missing], DriverFacts(), [])["healthy"]


def test_the_machine_is_described_without_starting_anything() -> None:
    """Every fact has a name and a word."""
    facts = {fact.name: fact for fact in machine({})}
    assert {
        "Python",
        "platform",
        "display",
        "memory",
        "cores",
        "capacity",
        "memory cap",
        "guard",
        "pidfd",
        "Landlock",
    } <= set(facts)
    assert all(fact.value for fact in facts.values())
    assert ":7" == {fact.name: fact for fact in machine({"DISPLAY": ":7"})}["display"].value


@pytest.mark.parametrize("arguments", [["nope"], ["doctor", "--nope"], ["install", "--force"]])
def test_a_misused_command_line_is_told_so(arguments: list[str]) -> None:
    """Exit code 2, one message, no traceback."""
    done = _run(*arguments)
    assert (2, "") == (done.returncode, done.stdout)
    assert "Unknown" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_of_ours_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, and a sentence on standard error."""
    monkeypatch.setenv("BROWSERCLOUD_CHROMIUM", "/nowhere/chrome")
    done = _run("doctor")
    assert (1, "") == (done.returncode, done.stdout)
    assert 1 == len(done.stderr.splitlines())
    assert "BROWSERCLOUD_CHROMIUM" in done.stderr
