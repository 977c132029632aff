"""`BrowserCloud`: the client. Owns one HTTP session, with one attribute for each resource."""

from __future__ import annotations

import asyncio
import logging
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from browsercloud._aio import close_all, in_thread, settle
from browsercloud._later import load
from browsercloud.client.adapters.base import Adapter, NoDriver
from browsercloud.client.adapters.playwright import PlaywrightAdapter
from browsercloud.client.adapters.puppeteer import PuppeteerAdapter
from browsercloud.client.adapters.selenium import SeleniumAdapter
from browsercloud.client.config import resolve
from browsercloud.client.contexts import Contexts
from browsercloud.client.lease import Lease
from browsercloud.client.live import LiveSession
from browsercloud.client.options import Defaults, SessionArgs, build_options, default_options
from browsercloud.client.sessions import OnQueue, Sessions
from browsercloud.client.transport import Transport
from browsercloud.errors import UsageError
from browsercloud.options import Adapter as AdapterName
from browsercloud.options import SessionOptions

if TYPE_CHECKING:
    from browsercloud.local import LocalServer

log = logging.getLogger(__name__)

CLOSE_PATIENCE = 60.0
"""How long closing may take in all, in seconds: every session is given its `release_timeout`."""


class BrowserCloud:
    """A browser cloud, and the sessions in it.

        async with BrowserCloud() as client:
            async with client.session() as session:
                await session.page.goto("https://example.com")

    With *url*, or `BROWSERCLOUD_URL` in the environment, it talks to `browsercloud serve` there,
    with *api_key* or `BROWSERCLOUD_API_KEY`. With neither it runs the same server inside this
    process, on loopback, with the Chromium of this machine (*chromium*, *headless_shell* and
    *chromedriver*, or where `browsercloud doctor` finds them); it keeps *pool* browsers started
    ahead, 1 if not told. An argument outranks the environment.

    With `LT_USERNAME` and `LT_ACCESS_KEY` in the environment and no URL, sessions run at TestMu,
    through a server inside this process that keeps the access key to itself. *testmu* `False` runs
    them here all the same, `True` insists on the credentials.

    Its sessions are like *defaults*: `SessionOptions`, or a mapping of single options. What a
    session is given itself outranks them.

    Times are in seconds: *request_timeout* 30 for one call, *create_timeout* 120 for a create with
    all its retries, *connect_timeout* 30 for attaching, *release_timeout* 30 for a release.

    Nothing is started before it is entered. It belongs to the event loop it was entered on.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        request_timeout: float | None = None,
        create_timeout: float | None = None,
        connect_timeout: float | None = None,
        release_timeout: float | None = None,
        chromium: str | PathLike[str] | None = None,
        headless_shell: str | PathLike[str] | None = None,
        chromedriver: str | PathLike[str] | None = None,
        pool: int | None = None,
        testmu: bool | None = None,
        defaults: Defaults = None,
    ) -> None:
        self._state = "new"
        given = {
            name: value for name, value in locals().items() if name not in ("self", "defaults")
        }
        self.defaults = default_options(defaults)
        """What its sessions are like unless told otherwise."""

        self.config = resolve(given)
        self._transport = Transport(request_timeout=self.config.request_timeout)
        self._live: set[LiveSession] = set()
        self._embedded: LocalServer | None = None
        self.lease = Lease(self._transport)
        self.sessions = Sessions(self._transport, self.config, self.defaults)
        """Sessions by id: `create`, `retrieve`, `list`, `live`, `events`, `extend`, `release`, …"""

        self.contexts = Contexts(self._transport, self.config)
        """Cookies and storage of sessions: `get`, `set`, `clear`, `cookies`, `set_cookies`."""

        self.playwright = PlaywrightAdapter(self.config)
        """Playwright for sessions that were made with `sessions.create`."""

        if "IPython" in sys.modules:
            load("browsercloud.client.notebook").register()

        self.puppeteer = PuppeteerAdapter(self.sessions, self.lease)
        """Existing Puppeteer and Playwright scripts, run unchanged in sessions."""

        self.selenium = SeleniumAdapter(self.config)
        """Selenium for the same."""

    def __repr__(self) -> str:
        where = self._transport.url or self.config.url or "embedded"
        return f"<BrowserCloud {where} {self._state}>"

    @property
    def url(self) -> str:
        """Where the server is. Empty before the client is open."""
        return self._transport.url

    def session(
        self,
        options: SessionOptions | None = None,
        /,
        *,
        session_id: str | None = None,
        on_queue: OnQueue | None = None,
        **changes: Unpack[SessionArgs],
    ) -> LiveSession:
        """A session for `async with`: a live, connected browser inside, and none afterwards.

        *changes* override single *options*; *session_id* is a UUID, chosen here if left out;
        *on_queue* is called with the place in the line while the server has no room. What
        cannot be meant raises `UsageError`, what the server would refuse `InvalidRequest`, both at
        once and with nothing started. Entering raises as `sessions.create` does, and
        `ConnectionFailed` when the browser cannot be attached to.
        """
        wanted = build_options(options, changes, self.defaults)
        return LiveSession(self, wanted, session_id, on_queue)

    async def open(self) -> Self:
        """What `async with` does on entering; `close` must follow.

        Raises `BrowserNotFound` when it embeds a server and there is no Chromium.
        """
        if self._state != "new":
            raise UsageError("a client is opened once; make another BrowserCloud()")
        self._state = "open"
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Release every session that is still open, then let go of everything, the last first.

        Runs to its end even when the caller is cancelled. Safe to call twice.
        """
        if self._state in ("new", "closed"):
            self._state = "closed"
            return
        self._state = "closing"
        try:
            await settle(self._close, patience=CLOSE_PATIENCE, what="closing the client")
        finally:
            self._state = "closed"

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        except Exception as failure:
            if error is None:
                raise
            # What went wrong while leaving must not hide why it was left.
            log.warning("closing the client failed: %s", failure)
            error.add_note(f"closing the client failed too: {failure}")

    def adapter(self, options: SessionOptions) -> Adapter:
        """See `Owner`."""
        known: dict[AdapterName, Adapter] = {
            AdapterName.PLAYWRIGHT: self.playwright,
            AdapterName.SELENIUM: self.selenium,
            AdapterName.PUPPETEER: NoDriver(),
        }
        if options.adapter is AdapterName.SELENIUM:
            self.selenium.require()  # now, with nothing sent
        return known[options.adapter]

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[Sessions]:
        """See `Owner`."""
        transport = await self._transport.apart()
        try:
            yield Sessions(transport, self.config)
        finally:
            await transport.close()

    def adopt(self, live: LiveSession) -> None:
        """See `Owner`."""
        if self._state != "open":
            raise UsageError(
                "this client is closed"
                if self._state in ("closing", "closed")
                else "this client is not open; use `async with BrowserCloud() as client:`"
            )
        self._live.add(live)

    def disown(self, live: LiveSession) -> None:
        """See `Owner`."""
        self._live.discard(live)

    async def _open(self) -> None:
        url, api_key = self.config.url, self.config.api_key
        if url is None:
            # What takes longest comes first: the driver's process.
            await self.playwright.begin()
            # Imported only now: who talks to a server elsewhere never loads one. In a thread, so
            # that the driver's start goes on.
            local = await in_thread(partial(load, "browsercloud.local"))
            at = self.config
            self._embedded = local.LocalServer(
                chromium=at.chromium,
                headless_shell=at.headless_shell,
                chromedriver=at.chromedriver,
                pool_size=at.pool,
                engine=local.testmu_engine(
                    at.lt_username or "", at.lt_access_key or "", at.lt_cdp_url, at.lt_hub_url
                )
                if at.testmu
                else None,
            )
            await self._embedded.start()
            url, api_key = self._embedded.url, self._embedded.api_key
        await self._transport.open(url, api_key)

    async def _close(self) -> None:
        closers: list[Callable[[], Awaitable[object]]] = [
            self._transport.close,
            self.playwright.close,
            self.selenium.close,
            self.lease.close,
            self._release_all,
        ]
        if self._embedded is not None:
            closers.insert(0, self._embedded.stop)
        await close_all(closers)

    async def _release_all(self) -> None:
        outcomes = await asyncio.gather(
            *(live.release() for live in list(self._live)), return_exceptions=True
        )
        failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if failures:
            raise ExceptionGroup("some sessions were not released", failures)

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if getattr(self, "_state", "new") in ("open", "closing"):
            _warn("a BrowserCloud client was not closed", ResourceWarning, source=self)
