"""The sandbox is used wherever it works, and what is learned about the machine is kept."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from browsercloud.browser import display, flags, launch
from browsercloud.browser.display import has_display
from browsercloud.browser.find import Found, find
from browsercloud.browser.launch import FORBIDDEN, ROOT, Launcher
from browsercloud.errors import LaunchFailed
from browsercloud.options import Browser, SessionOptions

SHELL = SessionOptions(browser=Browser.HEADLESS_SHELL)
NO_SANDBOX = "sys.exit('zygote_host_impl_linux.cc(128)] No usable sandbox! If you are')"


def _fails(monkeypatch: pytest.MonkeyPatch, words: str, commands: list[bool]) -> None:
    """Make every browser one that fails with *words* while it is to use its sandbox."""
    real = flags.argv

    def argv(found: Found, options: SessionOptions, *, sandbox: bool, **rest: Any) -> Any:
        commands.append(sandbox)
        if sandbox:
            return (sys.executable, "-c", f"import sys; {words}")
        return real(found, options, sandbox=sandbox, **rest)

    monkeypatch.setattr(flags, "argv", argv)
    monkeypatch.setattr(launch.os, "geteuid", lambda: 1000)


def _folder(root: Path) -> Path:
    (root / "one" / "tmp").mkdir(parents=True)
    return root / "one"


async def test_a_machine_without_a_sandbox_is_found_out_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first start is tried again without it; later ones begin so; one warning says why."""
    commands: list[bool] = []
    _fails(monkeypatch, NO_SANDBOX, commands)
    launcher, found, folder = Launcher(), find(Browser.HEADLESS_SHELL), _folder(root)
    assert launcher.sandbox_reason is None
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            launched = await launcher.launch(found, SHELL, folder, session_id="one")
            await launched.process.stop(grace=0)
    assert [True, False, False] == commands
    assert FORBIDDEN == launcher.sandbox_reason
    assert [FORBIDDEN] == [record.args[0] for record in caplog.records if record.args]


async def test_another_failure_keeps_the_sandbox(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only words about the sandbox switch it off."""
    commands: list[bool] = []
    _fails(monkeypatch, "sys.exit('no space left')", commands)
    launcher = Launcher()
    with pytest.raises(LaunchFailed, match="no space left"):
        await launcher.launch(find(Browser.HEADLESS_SHELL), SHELL, _folder(root), session_id="one")
    assert [True] == commands
    assert launcher.sandbox_reason is None


def test_root_has_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chromium refuses to use it as root, so it is not even tried."""
    monkeypatch.setattr(launch.os, "geteuid", lambda: 0)
    assert ROOT == Launcher().sandbox_reason


def test_any_display_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """X or Wayland; macOS always has one."""
    monkeypatch.setattr(sys, "platform", "linux")
    assert [True, True, False] == [
        has_display(environ)
        for environ in ({"DISPLAY": ":0"}, {"WAYLAND_DISPLAY": "wayland-0"}, {"DISPLAY": ""})
    ]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert has_display({})


def test_without_xvfb_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the field and both remedies."""
    monkeypatch.setattr(display.shutil, "which", lambda _: None)
    with pytest.raises(LaunchFailed, match=r"headless: .*headless=True, or .*install --xvfb"):
        display.program()
