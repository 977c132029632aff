"""The server's settings: one frozen object, made from one table."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import platformdirs
from attrs import field, frozen

from browsercloud.errors import UsageError
from browsercloud.server.logs import FORMATS, LEVELS

DEFAULT_PROJECT = "default"
SECRET_BYTES = 32
DAY = 24 * 3600.0
MEGABYTE = 1024 * 1024

LEAST_MEMORY = 128
"""Megabytes without which no browser gets as far as its first page."""

_KEY = re.compile(r"[!-~]+")
_HOST = re.compile(r"[A-Za-z0-9._:%\[\]-]{1,255}")
_YES_NO = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@frozen(kw_only=True)
class ServerConfig:
    """How a server runs. Reads nothing from its surroundings; `from_environment` does.

    A combination that cannot be meant raises `UsageError`.
    """

    host: str = "127.0.0.1"
    port: int = 8700
    """0 lets the system choose."""

    data_dir: Path | None = None
    """Where records and secrets are kept; `None` keeps nothing, as when embedded."""

    api_key: str | None = field(default=None, repr=False)
    """A key of the project `default`, besides those in the store."""

    token_secret: bytes = field(factory=lambda: secrets.token_bytes(SECRET_BYTES), repr=False)
    """Signs session tokens. New for each object, unless it is loaded from `data_dir`."""

    no_auth: bool = False
    allowed_hosts: tuple[str, ...] = ()
    lease_grace: float = 10.0
    """Seconds that a client may be away before its sessions are released."""

    max_sessions: int | None = None
    """Sessions at a time; `None`: what the machine's cores and memory allow."""

    max_queue: int = 100
    """Sessions of one project that may wait for their turn."""

    queue_timeout: float = 300.0
    """Seconds that a session may wait for its turn."""

    drain: bool = False
    """Whether the first signal lets the running sessions end by themselves."""

    keep_ended: float = 7 * DAY
    """Seconds for which the records of ended sessions are kept."""

    orphan_grace: float = 60.0
    """Seconds that browsers outlive a server that was killed, for the next one to adopt them."""

    session_memory: int = 2048 * MEGABYTE
    """Bytes that one session may use before it is ended; 0: as many as there are."""

    chromium: Path | None = None
    headless_shell: Path | None = None
    chromedriver: Path | None = None
    log_format: str = "auto"
    log_level: str = "info"
    handler_cancellation: bool = False
    """Whether a client that hangs up cancels the handler of its request."""

    def __attrs_post_init__(self) -> None:
        """Refuse what would leave the server open to strangers."""
        if self.no_auth and not is_loopback(self.host):
            raise UsageError(
                f"--no-auth is for loopback only, and {self.host} can be reached by others; "
                "use --host 127.0.0.1, or leave --no-auth out"
            )


@frozen(kw_only=True)
class Setting:
    """One row of the table: how a setting is spelled, read and explained."""

    name: str
    option: str
    variable: str
    default: str
    """The default in words, for help texts."""

    help: str
    parse: Callable[[str], Any]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to *host*."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError("give an address or a name, such as 127.0.0.1, :: or localhost")
    return text.strip("[]")


def _port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65_535:
        raise ValueError("give a whole number from 0 to 65535; 0 lets the system choose")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 3600:
        raise ValueError("give a number of seconds, more than 0 and at most 3600")
    return value


def _grace(text: str) -> float:
    return 0.0 if text.strip() == "0" else _seconds(text)


def _megabytes(text: str) -> int:
    if not re.fullmatch("[0-9]{1,8}", text) or 0 < int(text) < LEAST_MEMORY:
        raise ValueError(f"give a whole number of megabytes from {LEAST_MEMORY}, or 0 for no cap")
    return int(text) * MEGABYTE


def _days(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 3650:
        raise ValueError("give a number of days, more than 0 and at most 3650")
    return value * DAY


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text) or not int(text):
        raise ValueError("give a whole number, at least 1")
    return int(text)


def _flag(text: str) -> bool:
    if text.lower() not in _YES_NO:
        raise ValueError("give yes or no")
    return _YES_NO[text.lower()]


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"give one of {', '.join(words)}")
        return text.lower()

    return parse


def _hosts(text: str) -> tuple[str, ...]:
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    if not names or not all(_HOST.fullmatch(name) for name in names):
        raise ValueError("give host names separated by commas, such as browsers.example.com")
    return names


def _file(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    return path


def _folder(text: str) -> Path:
    path = Path(text).expanduser()
    if path.exists() and not path.is_dir():
        raise ValueError("this is not a folder")
    return path.absolute()


def _key(text: str) -> str:
    # What a header cannot hold could never be sent. The message must not repeat it: it is a secret.
    if not text.strip() or text != text.strip() or not text.isascii() or not text.isprintable():
        raise ValueError("give printable ASCII characters without spaces around them")
    return text


SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="host",
        option="--host",
        variable="BROWSERCLOUD_HOST",
        default="127.0.0.1",
        help="Address to listen on.",
        parse=_host,
    ),
    Setting(
        name="port",
        option="--port",
        variable="BROWSERCLOUD_PORT",
        default="8700",
        help="Port to listen on; 0 lets the system choose.",
        parse=_port,
    ),
    Setting(
        name="data_dir",
        option="--data-dir",
        variable="BROWSERCLOUD_DATA_DIR",
        default="the user's data folder",
        help="Folder for what outlives the server.",
        parse=_folder,
    ),
    Setting(
        name="api_key",
        option="--api-key",
        variable="BROWSERCLOUD_API_KEY",
        default="one is made at the first start, if there is none",
        help="A key of the project default, besides those of `browsercloud keys`. Prefer the "
        "environment variable: everyone on the machine can read a command line.",
        parse=_key,
    ),
    Setting(
        name="no_auth",
        option="--no-auth",
        variable="BROWSERCLOUD_NO_AUTH",
        default="no",
        help="Ask for no key. On a loopback address only.",
        parse=_flag,
    ),
    Setting(
        name="allowed_hosts",
        option="--allowed-hosts",
        variable="BROWSERCLOUD_ALLOWED_HOSTS",
        default="addresses, localhost and this machine's name",
        help="More names under which web browsers may reach the server, separated by commas.",
        parse=_hosts,
    ),
    Setting(
        name="lease_grace",
        option="--lease-grace",
        variable="BROWSERCLOUD_LEASE_GRACE",
        default="10",
        help="Seconds that a client may be away before its sessions are released.",
        parse=_seconds,
    ),
    Setting(
        name="max_sessions",
        option="--max-sessions",
        variable="BROWSERCLOUD_MAX_SESSIONS",
        default="what cores and memory allow; `browsercloud doctor` shows the sum",
        help="Sessions at a time. More wait in a line.",
        parse=_count,
    ),
    Setting(
        name="max_queue",
        option="--max-queue",
        variable="BROWSERCLOUD_MAX_QUEUE",
        default="100",
        help="Sessions of one project that may wait in the line. More are refused.",
        parse=_count,
    ),
    Setting(
        name="queue_timeout",
        option="--queue-timeout",
        variable="BROWSERCLOUD_QUEUE_TIMEOUT",
        default="300",
        help="Seconds that a session may wait in the line.",
        parse=_seconds,
    ),
    Setting(
        name="drain",
        option="--drain",
        variable="BROWSERCLOUD_DRAIN",
        default="no",
        help="Let the first signal refuse new sessions and wait until the running ones have ended; "
        "a second one releases them.",
        parse=_flag,
    ),
    Setting(
        name="keep_ended",
        option="--keep-ended",
        variable="BROWSERCLOUD_KEEP_ENDED",
        default="7",
        help="Days for which the records of ended sessions are kept.",
        parse=_days,
    ),
    Setting(
        name="orphan_grace",
        option="--orphan-grace",
        variable="BROWSERCLOUD_ORPHAN_GRACE",
        default="60",
        help="Seconds that browsers outlive a server that was killed, for the next one on the same "
        "data folder to take them over; 0 ends them at once.",
        parse=_grace,
    ),
    Setting(
        name="session_memory",
        option="--session-memory",
        variable="BROWSERCLOUD_SESSION_MEMORY",
        default="2048",
        help="Megabytes that one session may use before it is ended; 0 for no cap.",
        parse=_megabytes,
    ),
    Setting(
        name="chromium",
        option="--chromium",
        variable="BROWSERCLOUD_CHROMIUM",
        default="the one that is installed",
        help="Chromium's executable.",
        parse=_file,
    ),
    Setting(
        name="headless_shell",
        option="--headless-shell",
        variable="BROWSERCLOUD_HEADLESS_SHELL",
        default="the one that is installed",
        help="Executable of Chromium's headless shell.",
        parse=_file,
    ),
    Setting(
        name="chromedriver",
        option="--chromedriver",
        variable="BROWSERCLOUD_CHROMEDRIVER",
        default="the one that fits the browser",
        help="Executable of chromedriver, for Selenium.",
        parse=_file,
    ),
    Setting(
        name="log_format",
        option="--log-format",
        variable="BROWSERCLOUD_LOG_FORMAT",
        default="auto",
        help="How the log is written: human, json (an object per line), or auto: human on a "
        "terminal.",
        parse=_one_of(*FORMATS),
    ),
    Setting(
        name="log_level",
        option="--log-level",
        variable="BROWSERCLOUD_LOG_LEVEL",
        default="info",
        help="What is logged at least: debug, info, warning or error.",
        parse=_one_of(*LEVELS),
    ),
    Setting(
        name="handler_cancellation",
        option="--handler-cancellation",
        variable="BROWSERCLOUD_HANDLER_CANCELLATION",
        default="no",
        help="Cancel the handling of a request when its client hangs up.",
        parse=_flag,
    ),
)


def from_environment(given: Mapping[str, str | None], environ: Mapping[str, str]) -> ServerConfig:
    """The settings of `serve`: what was *given* on the command line, by name, else the environment.

    The only place that knows the variables' names. An empty variable counts as absent; `data_dir`
    defaults to the user's data folder. Raises `UsageError` that names setting and remedy.
    """
    values: dict[str, Any] = {"data_dir": Path(platformdirs.user_data_dir("browsercloud"))}
    for setting in SETTINGS:
        text, source = given.get(setting.name), setting.option
        if text is None:
            text, source = environ.get(setting.variable) or None, setting.variable
        if text is None:
            continue
        try:
            values[setting.name] = setting.parse(text)
        except ValueError as error:
            raise UsageError(f"{source}: {error}") from None
    return ServerConfig(**values)
