"""W3C capabilities: what a WebDriver client asks for, as options of a session, and the answer.

Pure. What a session cannot honour is refused by its name, like any option; a few switches of
scripts that used to start Chromium themselves have no meaning here, and are told back as ignored.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import Factory, define, field

from browsercloud.errors import InvalidRequest, ServiceError
from browsercloud.options import SessionOptions
from browsercloud.wire import dump, invalid, read_create

NAMES: Mapping[str, Mapping[str, str]] = {
    "chrome": {},
    "chromium": {},
    "pw-chromium": {},
    "chrome-headless-shell": {"browser": "headless-shell"},
}
"""Browser names in small letters, and the options that they stand for."""

PASSED = (
    "acceptInsecureCerts",
    "pageLoadStrategy",
    "timeouts",
    "unhandledPromptBehavior",
    "strictFileInteractability",
    "goog:loggingPrefs",
)
"""What chromedriver itself reads and checks."""

PLATFORMS = ("", "any", {"darwin": "macos"}.get(sys.platform, sys.platform))

PLAIN: Mapping[str, Any] = {
    "acceptInsecureCerts": False,
    "pageLoadStrategy": "normal",
    "timeouts": {},
    "unhandledPromptBehavior": "dismiss and notify",
    "strictFileInteractability": False,
    "goog:loggingPrefs": {},
}
"""What clients say of those although it is so anyway."""

ANY_OTHER: Mapping[str, tuple[Any, ...]] = {
    "browserVersion": ("", "stable", "latest"),
    "platformName": PLATFORMS,
    "webSocketUrl": (False,),
    "setWindowRect": (False, True),
    "proxy": ({}, {"proxyType": "system"}, {"proxyType": "direct"}),
}
"""What can be asked for only in these values, as they ask for nothing."""

SERVERS_BUSINESS = (
    "no-sandbox",
    "disable-setuid-sandbox",
    "disable-gpu",
    "disable-dev-shm-usage",
    "disable-extensions",
    "disable-infobars",
    "no-first-run",
    "no-default-browser-check",
    "start-maximized",
)
"""Switches that scripts carry along for a Chromium of their own. Ignored, and told so."""

_NO = (False, "false")
EMPTY_LT_OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "browserVersion": ANY_OTHER["browserVersion"],
    "platformName": PLATFORMS,
    "platform": PLATFORMS,
    "video": _NO,
    "console": _NO,
    "network": _NO,
    "visual": _NO,
    "tunnel": _NO,
    "tunnelName": ("",),
    "geoLocation": ("",),
    "region": ("",),
    "tags": ([],),
}
"""What TestMu's scripts carry along, in the values that ask for nothing."""

ABOUT_THE_CLIENT = ("user", "username", "w3c", "plugin", "playwrightClientVersion")
"""What they tell and do not ask for."""

_NO_JSON = (
    'must be an object of JSON, encoded for a URL: {"browserName": "Chrome", "LT:Options": {…}}; '
    "in JavaScript encodeURIComponent(JSON.stringify(capabilities))"
)

EMPTY_CHROME_OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "extensions": ([],),
    "prefs": ({},),
    "localState": ({},),
    "binary": ("",),
    "detach": (False,),
    "useAutomationExtension": (False,),
    "w3c": (True,),
}


@define
class Wanted:
    """One alternative of what a client asks for."""

    options: dict[str, Any] = Factory(dict)
    """Session options, in wire form, as far as they were given."""

    passed: dict[str, Any] = Factory(dict)
    """What chromedriver is to be told."""

    ignored: list[str] = Factory(list)
    key: str | None = field(default=None, repr=False)


def read_capabilities(body: Any) -> Wanted:
    """What the body of New Session asks for: the first alternative that a session can honour.

    Raises `InvalidRequest` for what is no capabilities at all, and what `refused` makes when none
    of the alternatives can be had.
    """
    asked = body.get("capabilities") if isinstance(body, Mapping) else None
    if not isinstance(asked, Mapping):
        raise invalid([("capabilities", "required: an object with alwaysMatch or firstMatch")])
    always = _object(asked.get("alwaysMatch", {}), "capabilities.alwaysMatch")
    first = asked.get("firstMatch", [{}])
    if not isinstance(first, Sequence) or isinstance(first, str) or not first:
        raise invalid([("capabilities.firstMatch", "must be a list that is not empty")])
    problem: ServiceError | None = None
    for number, alternative in enumerate(first):
        path = f"capabilities.firstMatch[{number}]"
        more = _object(alternative, path)
        if twice := sorted(always.keys() & more.keys()):
            raise invalid([(f"{path}.{twice[0]}", "is in alwaysMatch, too")])
        try:
            return _read({**always, **more})
        except InvalidRequest:
            raise
        except ServiceError as error:
            problem = problem or error
    assert problem is not None  # noqa: S101 - every round returns or raises
    raise problem


def read_socket(text: str) -> Wanted:
    """What TestMu's `?capabilities=` asks for: one flat object of JSON.

    Raises `InvalidRequest`, also for what only chromedriver could do.
    """
    try:
        asked = json.loads(text)
    except (ValueError, RecursionError):
        raise invalid([("capabilities", _NO_JSON)]) from None
    try:
        wanted = _read(_object(asked, "capabilities"))
    except InvalidRequest:
        raise
    except ServiceError as error:
        raise invalid([("capabilities", error.message)]) from None
    if found := beyond_plain(wanted):
        only = "is for WebDriver only; leave it out"
        raise invalid([(f"capabilities.{name}", only) for name in found])
    return wanted


def beyond_plain(wanted: Wanted) -> list[str]:
    """The names of what chromedriver would have to do, as it is not so anyway."""
    return [name for name, value in wanted.passed.items() if PLAIN.get(name, wanted) != value]


def refused(name: str, reason: str) -> ServiceError:
    """The error for a capability that cannot be had."""
    return ServiceError(f"{name}: {reason}", status=500, code="session_not_created")


def require_same(wanted: Wanted, actual: SessionOptions) -> None:
    """Raise unless a session that exists already is as *wanted*."""
    asked = dump(read_create(dict(wanted.options)).options)
    given = read_create(dict(wanted.options)).given
    for name in given:
        has = dump(actual)[name]
        if asked[name] != has:
            raise refused(name, f"this session exists already, with {has!r}, not {asked[name]!r}")


def for_chromedriver(wanted: Wanted, debugger: str) -> dict[str, Any]:
    """The body of New Session for a chromedriver that is to attach to the browser at *debugger*."""
    passed = dict(wanted.passed)
    passed["goog:chromeOptions"] = {
        **passed.get("goog:chromeOptions", {}),
        "debuggerAddress": debugger,
    }
    return {"capabilities": {"alwaysMatch": passed}}


def for_client(
    told: Mapping[str, Any], wanted: Wanted, session_id: str, cdp: str, viewer: str
) -> dict[str, Any]:
    """What chromedriver tells, without its machine's addresses, and with the session's own."""
    shown = {name: value for name, value in told.items() if name not in ("chrome", "webSocketUrl")}
    driver = told.get("chrome", {}).get("chromedriverVersion", "")
    shown["chrome"] = {"chromedriverVersion": driver}
    shown["goog:chromeOptions"] = {}
    shown["se:cdp"] = cdp
    shown["se:cdpVersion"] = told.get("browserVersion", "")
    shown["browsercloud:sessionId"] = session_id
    shown["browsercloud:viewerUrl"] = viewer
    if wanted.ignored:
        shown["browsercloud:ignored"] = wanted.ignored
    return shown


def _read(asked: Mapping[str, Any]) -> Wanted:
    wanted = Wanted()
    for name, value in asked.items():
        if value is None or name == "se:remoteUrl":  # the latter only says where it was sent
            continue
        if name == "browserName":
            _browser_name(wanted, value)
        elif name in PASSED:
            wanted.passed[name] = value
        elif name in ANY_OTHER:
            _only(name, value, ANY_OTHER[name])
        elif name == "goog:chromeOptions":
            _chrome_options(wanted, _object(value, name))
        elif name == "browsercloud:options":
            wanted.options.update(_object(value, name))
        elif name == "LT:Options":
            _lt_options(wanted, _object(value, name))
        else:
            raise refused(name, "a session does not offer this capability; leave it out")
    return wanted


def _object(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise invalid([(path, "must be an object")])
    return value


def _only(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    plain = value.lower() if isinstance(value, str) else value
    if plain not in allowed:
        raise refused(name, f"cannot be {value!r} here; leave it out")


def _browser_name(wanted: Wanted, value: Any) -> None:
    name = value.lower() if isinstance(value, str) else ""
    if name not in NAMES:
        raise refused("browserName", f"must be one of {', '.join(NAMES)}, not {value!r}")
    wanted.options.update(NAMES[name])


def _chrome_options(wanted: Wanted, asked: Mapping[str, Any]) -> None:
    for name, value in asked.items():
        path = f"goog:chromeOptions.{name}"
        if name == "args":
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                raise invalid([(path, "must be a list of texts")])
            for switch in value:
                _switch(wanted, switch)
        elif name == "excludeSwitches":
            wanted.ignored.append(path)  # no session is started with any of them
        elif name == "perfLoggingPrefs":
            wanted.passed.setdefault("goog:chromeOptions", {})[name] = value
        elif name not in EMPTY_CHROME_OPTIONS or value not in EMPTY_CHROME_OPTIONS[name]:
            raise refused(path, "a session does not offer this; leave it out")


def _switch(wanted: Wanted, text: str) -> None:
    name, _, value = text.removeprefix("--").partition("=")
    size = re.fullmatch(r"(\d+)[,x](\d+)", value)
    if name == "headless":
        wanted.options["headless"] = True
    elif name == "window-size" and size:
        wanted.options["dimensions"] = {"width": int(size[1]), "height": int(size[2])}
    elif name == "user-agent" and value:
        wanted.options["userAgent"] = value
    elif name in SERVERS_BUSINESS:
        wanted.ignored.append(f"--{name}")
    else:
        raise refused(
            f"goog:chromeOptions.args {text}",
            "a session does not offer this switch; leave it out, or see browsercloud:options",
        )


def _lt_options(wanted: Wanted, asked: Mapping[str, Any]) -> None:
    for name, value in asked.items():
        size = re.fullmatch(r"(\d+)x(\d+)", value) if isinstance(value, str) else None
        if name == "accessKey" and isinstance(value, str):
            wanted.key = value
        elif name in ("build", "name", "idleTimeout", "headless"):
            wanted.options[name] = value
        elif name == "resolution" and size:
            wanted.options["dimensions"] = {"width": int(size[1]), "height": int(size[2])}
        elif name in EMPTY_LT_OPTIONS:
            _only(f"LT:Options.{name}", value, EMPTY_LT_OPTIONS[name])
        elif name not in ABOUT_THE_CLIENT:
            raise refused(f"LT:Options.{name}", "a session does not offer this; leave it out")
