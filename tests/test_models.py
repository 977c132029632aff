"""The facts that both sides share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from browsercloud.bounds import FieldError
from browsercloud.models import BrowserExit, LiveDetails, LivePage, Session, SessionStatus
from browsercloud.options import LATER_OPTIONS, Browser, Dimensions, SessionOptions
from browsercloud.wire import camel


@pytest.mark.parametrize("timeout", [0.001, 1, 86_400])
def test_a_timeout_in_its_range_is_taken(timeout: float) -> None:
    """More than 0, at most 24 h."""
    assert SessionOptions(timeout=timeout).timeout == timeout


@pytest.mark.parametrize("timeout", [0, -1, 86_400.001, float("nan"), float("inf")])
def test_a_timeout_out_of_range_is_refused(timeout: float) -> None:
    """With the field's name."""
    with pytest.raises(FieldError) as caught:
        SessionOptions(timeout=timeout)
    assert caught.value.field == "timeout"


def test_a_timeout_in_milliseconds_is_told_its_unit() -> None:
    """Who writes 300000 in Python meant milliseconds, and is told of seconds."""
    with pytest.raises(FieldError, match="seconds in Python"):
        SessionOptions(timeout=300_000)


@pytest.mark.parametrize("side", [99, 8_193, float("nan")])
def test_sides_have_bounds(side: Any) -> None:
    """100 to 8192 pixels, each side by its name."""
    with pytest.raises(FieldError, match="width: must be between 100 and 8192 pixels"):
        Dimensions(side, 600)
    with pytest.raises(FieldError, match="height"):
        Dimensions(800, side)


def test_the_headless_shell_shows_no_window() -> None:
    """A combination that cannot be is refused, and the message says what can."""
    with pytest.raises(FieldError, match="use browser 'chromium'"):
        SessionOptions(browser=Browser.HEADLESS_SHELL, headless=False)


@pytest.mark.parametrize("text", ["", " ", "a\nb", "a\r\nX: y", "\x7f", "ü"])
def test_a_user_agent_cannot_break_out_of_its_header(text: str) -> None:
    """Printable ASCII, and something in it."""
    with pytest.raises(FieldError, match="user_agent"):
        SessionOptions(user_agent=text)


def test_facts_do_not_change() -> None:
    """A record is what it was; `attrs.evolve` makes another."""
    options = SessionOptions()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        options.timeout = 1  # type: ignore[misc]


def test_urls_that_open_something_are_in_no_repr() -> None:
    """Records and details may be logged."""
    now = datetime(2030, 1, 1, tzinfo=UTC)
    urls = dict.fromkeys(("websocket_url", "debug_url", "session_viewer_url"), "ws://secret")
    session = Session(id="1", status=SessionStatus.LIVE, created_at=now, **urls)
    page = LivePage(id="p", url="about:blank", title="", session_viewer_url="ws://secret")
    details = LiveDetails(pages=(page,), ws_url="ws://secret")
    assert "secret" not in repr(session) + repr(details)


def test_only_two_states_are_an_end() -> None:
    """Released and failed."""
    over = {status for status in SessionStatus if status.ended}
    assert over == {SessionStatus.RELEASED, SessionStatus.FAILED}


def test_only_exit_code_zero_is_clean() -> None:
    """A signal, another code, or no knowledge of it are not."""
    exits = [BrowserExit(exit_code=0), BrowserExit(exit_code=1), BrowserExit(signal="SIGTERM")]
    assert [how.clean for how in (*exits, BrowserExit())] == [True, False, False, False]


def test_no_option_is_offered_and_refused_at_once() -> None:
    """An option that has come is taken from the list of later ones."""
    offered = {camel(field.name) for field in attrs.fields(SessionOptions)}
    assert offered.isdisjoint(LATER_OPTIONS)
