"""What the pages of a session are told about the browser that they are in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen

from browsercloud.cdp.agent import Agent
from browsercloud.options import Dimensions
from browsercloud.wanted import Coordinates, Permission

Call = tuple[str, Mapping[str, Any]]
"""A CDP command and its parameters."""

PAGES = ("page", "iframe")
SHARED_WORKERS = ("shared_worker", "service_worker")
MOBILE_SCALE = 2.625
"""Physical pixels in one of CSS, on a phone whose screen is 412 wide."""

FINGERS = 5

_NAVIGATOR = """((userAgent, appVersion, platform) => {
  for (const [name, value] of Object.entries({userAgent, appVersion, platform}))
    Object.defineProperty(WorkerNavigator.prototype, name, {
      get() { return value; }, configurable: true, enumerable: true});
})"""

LISTENING = {"maxTotalBufferSize": 0, "maxResourceBufferSize": 0, "maxPostDataSize": 0}
"""Headers are added only where requests are listened to; nothing that is heard is kept."""


@frozen(kw_only=True)
class Look:
    """What has to be said to each target anew; what is `None` is left as the browser has it."""

    agent: Agent | None = None
    viewport: Dimensions | None = None
    """Emulated: only for what no window can have."""

    mobile: bool = False
    languages: tuple[str, ...] = ()
    """What pages may read, the best first."""

    locale: str | None = None
    timezone: str | None = None
    coordinates: Coordinates | None = None
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    permissions: tuple[Permission, ...] = ()
    cores: int | None = None
    script: str = field(default="", repr=False)
    """Run by every document and worker before its own."""

    seed: str = field(default="", repr=False)
    """A script that gives a new tab its session storage; see `storage.seed_script`."""

    def __bool__(self) -> bool:
        """Whether there is anything to say."""
        return self != Look()

    def calls(self, kind: str, *, waits: bool = True) -> Iterator[Call]:
        """What to say to a target of this *kind* (`page`, `iframe`, `worker`, …), in this order.

        *waits*: it is new, and has run nothing yet.
        """
        if self.agent is not None or self.languages:
            yield "Emulation.setUserAgentOverride", self._agent()
        if self.viewport is not None and kind in PAGES:
            yield "Emulation.setDeviceMetricsOverride", _metrics(self.viewport, mobile=self.mobile)
        if self.mobile and kind in PAGES:
            touch = {"enabled": True, "maxTouchPoints": FINGERS}
            yield "Emulation.setTouchEmulationEnabled", touch
        if self.coordinates is not None and kind in PAGES:
            yield "Emulation.setGeolocationOverride", _position(self.coordinates)
        if self.cores is not None:
            cores = {"hardwareConcurrency": self.cores}
            yield "Emulation.setHardwareConcurrencyOverride", cores
        if self.script:
            yield from self._injected(kind, waits=waits)
        elif self.agent is not None and kind in SHARED_WORKERS:
            # No override reaches these: they read what their process was started with.
            said = self.agent.override()
            told = [said["userAgent"], said["userAgent"].partition("/")[2], said["platform"]]
            script = f"{_NAVIGATOR}(...{json.dumps(told)})"
            yield "Runtime.evaluate", {"expression": script, "silent": True}
        if self.seed and kind == "page":
            yield "Page.enable", {}
            yield "Page.addScriptToEvaluateOnNewDocument", {"source": self.seed}
        if self.headers:
            yield "Network.enable", LISTENING
            yield "Network.setExtraHTTPHeaders", {"headers": dict(self.headers)}

    @property
    def is_shared(self) -> bool:
        """Whether something of it is one for all pages of a process."""
        return self.locale is not None or self.timezone is not None

    def clock(self) -> Iterator[Call]:
        """The part that a process has once for all its pages: how they write, and their clock."""
        if self.locale is not None:
            yield "Emulation.setLocaleOverride", {"locale": self.locale}
        if self.timezone is not None:
            yield "Emulation.setTimezoneOverride", {"timezoneId": self.timezone}

    def grants(self, context: str | None) -> Iterator[Call]:
        """What to say to the browser of one of its contexts; `None` is its own."""
        where = {} if context is None else {"browserContextId": context}
        for permission in self.permissions:
            named = {"permission": {"name": str(permission)}, "setting": "granted"}
            yield "Browser.setPermission", {**named, **where}

    def _injected(self, kind: str, *, waits: bool) -> Iterator[Call]:
        if kind in PAGES:
            yield "Page.enable", {}
            # Not in the empty document of a new popup: its window stays the same, and Chromium
            # gives a window that has been looked into no `chrome.app` any more.
            script = {"source": self.script, "runImmediately": not waits}
            yield "Page.addScriptToEvaluateOnNewDocument", script
        else:
            # Workers have no such command, and wait for us before their first line.
            yield "Runtime.evaluate", {"expression": self.script, "silent": True}

    def _agent(self) -> Mapping[str, Any]:
        said = {"userAgent": ""} if self.agent is None else self.agent.override()
        # The browser adds the weights to the header by itself.
        return {**said, "acceptLanguage": ",".join(self.languages)} if self.languages else said


def languages_of(locale: str) -> tuple[str, ...]:
    """The languages that a browser of this locale has as it comes, English at the end."""
    language = locale.partition("-")[0]
    own = [locale] if language == "en" else [locale, language]
    return tuple(dict.fromkeys([*own, "en-US", "en"]))


def _metrics(viewport: Dimensions, *, mobile: bool) -> dict[str, Any]:
    # Scale factor 0: the screen's own.
    size = {"width": viewport.width, "height": viewport.height}
    if not mobile:
        return {**size, "deviceScaleFactor": 0, "mobile": False}
    upright = viewport.height >= viewport.width
    turned = (
        {"type": "portraitPrimary", "angle": 0}
        if upright
        else {"type": "landscapePrimary", "angle": 90}
    )
    return {
        **size,
        "deviceScaleFactor": MOBILE_SCALE,
        "mobile": True,
        "screenWidth": viewport.width,
        "screenHeight": viewport.height,
        "screenOrientation": turned,
    }


def _position(at: Coordinates) -> dict[str, Any]:
    return {"latitude": at.latitude, "longitude": at.longitude, "accuracy": at.accuracy}
