"""Browsers that somebody else runs: a session attaches to a CDP endpoint, and detaches again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import attrs
from attrs import frozen
from yarl import URL

from browsercloud._aio import close_all, deadline, settle
from browsercloud.cdp.connection import CdpConnection, CdpError
from browsercloud.engines.base import (
    LOOK_OPTIONS,
    BrowserHandle,
    Engine,
    Usage,
    default_of,
    refused_lambdatest_options,
)
from browsercloud.errors import LaunchFailed
from browsercloud.models import BrowserExit, Capacity
from browsercloud.options import Adapter, SessionOptions, place_of

log = logging.getLogger(__name__)

ATTACH_TIMEOUT = 15.0
DETACH_PATIENCE = 5.0

OPTION = "customWebSocketUrl"
_FIXED = {
    "browser": "browser",
    "headless": "headless",
    "dimensions": "dimensions",
    "user_agent": "userAgent",
    **LOOK_OPTIONS,
}
"""Options that a browser is started with, and their names on the wire."""

_HUNG_UP = "the endpoint closed the connection"


@frozen(eq=False)
class _Attached:
    handle: BrowserHandle
    watch: CdpConnection


class AttachingEngine:
    """An `Engine` that attaches sessions with a `custom_websocket_url`; *inner* starts the others.

    Such a session takes a slot like any other, as it costs what its traffic costs; the browser
    behind it is never ended here. A connection of the engine's own tells when it is gone. *allowed*
    is whether such sessions may be asked for at all.
    """

    def __init__(self, inner: Engine, *, allowed: bool) -> None:
        self._inner = inner
        self._allowed = allowed
        self._attached: dict[str, _Attached] = {}

    async def open(self) -> None:
        """See `Engine.open`."""
        await self._inner.open()

    async def sweep(self) -> None:
        """See `Engine.sweep`. Nothing of a detached browser is ours."""
        await self._inner.sweep()

    def refuses(self, options: SessionOptions) -> Sequence[tuple[str, str]]:
        """What cannot be changed in a browser that runs already, or what *inner* refuses."""
        if options.custom_websocket_url is None:
            return self._inner.refuses(options)
        if not self._allowed:
            reason = "this server attaches to no other browsers; start it with --custom-endpoints"
            return [(OPTION, f"{reason}=yes")]
        plain = attrs.fields(SessionOptions)
        found = [
            (wire_name, f"cannot be chosen together with {OPTION}: that browser is as it is")
            for name, wire_name in _FIXED.items()
            if getattr(options, name) != default_of(getattr(plain, name))
        ]
        if options.adapter is Adapter.SELENIUM:
            found.append(("adapter", f"{OPTION} has no chromedriver beside it; use Playwright"))
        return [*found, *refused_lambdatest_options(options)]

    def capacity(self) -> Capacity:
        """See `Engine.capacity`."""
        return self._inner.capacity()

    async def usage(self) -> Mapping[str, Usage]:
        """See `Engine.usage`. What other machines use is not known."""
        return await self._inner.usage()

    async def close(self) -> None:
        """Detach from every browser; see `Engine.close`."""
        await close_all([self._inner.close, self._detach_all])

    async def start(self, session_id: str, options: SessionOptions) -> BrowserHandle:
        """Attach, or start; see `Engine.start`. The endpoint's URL is in no error."""
        if options.custom_websocket_url is None:
            return await self._inner.start(session_id, options)
        return await self._attach(session_id, options.custom_websocket_url)

    async def restore(
        self, session_id: str, options: SessionOptions, state: Mapping[str, Any]
    ) -> BrowserHandle | None:
        """Attach again; see `Engine.restore`."""
        if options.custom_websocket_url is None:
            return await self._inner.restore(session_id, options, state)
        try:
            return await self._attach(session_id, options.custom_websocket_url)
        except LaunchFailed as error:
            log.warning("session %s cannot be restored: %s", session_id, error)
            return None

    async def stop(self, handle: BrowserHandle, *, grace: float) -> None:
        """Detach, and leave the browser and what is open in it as they are; or end it."""
        attached = self._of(handle)
        if attached is None:
            await self._inner.stop(handle, grace=grace)
            return
        await self._detach(handle.session_id, attached)

    async def webdriver(self, handle: BrowserHandle) -> str:
        """See `Engine.webdriver`."""
        if self._of(handle) is None:
            return await self._inner.webdriver(handle)
        raise LaunchFailed(f"{OPTION} has no chromedriver beside it; drive it over CDP")

    async def poll(self, handle: BrowserHandle) -> BrowserExit | None:
        """See `Engine.poll`: it runs for as long as the connection to it is there."""
        if self._of(handle) is None:
            return await self._inner.poll(handle)
        return handle.exited.result() if handle.exited.done() else None

    def running(self) -> Mapping[str, BrowserHandle]:
        """See `Engine.running`."""
        attached = {name: one.handle for name, one in self._attached.items()}
        return {**self._inner.running(), **attached}

    async def _attach(self, session_id: str, url: str) -> BrowserHandle:
        place = place_of(url)
        try:
            async with deadline(ATTACH_TIMEOUT, "attaching to the browser"):
                endpoint = await _endpoint(url)
                watch = await CdpConnection.open(endpoint)
                user_agent = await _asked(watch)
        except (CdpError, aiohttp.ClientError, OSError, ValueError, KeyError) as error:
            # Errors of the network repeat the URL, which may hold a password.
            why = str(error) if isinstance(error, CdpError) else type(error).__name__
            raise LaunchFailed(
                f"{OPTION}: cannot attach to the browser at {place} ({why}); does it run, and can "
                "this server reach it? A browser is reachable that was started with "
                "--remote-debugging-port"
            ) from None
        exited: asyncio.Future[BrowserExit] = asyncio.get_running_loop().create_future()
        handle = BrowserHandle(
            session_id=session_id, endpoint=endpoint, user_agent=user_agent, exited=exited
        )
        self._attached[session_id] = _Attached(handle, watch)
        watch.closed.add_done_callback(lambda _: _gone(exited, BrowserExit(stderr=(_HUNG_UP,))))
        return handle

    async def _detach(self, session_id: str, attached: _Attached) -> None:
        _gone(attached.handle.exited, BrowserExit(exit_code=0))
        await attached.watch.close()
        self._attached.pop(session_id, None)

    async def _detach_all(self) -> None:
        for session_id, attached in list(self._attached.items()):
            await self._detach(session_id, attached)

    def _of(self, handle: BrowserHandle) -> _Attached | None:
        attached = self._attached.get(handle.session_id)
        return attached if attached is not None and attached.handle is handle else None


async def _endpoint(url: str) -> str:
    """The socket that *url* is, or that the HTTP address *url* names."""
    address = URL(url)
    if address.scheme in ("ws", "wss"):
        return url
    version = (address / "json" / "version").with_query(address.query)
    async with (
        aiohttp.ClientSession() as http,
        http.get(version, allow_redirects=False) as reply,
    ):
        told = (await reply.json(content_type=None))["webSocketDebuggerUrl"]
    if URL(told).scheme not in ("ws", "wss"):
        raise ValueError("no WebSocket")
    return str(told)


async def _asked(watch: CdpConnection) -> str:
    """The user agent, from a browser that answers; closes the connection to one that does not."""
    try:
        return str((await watch.send("Browser.getVersion"))["userAgent"])
    except BaseException:
        await settle(watch.close, patience=DETACH_PATIENCE)
        raise


def _gone(exited: asyncio.Future[BrowserExit], how: BrowserExit) -> None:
    if not exited.done():
        exited.set_result(how)
