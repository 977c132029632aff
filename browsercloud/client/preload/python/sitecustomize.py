"""Imported by Python before a script, found by PYTHONPATH: what launches a browser connects.

The session's addresses are in the environment. Standard library only, and for older Pythons too:
it runs in whatever interpreter the script needs, where browsercloud may not be installed.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, NoReturn

ENDPOINT = os.environ.get("BROWSERCLOUD_WEBSOCKET_URL")
FOLDER = os.environ.get("BROWSERCLOUD_RUN_FOLDER")
"""The run's own folder: whether the script has connected, and files that must not outlive it."""

TAKEN = ("slow_mo", "timeout", "artifacts_dir")
"""Options of Playwright's `launch` that a connection takes, too."""

IDLE = ("env", "handle_sigint", "handle_sigterm", "handle_sighup")
"""Options that mean nothing where no process is started."""

CHROME_IGNORES = ("args", "binary", "extensions")
_launched = 0


def _say(line: str) -> None:
    print(f"browsercloud: {line}", file=sys.stderr, flush=True)  # noqa: T201


def _refuse(what: str, instead: str) -> NoReturn:
    raise RuntimeError(f"browsercloud: {what} does not work in a session: {instead}")


def _ignored(call: str, names: list[str]) -> None:
    if names:
        _say(f"the session's browser is running already; {call} ignores: {', '.join(names)}")


def _count() -> None:
    global _launched  # noqa: PLW0603
    _launched += 1
    if _launched == 2:
        _say("a second launch: it is the same session, with the same cookies and tabs")


def _connected() -> None:
    if FOLDER:
        with open(os.path.join(FOLDER, "connected"), "w"):
            return


# ---------------------------------------------------------------------------- Playwright


def _fitting(kind: Any, call: str, options: dict[str, Any]) -> dict[str, Any]:
    if kind.name != "chromium":
        _refuse(f"{kind.name}.{call}", "it is a Chromium; use chromium.launch()")
    given = {name: value for name, value in options.items() if value not in (None, [], "")}
    _ignored(call, [name for name in given if name not in TAKEN + IDLE])
    _count()
    fitting = {name: given[name] for name in TAKEN if name in given}
    if FOLDER and "artifacts_dir" in inspect.signature(kind.connect_over_cdp).parameters:
        # Playwright would make a folder in the system's, and leave it behind when it is killed.
        fitting.setdefault("artifacts_dir", os.path.join(FOLDER, f"artifacts-{_launched}"))
    return fitting


def _without_token(error: Exception) -> Exception:
    """The same error, where the message does not repeat the session's token."""
    return type(error)(re.sub(r"token=[^\s&\"']*", "token=…", str(error)))


def _sync_playwright(module: ModuleType) -> None:
    def connect(kind: Any, options: dict[str, Any]) -> Any:
        try:
            browser = kind.connect_over_cdp(ENDPOINT, **options)
        except module.Error as error:
            raise _without_token(error) from None
        _connected()
        return browser

    def launch(self: Any, **options: Any) -> Any:
        return connect(self, _fitting(self, "launch()", options))

    def launch_persistent_context(self: Any, user_data_dir: Any, **options: Any) -> Any:
        options["user_data_dir"] = user_data_dir
        return connect(self, _fitting(self, "launch_persistent_context()", options)).contexts[0]

    module.BrowserType.launch = launch
    module.BrowserType.launch_persistent_context = launch_persistent_context


def _async_playwright(module: ModuleType) -> None:
    async def connect(kind: Any, options: dict[str, Any]) -> Any:
        connecting: Awaitable[Any] = kind.connect_over_cdp(ENDPOINT, **options)
        try:
            browser = await connecting
        except module.Error as error:
            raise _without_token(error) from None
        _connected()
        return browser

    async def launch(self: Any, **options: Any) -> Any:
        return await connect(self, _fitting(self, "launch()", options))

    async def launch_persistent_context(self: Any, user_data_dir: Any, **options: Any) -> Any:
        options["user_data_dir"] = user_data_dir
        fitting = _fitting(self, "launch_persistent_context()", options)
        return (await connect(self, fitting)).contexts[0]

    module.BrowserType.launch = launch
    module.BrowserType.launch_persistent_context = launch_persistent_context


# ------------------------------------------------------------------------------ Selenium


class _Fitted:
    """Chrome's options without what a running browser cannot take."""

    def __init__(self, options: Any) -> None:
        self._options = options

    def __getattr__(self, name: str) -> Any:
        return getattr(self._options, name)

    def to_capabilities(self) -> dict[str, Any]:
        wanted = dict(self._options.to_capabilities())
        chrome = dict(wanted.get("goog:chromeOptions", {}))
        _ignored("Chrome()", [name for name in CHROME_IGNORES if chrome.pop(name, None)])
        wanted["goog:chromeOptions"] = {
            name: value for name, value in chrome.items() if name not in CHROME_IGNORES
        }
        return wanted


class _NoService:
    """Where a driver expects the chromedriver that it has started."""

    def stop(self) -> None:
        """Nothing was started."""


def _selenium(module: ModuleType) -> None:
    # The class stays what it is, so that its own methods (`execute_cdp_cmd`) are there.
    driver: Any = module.ChromiumDriver
    remote: Any = next(c for c in driver.__mro__ if c.__module__.endswith("remote.webdriver"))

    def start(  # noqa: PLR0917 (as it is called)
        self: Any,
        browser_name: str,
        vendor_prefix: str,
        options: Any = None,
        service: Any = None,
        keep_alive: bool = True,
    ) -> None:
        if vendor_prefix != "goog":
            _refuse(browser_name, "it is a Chromium; use webdriver.Chrome()")
        address = os.environ.get("BROWSERCLOUD_WEBDRIVER_URL")
        if not address:
            _refuse("Selenium", "its server offers no WebDriver; use a server that does")
        _count()
        self.service, self.options = _NoService(), options
        remote.__init__(
            self, command_executor=address, keep_alive=keep_alive, options=_Fitted(options)
        )
        _connected()

    driver.__init__ = start


def _other_selenium(module: ModuleType) -> None:
    def start(self: Any, *_: Any, **__: Any) -> None:
        name = type(self).__module__.split(".")[2]
        _refuse(name, "it is a Chromium; use webdriver.Chrome()")

    module.WebDriver.__init__ = start


# ------------------------------------------------------------------------------- loading

PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "playwright.sync_api": _sync_playwright,
    "playwright.async_api": _async_playwright,
    "selenium.webdriver.chromium.webdriver": _selenium,
    "selenium.webdriver.firefox.webdriver": _other_selenium,
    "selenium.webdriver.safari.webdriver": _other_selenium,
    "selenium.webdriver.ie.webdriver": _other_selenium,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing itself: has what others find patched once it is loaded."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in PATCHES:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader, PATCHES[name])
                return spec
        return None


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: Any, patch: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._patch = patch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._patch(module)


def _step_aside() -> None:
    """Let the environment's own `sitecustomize`, which this one hides, have its turn."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize")
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


if ENDPOINT:
    sys.meta_path.insert(0, _Finder())
_step_aside()
