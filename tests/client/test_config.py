"""Where a client's settings come from."""

import re
from pathlib import Path

import pytest

from browsercloud import BrowserCloud, UsageError
from browsercloud.client.config import SETTINGS, resolve

ELSEWHERE = {"BROWSERCLOUD_URL": "http://env:1", "BROWSERCLOUD_API_KEY": "from-env"}


def test_argument_outranks_environment() -> None:
    """An argument, then the environment."""
    config = resolve({"url": "http://arg:2", "api_key": "from-arg"}, ELSEWHERE)
    assert (config.url, config.api_key) == ("http://arg:2", "from-arg")


def test_environment_outranks_default() -> None:
    """The environment, then the default, each setting by itself."""
    config = resolve({"url": "http://arg:2"}, ELSEWHERE)
    assert (config.url, config.api_key) == ("http://arg:2", "from-env")


def test_nothing_given_means_embedded() -> None:
    """Without a URL the server is embedded, and a key in the environment is for another server."""
    config = resolve({}, {"BROWSERCLOUD_API_KEY": "from-env"})
    assert (config.url, config.api_key) == (None, None)


def test_empty_variable_is_none() -> None:
    """`BROWSERCLOUD_URL=` in a shell means that there is none."""
    assert resolve({}, {"BROWSERCLOUD_URL": ""}).url is None


def test_environment_is_read_when_the_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at import, and not later."""
    monkeypatch.setenv("BROWSERCLOUD_URL", "http://env:1")
    client = BrowserCloud()
    monkeypatch.setenv("BROWSERCLOUD_URL", "http://env:2")
    assert client.config.url == "http://env:1"


@pytest.mark.parametrize(
    ("given", "environment", "words"),
    [
        ({"url": "localhost:8700"}, {}, r"^url: .*http://HOST:PORT"),
        ({"url": "http://user:pw@host"}, {}, r"^url: .*api_key"),
        ({"url": 7}, {}, r"^url: .*text"),
        ({}, {"BROWSERCLOUD_URL": "ftp://x"}, r"^BROWSERCLOUD_URL: "),
        ({"api_key": "k"}, {}, r"^api_key: .*BROWSERCLOUD_URL"),
        ({"url": "http://h", "api_key": "a\nb"}, {}, r"^api_key: .*printable"),
        ({"request_timeout": 0}, {}, r"^request_timeout: .*more than 0"),
        ({"create_timeout": float("nan")}, {}, r"^create_timeout: "),
        ({"connect_timeout": "5"}, {}, r"^connect_timeout: .*number of seconds"),
        ({"url": "http://h", "chromium": "/x"}, {}, r"^chromium: only an embedded"),
    ],
)
def test_bad_settings_are_named(
    given: dict[str, object], environment: dict[str, str], words: str
) -> None:
    """A bad value is a `UsageError` that names the argument or the variable, and the remedy."""
    with pytest.raises(UsageError, match=words):
        resolve(given, environment)


def test_the_key_is_in_no_repr() -> None:
    """Neither the settings nor the client show it."""
    client = BrowserCloud("http://h", api_key="very-secret")
    assert "very-secret" not in repr(client.config) + repr(client) + repr(vars(client))


def test_readme_has_every_variable() -> None:
    """The README's table of variables is the table of settings."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    rows = set(re.findall(r"^\| `((?:BROWSERCLOUD|LT)_\w+)`", readme, re.MULTILINE))
    assert {setting.environment for setting in SETTINGS if setting.environment} <= rows
