"""What a session's pages are told about the browser, applied before their first request."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from browsercloud._aio import give_up
from browsercloud.cdp.connection import CdpConnection, CdpError
from browsercloud.options import Dimensions

AUTO_ATTACH = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
OVERRIDE_TIMEOUT = 10.0

BRANDS = {"Edg": "Microsoft Edge", "OPR": "Opera", "HeadlessChrome": "HeadlessChrome"}

log = logging.getLogger(__name__)


@frozen
class NewWindows:
    """Windows that open in the size *usual* get the size *wanted*, frames included."""

    usual: Dimensions
    wanted: Dimensions


class PageOverrides:
    """Gives every page, frame and worker of a browser a user agent, every page a viewport.

    With *windows* a page that opens a window of the usual size has another one before it runs.
    `--user-agent` alone changes the header and leaves `sec-ch-ua` as it was, and a window has a
    least width. Each new target waits until it has been told, so its first request is right. Holds
    until `close`; other CDP clients are not disturbed. `navigator.platform` follows only until a
    page moves to another process: Chromium forgets that one.
    """

    def __init__(
        self,
        cdp: CdpConnection,
        user_agent: str | None = None,
        viewport: Dimensions | None = None,
        windows: NewWindows | None = None,
    ) -> None:
        self._cdp = cdp
        self._windows = windows
        self._calls: list[tuple[str, Mapping[str, Any]]] = []
        if user_agent is not None:
            self._calls.append(("Emulation.setUserAgentOverride", override(user_agent)))
        self._page_calls: list[tuple[str, Mapping[str, Any]]] = []
        if viewport is not None:
            self._page_calls.append(("Emulation.setDeviceMetricsOverride", _metrics(viewport)))
        self._telling: set[asyncio.Task[None]] = set()
        cdp.on("Target.attachedToTarget", self._attached)

    async def apply(self) -> None:
        """Begin; returns when the present pages are told. The connection is ours from now on."""
        await self._cdp.send("Target.setAutoAttach", AUTO_ATTACH)
        while self._telling:
            await asyncio.wait(self._telling)

    async def close(self) -> None:
        """Let go; the pages keep nothing of it. Safe to call twice."""
        for task in self._telling:
            give_up(task)
        await self._cdp.close()

    def _attached(self, params: Mapping[str, Any], _: str | None) -> None:
        task = asyncio.get_running_loop().create_task(
            self._tell(params["sessionId"], params["targetInfo"])
        )
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, session: str, target: Mapping[str, Any]) -> None:
        """Tell one target and everything under it, and let it run whatever happens."""
        kind = target["type"]
        if kind == "page" and self._windows is not None:
            await self._enlarge(target["targetId"], self._windows)
        calls = [
            *self._calls,
            *(self._page_calls if kind == "page" else ()),
            ("Target.setAutoAttach", AUTO_ATTACH),
            ("Runtime.runIfWaitingForDebugger", {}),
        ]
        # Sent together, as a target that waits answers some calls only when it runs. They are
        # carried out in this order.
        answers = await asyncio.gather(
            *(
                self._cdp.send(method, params, session, timeout=OVERRIDE_TIMEOUT)
                for method, params in calls
            ),
            return_exceptions=True,
        )
        for (method, _), answer in zip(calls, answers, strict=True):
            if isinstance(answer, CdpError):
                log.debug("%s for a %s: %s", method, kind, answer)
            elif isinstance(answer, BaseException):
                raise answer

    async def _enlarge(self, target: str, windows: NewWindows) -> None:
        try:
            found = await self._cdp.send(
                "Browser.getWindowForTarget", {"targetId": target}, timeout=OVERRIDE_TIMEOUT
            )
            size = (found["bounds"].get("width"), found["bounds"].get("height"))
            if size != (windows.usual.width, windows.usual.height):
                return  # a tab of a window that has its size, or one whose opener chose it
            bounds = {"width": windows.wanted.width, "height": windows.wanted.height}
            where = {"windowId": found["windowId"], "bounds": bounds}
            await self._cdp.send("Browser.setWindowBounds", where, timeout=OVERRIDE_TIMEOUT)
        except CdpError as error:  # it has closed meanwhile
            log.debug("the size of a new window: %s", error)


def _metrics(viewport: Dimensions) -> dict[str, Any]:
    # Scale factor 0: the screen's own.
    size = {"width": viewport.width, "height": viewport.height}
    return {**size, "deviceScaleFactor": 0, "mobile": False}


def override(user_agent: str) -> dict[str, Any]:
    """The parameters of `Emulation.setUserAgentOverride` for a user agent string.

    A browser of the Chromium family gets client hints that say the same as the string; any other
    sends none.
    """
    parameters: dict[str, Any] = {"userAgent": user_agent}
    platform, navigator_platform = _platform(user_agent)
    parameters["platform"] = navigator_platform
    parameters["userAgentMetadata"] = _metadata(user_agent, platform)
    return parameters


def _metadata(user_agent: str, platform: str) -> dict[str, Any]:
    brands = _brands(user_agent)
    return {
        "brands": [{"brand": name, "version": full.split(".")[0]} for name, full in brands],
        "fullVersionList": [{"brand": name, "version": full} for name, full in brands],
        "fullVersion": brands[0][1] if brands else "",
        "platform": platform,
        "platformVersion": _platform_version(user_agent),
        "architecture": "" if "Mobile" in user_agent else "x86",
        "bitness": "" if "Mobile" in user_agent else "64",
        "model": _model(user_agent),
        "mobile": "Mobile" in user_agent,
        "wow64": False,
    }


def _brands(user_agent: str) -> list[tuple[str, str]]:
    """(name, full version), Chromium first; empty for another family, such as Firefox."""
    chromium = re.search(r"(?:Headless)?Chrome/(\d[\d.]*)", user_agent)
    if chromium is None:
        return []
    brands = [("Chromium", chromium.group(1))]
    for token, name in BRANDS.items():
        if found := re.search(rf"{token}[A-Z]*/(\d[\d.]*)", user_agent):
            brands.append((name, found.group(1)))
            break
    else:
        brands.append(("Google Chrome", chromium.group(1)))
    # A brand that is none, as Chromium itself sends, so that nobody relies on the list.
    return [*brands, ("Not.A/Brand", "99.0.0.0")]


def _platform(user_agent: str) -> tuple[str, str]:
    """The client hint's name of the platform, and `navigator.platform`."""
    for mark, names in {
        "Windows": ("Windows", "Win32"),
        "Android": ("Android", "Linux armv8l"),
        "iPhone": ("iOS", "iPhone"),
        "iPad": ("iOS", "iPad"),
        "CrOS": ("Chrome OS", "Linux x86_64"),
        "Mac OS X": ("macOS", "MacIntel"),
    }.items():
        if mark in user_agent:
            return names
    return ("Linux", "Linux x86_64")


def _platform_version(user_agent: str) -> str:
    found = re.search(r"(?:Windows NT|Android|Mac OS X|CPU (?:iPhone )?OS) ([\d._]+)", user_agent)
    return found.group(1).replace("_", ".") if found else ""


def _model(user_agent: str) -> str:
    found = re.search(r"Android [\d.]+; ([^;)]+?)(?: Build/[^)]*)?\)", user_agent)
    return found.group(1) if found else ""
