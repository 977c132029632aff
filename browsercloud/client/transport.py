"""HTTP and WebSocket to one server. The only place where foreign errors become ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, TypeGuard, Unpack
from urllib.parse import urlsplit

from browsercloud._later import later
from browsercloud.errors import (
    ENDINGS,
    SERVICE_ERRORS,
    BrowserCloudError,
    BrowserNotFound,
    ConnectionFailed,
    ServiceError,
    SessionEnded,
    UsageError,
)

if TYPE_CHECKING:
    import aiohttp

    from browsercloud import wire
else:
    aiohttp = later("aiohttp")
    wire = later("browsercloud.wire")


class RequestArgs(TypedDict, total=False):
    """What a request may have besides method and path; `Transport.exchange` says what each is."""

    body: Mapping[str, Any] | None
    query: Mapping[str, str] | None
    timeout: float | None


class Transport:
    """One HTTP session to one server. Opened and closed by its `BrowserCloud`."""

    def __init__(self, *, request_timeout: float) -> None:
        self._request_timeout = request_timeout
        self._http: aiohttp.ClientSession | None = None
        self._headers: dict[str, str] = {}
        self.url = ""
        """Where the server is; never contains a secret."""

    async def open(self, url: str, api_key: str | None) -> None:
        """Make ready. Nothing is sent."""
        self.url = url
        self._headers = {"x-api-key": api_key} if api_key is not None else {}
        # Each request has its own bound; no limit on connections, as every lease holds one.
        tracing = aiohttp.TraceConfig()
        tracing.on_request_redirect.append(_refuse_redirect)
        self._http = aiohttp.ClientSession(
            trace_configs=[tracing],
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1"),
        )

    async def apart(self) -> Transport:
        """Another one to the same server, open, for the loop that runs here."""
        other = Transport(request_timeout=self._request_timeout)
        await other.open(self.url, self._headers.get("x-api-key"))
        return other

    async def close(self) -> None:
        """Close every connection. Safe to call twice."""
        if self._http is not None:
            await self._http.close()

    async def request(self, method: str, path: str, **more: Unpack[RequestArgs]) -> Any:
        """As `exchange`, for an answer that is an object; without the headers."""
        value, _ = await self.exchange(method, path, **more)
        if not isinstance(value, dict):
            raise ConnectionFailed(
                f"{self.url} answered {method} with a list: is that a browsercloud server?",
                endpoint=self.url,
            )
        return value

    async def exchange(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> tuple[Any, Mapping[str, str]]:
        """Send one request and return the JSON of its answer, an object or a list, and its headers.

        *timeout* is in seconds; the client's `request_timeout` by default. Raises the server's
        error as its own class, `ConnectionFailed` when there is none, and `UsageError` on a closed
        client.
        """
        seconds = self._request_timeout if timeout is None else timeout
        try:
            async with self._session().request(
                method,
                self.url + path,
                json=body,
                params=query,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
            ) as response:
                return _answer(response, await response.read(), self.url), response.headers
        except TimeoutError:
            raise self._failed(f"no answer within {seconds:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from None

    async def picture(self, path: str, query: Mapping[str, str]) -> bytes:
        """The bytes at *path*. Raises as `exchange` does."""
        try:
            async with self._session().get(
                self.url + path,
                params=query,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=self._request_timeout),
                allow_redirects=False,
            ) as response:
                body = await response.read()
                if response.content_type.startswith("image/"):
                    return body
                _answer(response, body, self.url)
                raise self._failed("it answered without a picture")
        except TimeoutError:
            raise self._failed(f"no answer within {self._request_timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from None

    async def messages(self, path: str) -> AsyncGenerator[str | bytes, None]:
        """What a WebSocket says, until it closes. Closing the iterator closes the socket.

        Raises as `exchange` does when it is refused.
        """
        try:
            ws = await self.websocket(path)
        except ServiceError:
            # A refused upgrade has lost its words; the same address, asked for plainly, has them.
            await self.exchange("GET", path)
            raise
        try:
            async for message in ws:
                if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    yield message.data
        finally:
            await ws.close()

    async def websocket(self, path: str) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket, within `request_timeout`. Raises as `request` does."""
        try:
            async with asyncio.timeout(self._request_timeout):
                return await self._session().ws_connect(
                    self.url + path,
                    headers=self._headers,
                    timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                )
        except aiohttp.WSServerHandshakeError as error:
            # The address in the text of the error is of no use; the status says it.
            raise error_of(error.status, None, error.headers or {}) from None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from None

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise UsageError("this client is not open; use `async with BrowserCloud() as client:`")
        if self._http.closed:
            raise UsageError("this client is closed; make another BrowserCloud()")
        return self._http

    def _failed(self, why: str, *, sent: bool = True) -> ConnectionFailed:
        return ConnectionFailed(f"cannot reach {self.url}: {why}", endpoint=self.url, sent=sent)

    def _unreachable(self, error: Exception) -> ConnectionFailed:
        """What went wrong on the way, in words for the user of the SDK."""
        match error:
            case aiohttp.ClientSSLError():
                return self._failed("no TLS there; is it http:// and not https://?", sent=False)
            case aiohttp.ClientConnectorError():
                why = (error.strerror or "it cannot be connected to").lower()
                return self._failed(f"{why}; is `browsercloud serve` running there?", sent=False)
            case _:
                return self._failed(str(error) or type(error).__name__)


async def _refuse_redirect(*_: object) -> None:
    """A redirected WebSocket would take the key to another host; other requests follow none."""
    raise aiohttp.ClientError("it redirects elsewhere, which no browsercloud server does")


def _answer(response: aiohttp.ClientResponse, body: bytes, url: str) -> Any:
    try:
        value = json.loads(body) if body else None
    except (ValueError, RecursionError):
        value = None
    if response.status < 300 and isinstance(value, dict | list):
        return value
    if response.status < 300:
        raise ConnectionFailed(
            f"{url} answered {response.status} without JSON: is that a browsercloud server?",
            endpoint=url,
        )
    raise error_of(response.status, value, response.headers)


def error_of(status: int, value: Any, headers: Mapping[str, str]) -> BrowserCloudError:
    """The error that a reply stands for (wire.md 2)."""
    body = value if isinstance(value, dict) else {}
    found = body.get("error")
    error = found if isinstance(found, dict) else {}
    code = str(error.get("code") or f"http_{status}")
    unknown = f"HTTP status {status}, not in the words of a browsercloud server"
    message = str(error.get("message") or body.get("message") or unknown)
    if code == "not_authorized":
        message += " (in Python: api_key=…, or BROWSERCLOUD_API_KEY)"
    found = error.get("details")
    details = [entry for entry in found if isinstance(entry, dict)] if _is_list(found) else []
    if code == "session_ended":
        reason = error.get("releaseReason")
        return ended_error(message, reason if isinstance(reason, str) else None)
    for entry in details:
        if isinstance(entry.get("looked"), list):
            return BrowserNotFound(message, looked=[str(place) for place in entry["looked"]])
    kind = SERVICE_ERRORS.get(code, ServiceError)
    return kind(
        message,
        status=status,
        code=code,
        request_id=error.get("requestId"),
        retry_after=_seconds(headers.get("Retry-After")),
        details=details,
    )


def ended_error(message: str, reason: str | None, session: Any = None) -> SessionEnded:
    """The `SessionEnded` for a reason."""
    # Who asked for a release is not known here; `LiveSession` knows that it was not itself.
    kind = ENDINGS.get(reason or "", SessionEnded) if reason != "user_requested" else SessionEnded
    return kind(message, reason=reason, session=session)


def read(value: Any, kind: type[wire.T]) -> wire.T:
    """A reply as a model. A server that answers something else is `ConnectionFailed`'s business."""
    try:
        return wire.load(value, kind)
    except ValueError as error:
        raise ConnectionFailed(
            f"the server's answer cannot be read: {error}", endpoint=""
        ) from error


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text) if text is not None else None
    except ValueError:
        return None  # an HTTP date: no server of ours sends one, and back-off serves as well
    return seconds if seconds is not None and seconds >= 0 else None
