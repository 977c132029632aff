"""Capabilities: what becomes an option, what is passed on, what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from browsercloud.errors import InvalidRequest, ServiceError
from browsercloud.options import Dimensions, SessionOptions
from browsercloud.server.capabilities import (
    Wanted,
    for_chromedriver,
    for_client,
    read_capabilities,
    require_same,
)


def asked(always: dict[str, Any], *first: dict[str, Any]) -> dict[str, Any]:
    """The body of New Session."""
    return {"capabilities": {"alwaysMatch": always, "firstMatch": list(first) or [{}]}}


def test_usual_switches_become_options() -> None:
    """Each of the three that a session has, and those of a Chromium of one's own are told back."""
    args = ["--headless=new", "--window-size=800,600", "--user-agent=me/1", "--no-sandbox"]
    wanted = read_capabilities(asked({"goog:chromeOptions": {"args": args, "extensions": []}}))
    size = {"width": 800, "height": 600}
    assert {"headless": True, "dimensions": size, "userAgent": "me/1"} == wanted.options
    assert ["--no-sandbox"] == wanted.ignored


def test_what_chromedriver_checks_is_passed_on() -> None:
    """And nothing of the browser's start, whatever the client says."""
    always = {"timeouts": {"script": 1}, "acceptInsecureCerts": True, "pageLoadStrategy": "eager"}
    wanted = read_capabilities(asked(always, {"browserName": "chrome"}))
    body = for_chromedriver(wanted, "host:1")
    expected = {**always, "goog:chromeOptions": {"debuggerAddress": "host:1"}}
    assert {"capabilities": {"alwaysMatch": expected}} == body


@pytest.mark.parametrize(
    ("always", "name"),
    [
        ({"browserName": "MicrosoftEdge"}, "browserName"),
        ({"browserName": "firefox"}, "browserName"),
        ({"browserVersion": "99"}, "browserVersion"),
        ({"platformName": "Windows 11"}, "platformName"),
        ({"webSocketUrl": True}, "webSocketUrl"),
        ({"proxy": {"proxyType": "manual"}}, "proxy"),
        ({"sauce:options": {}}, "sauce:options"),
        ({"goog:chromeOptions": {"args": ["--load-extension=/x"]}}, "--load-extension=/x"),
        ({"goog:chromeOptions": {"args": ["--window-size=big"]}}, "--window-size=big"),
        ({"goog:chromeOptions": {"binary": "/bin/sh"}}, "binary"),
        ({"goog:chromeOptions": {"debuggerAddress": "a:1"}}, "debuggerAddress"),
        ({"goog:chromeOptions": {"extensions": ["AAAA"]}}, "extensions"),
        ({"goog:chromeOptions": {"prefs": {"a": 1}}}, "prefs"),
        ({"LT:Options": {"tunnel": True}}, "LT:Options.tunnel"),
    ],
)
def test_what_no_session_has_is_refused_by_name(always: dict[str, Any], name: str) -> None:
    """As `session not created`; nothing is dropped in silence."""
    with pytest.raises(ServiceError) as caught:
        read_capabilities(asked(always))
    assert "session_not_created" == caught.value.code
    assert name in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"desiredCapabilities": {}},
        {"capabilities": 3},
        {"capabilities": {"alwaysMatch": []}},
        {"capabilities": {"firstMatch": []}},
        {"capabilities": {"firstMatch": ["x"]}},
        asked({"browserName": "chrome"}, {"browserName": "chrome"}),
        asked({"goog:chromeOptions": {"args": "--headless"}}),
        asked({"LT:Options": 1}),
    ],
)
def test_what_is_no_capabilities_is_an_invalid_argument(body: Any) -> None:
    """The error has a path."""
    with pytest.raises(InvalidRequest) as caught:
        read_capabilities(body)
    assert caught.value.details


def test_the_first_alternative_that_can_be_had_is_taken() -> None:
    """As the protocol says of firstMatch."""
    body = asked({}, {"browserName": "firefox"}, {"browserName": "chrome-headless-shell"})
    assert {"browser": "headless-shell"} == read_capabilities(body).options


def test_vendor_options_are_read() -> None:
    """Key, labels, size and idle time; the key is in no repr."""
    options = {"accessKey": "s3cret", "user": "me", "build": "b", "resolution": "800x600"}
    wanted = read_capabilities(asked({"LT:Options": {**options, "idleTimeout": 30}}))
    assert "s3cret" == wanted.key
    assert "s3cret" not in repr(wanted)
    size = {"width": 800, "height": 600}
    assert {"build": "b", "dimensions": size, "idleTimeout": 30} == wanted.options


def test_a_session_that_exists_cannot_be_changed() -> None:
    """What it is already may be asked for, anything else is refused with both values."""
    actual = SessionOptions(dimensions=Dimensions(800, 600))
    require_same(Wanted(options={"dimensions": {"width": 800, "height": 600}}), actual)
    require_same(Wanted(options={"headless": True}), actual)
    with pytest.raises(ServiceError, match=r"userAgent: .* None, not 'x'"):
        require_same(Wanted(options={"userAgent": "x"}), actual)


def test_no_address_of_the_machine_is_shown() -> None:
    """Neither where Chromium listens nor where its profile lies."""
    told = {
        "browserVersion": "1.2",
        "chrome": {"chromedriverVersion": "1.2", "userDataDir": "/secret/place"},
        "goog:chromeOptions": {"debuggerAddress": "127.0.0.1:99"},
        "webSocketUrl": "ws://127.0.0.1:98/session",
    }
    shown = for_client(told, Wanted(ignored=["--no-sandbox"]), "id", "ws://here", "http://here")
    assert not any(word in str(shown) for word in ("127.0.0.1", "/secret/place"))
    assert ("ws://here", "1.2") == (shown["se:cdp"], shown["se:cdpVersion"])
    assert ["--no-sandbox"] == shown["browsercloud:ignored"]
