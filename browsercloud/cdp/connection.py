"""One CDP connection: JSON over a WebSocket, all attached targets on the one socket (flat mode)."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from browsercloud._aio import deadline, settle, stop_task
from browsercloud._later import later

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = later("aiohttp")

OPEN_TIMEOUT = 10.0
CALL_TIMEOUT = 30.0
GOODBYE_PATIENCE = 1.0
CLOSE_PATIENCE = 5.0

EVENT = '{"method":"'
"""How Chromium's events begin."""

log = logging.getLogger(__name__)

EventHandler = Callable[[Mapping[str, Any], str | None], None]
"""Called with an event's parameters and the CDP session it came from (`None`: the browser)."""


class CdpError(Exception):
    """A CDP call failed. `code` is the browser's error code, `None` when it did not answer."""

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class CdpClosed(CdpError):
    """The connection is closed, or was lost while the call was waiting."""


class CdpConnection:
    """Calls and events of one CDP endpoint. Made by `open`; whoever opened it closes it.

    `closed` is done once the connection is gone, whoever ended it; it is never an error.
    """

    def __init__(self, http: aiohttp.ClientSession, ws: aiohttp.ClientWebSocketResponse) -> None:
        loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._http = http
        self._ws = ws
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._handlers: dict[str, list[EventHandler]] = {}
        self._reader = loop.create_task(self._read())

    @classmethod
    async def open(cls, endpoint: str, *, timeout: float = OPEN_TIMEOUT) -> CdpConnection:
        """Connect to *endpoint* (`ws://…`) within *timeout* seconds. Raises `CdpError`.

        Messages never name the endpoint: whoever knows it has the browser.
        """
        http = aiohttp.ClientSession()
        ws = None
        try:
            # Screenshots and big pages pass any limit, and compression only costs time on loopback.
            async with deadline(timeout, "connecting to the browser"):
                ws = await http.ws_connect(
                    endpoint,
                    max_msg_size=0,
                    compress=0,
                    timeout=aiohttp.ClientWSTimeout(ws_close=GOODBYE_PATIENCE),
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CdpError(f"cannot connect to the browser: {type(error).__name__}") from error
        finally:
            if ws is None:
                await settle(http.close, patience=CLOSE_PATIENCE)
        return cls(http, ws)

    async def __aenter__(self) -> CdpConnection:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def on(self, method: str, handler: EventHandler) -> Callable[[], None]:
        """Call *handler* for each event named *method*; the returned function ends that.

        Handlers run in the order of arrival and must not block. An error of one is logged.
        """
        self._handlers.setdefault(method, []).append(handler)
        return lambda: self._handlers[method].remove(handler)

    async def send(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        cdp_session_id: str | None = None,
        *,
        timeout: float = CALL_TIMEOUT,
    ) -> dict[str, Any]:
        """Call *method* and return its result, an empty dict when it has none.

        Without *cdp_session_id* the call is for the browser, else for the target attached under it.
        Raises `CdpError` when the browser refuses or is silent for *timeout* seconds, `CdpClosed`
        when the connection is or gets lost.
        """
        if self.closed.done():
            raise CdpClosed(f"{method}: the connection to the browser is closed")
        call_id = next(self._ids)
        message: dict[str, Any] = {"id": call_id, "method": method, "params": dict(params or {})}
        if cdp_session_id is not None:
            message["sessionId"] = cdp_session_id
        answer = asyncio.get_running_loop().create_future()
        self._pending[call_id] = answer
        try:
            async with deadline(timeout, method):
                await self._ws.send_str(json.dumps(message))
                reply: dict[str, Any] = await answer
        except TimeoutError as error:
            raise CdpError(str(error)) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise CdpClosed(f"{method}: the connection to the browser was lost") from error
        finally:
            del self._pending[call_id]
            _retrieved(answer)
        if "error" in reply:
            code, text = reply["error"].get("code"), reply["error"].get("message")
            raise CdpError(f"{method}: {text}", code=code)
        result: dict[str, Any] = reply.get("result", {})
        return result

    async def close(self) -> None:
        """Close. Safe to call twice; calls that still wait fail with `CdpClosed`."""
        self._lost()
        await settle(self._let_go, patience=CLOSE_PATIENCE, what="closing a CDP connection")

    async def _let_go(self) -> None:
        await stop_task(self._reader)
        try:
            await self._ws.close()
        finally:
            await self._http.close()

    async def _read(self) -> None:
        try:
            async for message in self._ws:
                if message.type is aiohttp.WSMsgType.TEXT and self._is_awaited(message.data):
                    self._dispatch(json.loads(message.data))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            log.debug("a CDP connection broke: %r", error)
        finally:
            self._lost()

    def _is_awaited(self, text: str) -> bool:
        """Whether it is anything but an event that nobody listens to, by how it begins.

        Reading costs more than passing over, and of what a domain tells most is not asked for.
        """
        if not text.startswith(EVENT):
            return True
        name = text[len(EVENT) : text.find('"', len(EVENT))]
        return bool(self._handlers.get(name))

    def _dispatch(self, message: dict[str, Any]) -> None:
        if "id" in message:
            answer = self._pending.get(message["id"])
            if answer is not None and not answer.done():
                answer.set_result(message)
            return
        for handler in tuple(self._handlers.get(message.get("method", ""), ())):
            try:
                handler(message.get("params", {}), message.get("sessionId"))
            except Exception:
                log.exception("a handler of %s failed", message["method"])

    def _lost(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(CdpClosed("the connection to the browser was lost"))


def _retrieved(answer: asyncio.Future[dict[str, Any]]) -> None:
    """Mark an answer's error as seen: nobody reads it when the call itself was cancelled."""
    if answer.done() and not answer.cancelled():
        answer.exception()
