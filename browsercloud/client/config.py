"""The client's settings: one table, read in one place.

Precedence: an argument of `BrowserCloud(...)`, then the environment, then the default. Without a
URL in either the client embeds a server of its own, and `BROWSERCLOUD_API_KEY` is not looked at:
an embedded server makes its own key.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from browsercloud.errors import UsageError


def _url(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("must be a text such as http://127.0.0.1:8700")
    parts = urlsplit(value.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be http://HOST:PORT or https://HOST")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must hold no user, password or query; the key goes into api_key")
    return parts.geturl().rstrip("/")


def _key(value: Any) -> str:
    # It becomes a header: what a header cannot hold would fail far from here.
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value:
        raise ValueError("must be a text of printable ASCII characters, and not empty")
    return value


def _path(value: Any) -> Path:
    return Path(value).expanduser()


def _duration(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("must be a number of seconds")
    if not (0 < value < math.inf):
        raise ValueError("must be more than 0 seconds, and finite")
    return float(value)


@frozen
class Setting:
    """One row of the table."""

    name: str
    environment: str | None
    default: Any
    parse: Callable[[Any], Any]
    help: str


SETTINGS = (
    Setting("url", "BROWSERCLOUD_URL", None, _url, "The server; none: embed one in this process."),
    Setting(
        "api_key", "BROWSERCLOUD_API_KEY", None, _key, "The server's key; embedded needs none."
    ),
    Setting("request_timeout", None, 30.0, _duration, "One HTTP call, in seconds."),
    Setting("create_timeout", None, 120.0, _duration, "Create with all retries, in seconds."),
    Setting("connect_timeout", None, 30.0, _duration, "Attaching to a browser, in seconds."),
    Setting("release_timeout", None, 30.0, _duration, "Release with all retries, in seconds."),
    Setting("chromium", "BROWSERCLOUD_CHROMIUM", None, _path, "Embedded: the Chromium to run."),
    Setting(
        "headless_shell",
        "BROWSERCLOUD_HEADLESS_SHELL",
        None,
        _path,
        "Embedded: the headless shell to run.",
    ),
    Setting(
        "chromedriver",
        "BROWSERCLOUD_CHROMEDRIVER",
        None,
        _path,
        "Embedded: the chromedriver to run, for Selenium.",
    ),
)


@frozen(kw_only=True)
class ClientConfig:
    """The settings of one client, as they were when it was made."""

    url: str | None
    api_key: str | None = field(repr=False)
    request_timeout: float
    create_timeout: float
    connect_timeout: float
    release_timeout: float
    chromium: Path | None
    headless_shell: Path | None
    chromedriver: Path | None


def resolve(given: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> ClientConfig:
    """The settings from arguments (`None` means not given), environment and defaults.

    Raises `UsageError` that names the argument or the variable and says what it must be.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        value, source = given.get(setting.name), setting.name
        if value is None and setting.environment is not None:
            value, source = environ.get(setting.environment) or None, setting.environment
        try:
            values[setting.name] = setting.default if value is None else setting.parse(value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{source}: {error}") from error
    _check(values, given)
    if values["url"] is None:
        values["api_key"] = None
    return ClientConfig(**values)


def _check(values: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if values["url"] is None and given.get("api_key") is not None:
        raise UsageError(
            "api_key: there is no server to use it with; give url= or set BROWSERCLOUD_URL"
        )
    for name in ("chromium", "headless_shell", "chromedriver"):
        if values["url"] is not None and given.get(name) is not None:
            raise UsageError(f"{name}: only an embedded server starts browsers; leave url out")
