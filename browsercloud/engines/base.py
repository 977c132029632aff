"""What the server asks of whatever runs browsers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs
from attrs import field, frozen

from browsercloud.engines.only import OnlyDriver, OnlySocket
from browsercloud.models import BrowserExit, Capacity, SessionProtocol
from browsercloud.options import SessionOptions


@frozen(kw_only=True, eq=False)
class BrowserHandle:
    """A running browser, as its engine returns it. Used by one session, once."""

    session_id: str
    endpoint: str = field(repr=False)
    """`ws://…`: CDP at browser level, reachable from the server. Whoever has it has the browser.

    Empty for a browser that is one connection: it has a `socket` or a `driver` instead.
    """

    user_agent: str
    """Empty when it is not known."""

    exited: asyncio.Future[BrowserExit] = field(repr=False)
    """Done when the main process is gone, whoever ended it. Never cancelled, never an error."""

    state: Mapping[str, Any] = field(factory=dict, repr=False)
    """What `Engine.restore` needs to find this browser again; JSON-ready. Kept in the store."""

    protocol: SessionProtocol = SessionProtocol.CDP
    socket: OnlySocket | None = field(default=None, repr=False)
    driver: OnlyDriver | None = field(default=None, repr=False)


LOOK_OPTIONS: Mapping[str, str] = {
    "device": "deviceConfig",
    "locale": "locale",
    "timezone": "timezone",
    "geo_location": "geoLocation",
    "extra_headers": "extraHeaders",
    "permissions": "permissions",
    "start_url": "startUrl",
    "stealth": "stealthConfig",
    "session_context": "sessionContext",
}
"""Options that every page is told of, and their names on the wire: only for browsers of our own."""


def default_of(attribute: Any) -> Any:
    """What an option is when it is left out."""
    default = attribute.default
    return default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]


NOTHING: Sequence[Any] = (None, False, "", [])
"""Values of TestMu's options that ask for nothing."""


def refused_lambdatest_options(options: SessionOptions) -> Sequence[tuple[str, str]]:
    """Those that only TestMu's own cloud can honour; its labels are good everywhere."""
    reason = "only TestMu's cloud offers this; `build` and `name` are used everywhere"
    return [
        (f"lambdatestOptions.{name}", reason)
        for name, value in options.lambdatest_options.items()
        if name not in ("build", "name") and value not in NOTHING
    ]


@frozen(kw_only=True)
class Usage:
    """What one browser takes of its machine."""

    processes: int
    memory: int
    """PSS in bytes: shared pages are counted by halves, thirds and so on."""


class Engine(Protocol):
    """Runs one browser for each session. All methods are called on the server's event loop.

    An engine owns what it starts: after `stop` has returned, or after `start` has raised anything
    (its own cancellation included), nothing of that browser is left: no process, no folder.
    """

    async def open(self) -> None:
        """Make ready: find the browsers. What a killed predecessor left is not touched yet.

        It is answered for from here on, though: an engine that is killed between `open` and the
        end of `sweep` loses none of it either, and one that is closed there leaves no stray.
        Raises `BrowserNotFound` when it could not run a single session.
        """

    async def restore(
        self, session_id: str, options: SessionOptions, state: Mapping[str, Any]
    ) -> BrowserHandle | None:
        """The browser that a killed predecessor had started, if it still runs.

        *state* is the predecessor's `BrowserHandle.state`. Whether it is that very browser is
        checked by more than its process id. Returns a handle that is as good as one from `start`,
        or `None`: the browser is gone, is another one, or does not answer; nothing of it is left
        then, at the latest after `sweep`. Called between `open` and `sweep`, for any number of
        sessions at a time; bounded in time by the engine. Cancelled, the browser stays as it was.
        Never raises for a *state* that makes no sense. How such a browser ends later is told in
        `exited` as well as the system tells it: an exit without code and signal is an unknown one.
        """

    async def sweep(self) -> None:
        """End and remove what a killed predecessor left and `restore` has not taken over.

        Must follow every `open` sooner or later: only then does that predecessor's grace stop to
        run out. What cannot be removed is logged, and tried again by `close`.
        """

    def refuses(self, options: SessionOptions) -> Sequence[tuple[str, str]]:
        """The options that no session here can have, by their names on the wire, each with why.

        Empty for options that are as good as any. Asked before anything is begun.
        """

    def capacity(self) -> Capacity:
        """For how many sessions there is room, with the sum. The same for as long as it is open."""

    async def usage(self) -> Mapping[str, Usage]:
        """What every running browser takes, by session id. May be some seconds old."""

    async def close(self) -> None:
        """Stop every browser that still runs and let go of everything. Safe to call twice."""

    async def start(self, session_id: str, options: SessionOptions) -> BrowserHandle:
        """Start a browser and return it when its CDP endpoint answers and has one page.

        Raises `LaunchFailed` with what the browser said last, or `BrowserNotFound`; bounded in time
        by the engine. A cancelled start cleans up before the cancellation is raised.
        """

    async def stop(self, handle: BrowserHandle, *, grace: float) -> None:
        """End the browser and everything it started, then remove its folders.

        *grace* is how many seconds it may take to leave by itself; 0 kills at once. Returns when
        the whole process group is gone. Safe to call twice, and for a browser that is already dead.
        Raises `OSError` when something is left over all the same, and says what.
        """

    async def webdriver(self, handle: BrowserHandle) -> str:
        """The address (`http://…`) of a WebDriver end beside this browser; its own, one for each.

        Started when it is first asked for, and stopped with the browser. Whoever has the address
        has the browser. Raises `LaunchFailed` when there is none that fits the browser's version.
        """

    async def poll(self, handle: BrowserHandle) -> BrowserExit | None:
        """`None` while the browser's main process runs, else how it ended.

        Looks at the process itself and not at `handle.exited`, so it also finds a death that was
        not reported. A handle of another engine, or of one that `close` has ended, counts as ended.
        """

    def running(self) -> Mapping[str, BrowserHandle]:
        """Every started browser that `stop` has not finished with, by session id."""
