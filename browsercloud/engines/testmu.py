"""TestMu's hosted browsers: each session is one connection to the vendor's cloud.

The access key goes into the vendor's URL and nowhere else: no error, log or record has it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import aiohttp
import attrs
from yarl import URL

from browsercloud._aio import close_all, deadline, settle, stop_task
from browsercloud.engines.base import LOOK_OPTIONS, BrowserHandle, Usage, default_of
from browsercloud.engines.only import OnlyDriver, OnlySocket
from browsercloud.errors import LaunchFailed, NoCapacity, NotAuthorized, ServiceError
from browsercloud.models import BrowserExit, Capacity, SessionProtocol
from browsercloud.options import Adapter, Browser, SessionOptions

log = logging.getLogger(__name__)

CDP_URL = "wss://cdp.lambdatest.com"
HUB_URL = "https://hub.lambdatest.com/wd/hub"

START_TIMEOUT = 45.0
"""Seconds for the vendor to start a browser; a create waits for 50."""

STOP_TIMEOUT = 20.0
ROOM = 1_000
"""Sessions at a time; the vendor's plan sets the limit, and is not known here."""

BROWSERS = ("Chrome", "MicrosoftEdge", "pw-chromium")
OUTER = ("browserName", "browserVersion")
"""What stands beside `LT:Options` and not in it."""

CREDENTIALS = ("user", "username", "accessKey")

_FULL = re.compile(r"parallel|concurren|queue|limit", re.IGNORECASE)
_STRANGER = re.compile(r"unauthori[sz]ed|access ?key|credential|authenticat", re.IGNORECASE)


class TestMuEngine:
    """The `Engine` that has its browsers at TestMu. *cdp_url* and *hub_url* are its addresses.

    What speaks depends on the session's `adapter`: Playwright's own protocol, CDP, or WebDriver.
    """

    def __init__(
        self, username: str, access_key: str, *, cdp_url: str = CDP_URL, hub_url: str = HUB_URL
    ) -> None:
        self._username = username
        self._access_key = access_key
        self._cdp_url = cdp_url.rstrip("/")
        self._hub_url = hub_url.rstrip("/")
        self._running: dict[str, BrowserHandle] = {}

    def __repr__(self) -> str:
        return f"<TestMuEngine {self._cdp_url}>"

    async def open(self) -> None:
        """There is nothing to make ready: credentials are checked by the first start."""

    async def restore(
        self, session_id: str, options: SessionOptions, state: Mapping[str, Any]
    ) -> BrowserHandle | None:
        """None: the connection died with the predecessor, and the browser with that."""
        return None

    async def sweep(self) -> None:
        """Nothing is left of a connection."""

    def refuses(self, options: SessionOptions) -> Sequence[tuple[str, str]]:
        """What the vendor does not offer, and credentials where they do not belong."""
        found = []
        if options.browser is not Browser.CHROMIUM:
            found.append(("browser", "TestMu has no headless shell; leave it out"))
        if options.user_agent is not None:
            reason = "TestMu takes none; give it to Playwright's browser.new_context()"
            found.append(("userAgent", reason))
        plain = attrs.fields(SessionOptions)
        for name in LOOK_OPTIONS:
            if getattr(options, name) != default_of(getattr(plain, name)):
                reason = "not offered at TestMu; leave it out, or run here with testmu=False"
                found.append((LOOK_OPTIONS[name], reason))
        for name in CREDENTIALS:
            if name in options.lambdatest_options:
                reason = "the credentials are those of LT_USERNAME and LT_ACCESS_KEY"
                found.append((f"lambdatestOptions.{name}", reason))
        if options.lambdatest_options.get("browserName", BROWSERS[0]) not in BROWSERS:
            reason = f"must be one of {', '.join(BROWSERS)}"
            found.append(("lambdatestOptions.browserName", reason))
        return found

    def capacity(self) -> Capacity:
        """More than any plan has."""
        return Capacity(sessions=ROOM, reason="TestMu's plan sets the limit")

    async def usage(self) -> Mapping[str, Usage]:
        """Not known: it is another machine's."""
        return {}

    async def close(self) -> None:
        """End every browser; see `Engine.close`."""
        await close_all([partial(self.stop, one, grace=0) for one in self.running().values()])

    async def start(self, session_id: str, options: SessionOptions) -> BrowserHandle:
        """A browser at the vendor; see `Engine.start`.

        Raises `NotAuthorized` for credentials that it refuses, `NoCapacity` when the plan has no
        room, else `LaunchFailed` with the status that it answered.
        """
        try:
            async with deadline(START_TIMEOUT, "the start of a browser at TestMu"):
                if options.adapter is Adapter.SELENIUM:
                    handle = await self._start_driver(session_id, options)
                else:
                    handle = await self._start_socket(session_id, options)
        except aiohttp.WSServerHandshakeError as error:
            raise _refusal(error.status, "") from None
        except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError) as error:
            # Their texts repeat the URL, and the access key is in it.
            raise LaunchFailed(
                f"TestMu cannot be reached at {self._place(options)} ({type(error).__name__}); "
                "is this machine online? Without LT_USERNAME and LT_ACCESS_KEY sessions run here"
            ) from None
        self._running[session_id] = handle
        return handle

    async def stop(self, handle: BrowserHandle, *, grace: float) -> None:
        """Close the connection, which ends the browser; see `Engine.stop`."""
        if self._running.get(handle.session_id) is not handle:
            return
        if handle.socket is not None:
            await handle.socket.close()
        driver = handle.driver
        if driver is not None:
            await settle(
                lambda: self._quit(driver), patience=STOP_TIMEOUT + 1, what="ending a browser"
            )
        if not handle.exited.done():
            handle.exited.set_result(BrowserExit(exit_code=0))
        self._running.pop(handle.session_id, None)

    async def webdriver(self, handle: BrowserHandle) -> str:
        """The vendor's hub with the credentials in it; see `Engine.webdriver`."""
        if handle.driver is None:
            raise LaunchFailed(
                "at TestMu a session is driven by one library; ask for it with adapter='selenium'"
            )
        return str(URL(self._hub_url).with_user(self._username).with_password(self._access_key))

    async def poll(self, handle: BrowserHandle) -> BrowserExit | None:
        """See `Engine.poll`. Of a WebDriver session only its own commands tell the end."""
        if self._running.get(handle.session_id) is not handle and not handle.exited.done():
            return BrowserExit()
        return handle.exited.result() if handle.exited.done() else None

    def running(self) -> Mapping[str, BrowserHandle]:
        """See `Engine.running`."""
        return dict(self._running)

    def capabilities(self, options: SessionOptions) -> dict[str, Any]:
        """What the vendor is asked for, credentials included."""
        given = dict(options.lambdatest_options)
        outer = {"browserName": BROWSERS[0], "browserVersion": "latest"}
        outer |= {name: given.pop(name) for name in OUTER if name in given}
        asked: dict[str, Any] = {"headless": options.headless}
        if options.build is not None:
            asked["build"] = options.build
        if options.name is not None:
            asked["name"] = options.name
        if options.dimensions is not None:
            asked["resolution"] = f"{options.size.width}x{options.size.height}"
        if options.idle_timeout is not None:
            asked["idleTimeout"] = math.ceil(options.idle_timeout)
        if options.adapter is Adapter.PLAYWRIGHT:
            asked["playwrightClientVersion"] = version("playwright")
        credentials = {"user": self._username, "accessKey": self._access_key}
        return {**outer, "LT:Options": {**asked, **given, **credentials}}

    async def _start_socket(self, session_id: str, options: SessionOptions) -> BrowserHandle:
        own = options.adapter is Adapter.PLAYWRIGHT
        url = URL(f"{self._cdp_url}/{'playwright' if own else 'puppeteer'}")
        asked = json.dumps(self.capabilities(options))
        agent = f"Playwright/{version('playwright')}" if own else "browsercloud"
        http = aiohttp.ClientSession(headers={"User-Agent": agent})
        try:
            ws = await http.ws_connect(
                url.with_query(capabilities=asked), max_msg_size=0, compress=0
            )
        except BaseException:
            await settle(http.close, patience=STOP_TIMEOUT)
            raise
        socket = OnlySocket(http, ws)
        handle = BrowserHandle(
            session_id=session_id,
            endpoint="",
            user_agent="",
            exited=asyncio.get_running_loop().create_future(),
            protocol=SessionProtocol.PLAYWRIGHT if own else SessionProtocol.CDP,
            socket=socket,
        )
        socket.closed.add_done_callback(lambda done: _over(handle, socket, done.result()))
        return handle

    async def _start_driver(self, session_id: str, options: SessionOptions) -> BrowserHandle:
        call = asyncio.create_task(self._new_session(options), name="New Session at TestMu")
        try:
            driver = await asyncio.shield(call)
        except asyncio.CancelledError:
            # It is on its way: what comes of it has to be ended, or it would run on there.
            patience = START_TIMEOUT + STOP_TIMEOUT
            await settle(lambda: self._take_back(call), patience=patience, what="undoing a start")
            raise
        return BrowserHandle(
            session_id=session_id,
            endpoint="",
            user_agent="",
            exited=asyncio.get_running_loop().create_future(),
            protocol=SessionProtocol.WEBDRIVER,
            driver=driver,
        )

    async def _new_session(self, options: SessionOptions) -> OnlyDriver:
        body = {"capabilities": {"alwaysMatch": self.capabilities(options)}}
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{self._hub_url}/session", json=body, headers=self._basic()) as reply,
        ):
            text = await reply.text()
            if reply.status != 200:
                raise _refusal(reply.status, text)
            told = json.loads(text)["value"]
        return OnlyDriver(told["sessionId"], _shown(told.get("capabilities", {})))

    async def _take_back(self, call: asyncio.Task[OnlyDriver]) -> None:
        await asyncio.wait({call}, timeout=START_TIMEOUT)
        if not call.done():
            await stop_task(call)
        elif not call.cancelled() and call.exception() is None:
            await self._quit(call.result())

    async def _quit(self, driver: OnlyDriver) -> None:
        """End the WebDriver session; one that the vendor does not know any more has ended."""
        url = f"{self._hub_url}/session/{driver.webdriver_session_id}"
        try:
            async with (
                deadline(STOP_TIMEOUT, "ending a browser at TestMu"),
                aiohttp.ClientSession() as http,
                http.delete(url, headers=self._basic()) as reply,
            ):
                status = reply.status
        except (aiohttp.ClientError, OSError) as error:
            raise OSError(f"TestMu did not confirm the end ({type(error).__name__})") from None
        if status not in (200, 404):
            raise OSError(f"TestMu did not confirm the end (status {status})")

    def _basic(self) -> dict[str, str]:
        return {"Authorization": aiohttp.encode_basic_auth(self._username, self._access_key)}

    def _place(self, options: SessionOptions) -> str:
        return self._hub_url if options.adapter is Adapter.SELENIUM else self._cdp_url


def _over(handle: BrowserHandle, socket: OnlySocket, last_words: str) -> None:
    """The connection is gone, and the browser with it."""
    if not handle.exited.done():
        left = BrowserExit(exit_code=0)
        lost = BrowserExit(stderr=(f"TestMu's connection {last_words}",))
        handle.exited.set_result(left if socket.asked else lost)


def _refusal(status: int, said: str) -> ServiceError:
    """Why the vendor did not start a browser, by its status and by what it *said*."""
    if status in (401, 403) or (status >= 400 and _STRANGER.search(said)):
        return NotAuthorized(
            f"TestMu refused the credentials (status {status}); check LT_USERNAME and LT_ACCESS_KEY"
        )
    if status in (402, 429) or _FULL.search(said):
        reason = "TestMu's plan has no room for another session"
        return NoCapacity(
            f"{reason} (status {status}); end others, or try again later",
            # This session is over; another one may be tried, under another id.
            details=[{"path": "", "reason": reason, "retryable": False}],
        )
    return LaunchFailed(
        f"TestMu did not start a browser (status {status}); is what lambdatest_options asks for "
        "something that it offers?"
    )


def _shown(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """The capabilities without the vendor's own, which repeat the credentials."""
    return {name: value for name, value in told.items() if not name.lower().startswith("lt:")}
