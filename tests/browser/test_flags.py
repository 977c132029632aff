"""The command line and the environment of a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from browsercloud.browser.find import Found
from browsercloud.browser.flags import MAX_SOCKET_PATH, SOCKET_NAME_LENGTH, argv, environment
from browsercloud.options import Browser, Dimensions, SessionOptions

CHROMIUM = Found(Path("/bin/chrome"), Browser.CHROMIUM, "PATH")
SHELL = Found(Path("/bin/headless_shell"), Browser.HEADLESS_SHELL, "PATH")
DEEP = Path("/tmp") / "a-folder-of-a-long-name" / "sessions" / ("x" * 36)


def _argv(options: SessionOptions, *, sandbox: bool = True, frame_height: int = 87) -> set[str]:
    found = CHROMIUM if options.browser is Browser.CHROMIUM else SHELL
    return set(argv(found, options, profile=Path("/p"), sandbox=sandbox, frame_height=frame_height))


@pytest.mark.parametrize("browser", list(Browser))
def test_every_session_is_quiet_private_and_reachable(browser: Browser) -> None:
    """Loopback only, a free port, a profile of its own, nothing downloaded."""
    flags = _argv(SessionOptions(browser=browser))
    assert flags >= {
        "--remote-debugging-port=0",
        "--user-data-dir=/p",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
    }


def test_the_window_is_higher_than_the_viewport_by_its_frame() -> None:
    """Full Chromium counts tabs and address bar; screen and window agree."""
    flags = _argv(SessionOptions(dimensions=Dimensions(800, 600)), frame_height=90)
    assert flags >= {"--headless=new", "--window-size=800,690", "--screen-info={800x690}"}


def test_a_narrow_viewport_is_in_a_window_of_the_least_width() -> None:
    """A window of a full Chromium is never narrower than 500 pixels."""
    assert "--window-size=500,687" in _argv(SessionOptions(dimensions=Dimensions(400, 600)))


def test_the_headless_shell_has_no_frame() -> None:
    """Its window is its viewport."""
    options = SessionOptions(browser=Browser.HEADLESS_SHELL, dimensions=Dimensions(800, 600))
    assert _argv(options) >= {"--headless", "--window-size=800,600"}


def test_a_window_that_is_to_be_seen_is_not_headless() -> None:
    """`headless=False` gives no headless flag of any form."""
    flags = _argv(SessionOptions(headless=False))
    assert not any(flag.startswith(("--headless", "--screen-info")) for flag in flags)


def test_the_sandbox_is_off_only_when_told() -> None:
    """`--no-sandbox` is there exactly if it cannot work."""
    assert "--no-sandbox" not in _argv(SessionOptions())
    assert "--no-sandbox" in _argv(SessionOptions(), sandbox=False)


def test_the_user_agent_is_one_argument() -> None:
    """Its spaces split nothing."""
    assert "--user-agent=a b/1" in _argv(SessionOptions(user_agent="a b/1"))


def test_the_environment_is_the_browsers_own() -> None:
    """Folders are its own, secrets and the display stay with us."""
    ours = {"PATH": "/bin", "OPENAI_API_KEY": "x", "DISPLAY": ":1", "HOME": "/home/me", "TZ": "UTC"}
    env = environment(DEEP, headless=True, environ=ours, linux=True)
    assert {"PATH": "/bin", "TZ": "UTC", "HOME": str(DEEP)}.items() <= env.items()
    assert {"OPENAI_API_KEY", "DISPLAY"}.isdisjoint(env)
    assert ":1" == environment(DEEP, headless=False, environ=ours)["DISPLAY"]


def test_the_socket_in_the_temporary_folder_has_a_short_name() -> None:
    """However deep the session's folder is: else Chromium aborts, and it does with any UUID."""
    env = environment(DEEP, headless=True, environ={}, linux=True)
    assert len(env["TMPDIR"]) + SOCKET_NAME_LENGTH < MAX_SOCKET_PATH
    assert "TMPDIR" not in environment(DEEP, headless=True, environ={}, linux=False)
    near = environment(Path("/tmp/x"), headless=True, environ={}, linux=False)
    assert "/tmp/x/tmp" == near["TMPDIR"]
