"""What happens around every request: its id, its line in the log, and its errors.

`errors` is the one place where an exception becomes a response; `client/transport.py` reads that.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from browsercloud.cdp.connection import CdpError
from browsercloud.errors import (
    BrowserNotFound,
    ConnectionFailed,
    ServiceError,
    SessionEnded,
)
from browsercloud.server.logs import about
from browsercloud.wire import read_session_id

log = logging.getLogger(__name__)
access_log = logging.getLogger("browsercloud.access")

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_ENCODED_QUERY = re.compile(r"%(?:25)*3f|[;&]|%(?:25)*26", re.IGNORECASE)
_ENCODED_PLAIN = re.compile(
    r"%(?:25)*(2[def]|3[0-9]|4[1-9a-f]|5[0-9af]|6[1-9a-f]|7[0-9ae])", re.IGNORECASE
)
"""What needs no encoding, encoded once or more often, and so is a slash."""

_TOKEN_IN_PATH = re.compile(
    r"(/webdriver/+(?!session(?:/|$)|status$)|/wd/hub/+session/+[0-9a-fA-F-]{32,36}\.)[^/]+"
)
NOT_BUILT = 501
"""Generated clients, Steel's among them, send whatever is answered 5xx again unless told not to."""

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


@web.middleware
async def request_id(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Take the caller's `X-Request-Id` if it is harmless, else make one."""
    given = request.headers.get("X-Request-Id", "")
    request[REQUEST_ID] = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
    with about(request_id=request[REQUEST_ID], session_id=_named_session(request)):
        return await handler(request)


@web.middleware
async def access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """One line for each request: never the query and never a header, as they hold the secrets."""
    start = time.perf_counter()
    status: int | str = "cancelled"
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        fields = {
            "method": request.method,
            "path": safe_path(request),
            "status": status,
            "milliseconds": round((time.perf_counter() - start) * 1000),
            "requestId": request[REQUEST_ID],
        }
        line = "%(method)s %(path)s %(status)s %(milliseconds)s ms"
        access_log.info(line, fields, extra=fields)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into the body of wire.md 2."""
    try:
        return await handler(request)
    except Exception as error:
        return error_response(request, error)


def _named_session(request: web.Request) -> str | None:
    """The session that path or query name, for the log; `None` when the text is no id."""
    named = request.match_info
    hub = named.get("hub_id", "").partition(".")[0]
    try:
        return read_session_id(named.get("session_id", hub or request.query.get("sessionId")))
    except ValueError:
        return None


def safe_path(request: web.Request) -> str:
    """The path as it was sent, for the log: up to where a query begins that somebody encoded.

    WebDriver clients append to the URL they are given, so there the token is in the path, and
    whoever encodes it once more is not to have it written down.
    """
    path = _ENCODED_QUERY.split(request.rel_url.raw_path, maxsplit=1)[0]
    path = _ENCODED_PLAIN.sub(lambda found: chr(int(found[1], 16)), path)
    return _TOKEN_IN_PATH.sub(r"\1…", path)


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """Put the request's id on the response, just before its first byte."""
    response.headers["X-Request-Id"] = request[REQUEST_ID]


def error_response(request: web.Request, error: Exception) -> web.Response:
    """*error* as JSON."""
    status, problem, headers = describe(request, error)
    body = {"error": problem, "message": problem["message"]}
    return web.json_response(body, status=status, headers=headers)


def error_body(code: str, message: str, request_id: str) -> dict[str, Any]:
    """The body of wire.md 2 for what is no exception of ours."""
    problem = {"code": code, "message": message, "requestId": request_id}
    return {"error": problem, "message": message}


def describe(request: web.Request, error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers for *error*. What nobody foresaw is logged here, and hidden."""
    headers: dict[str, str] = {}
    more: dict[str, Any] = {}
    match error:
        case web.HTTPException():
            status, code, message = _of_aiohttp(request, error)
            headers = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
        case ServiceError():
            status, code, message = error.status, error.code, error.message
            if error.details:
                more["details"] = error.details
            if status == NOT_BUILT:
                headers["X-Should-Retry"] = "false"
            if error.retry_after is not None:
                headers["Retry-After"] = str(max(1, round(error.retry_after)))
        case SessionEnded():
            status, code, message = 410, "session_ended", error.message
            more["releaseReason"] = error.reason
        case BrowserNotFound():
            status, code, message = 502, "launch_failed", str(error)
            looked = {"path": "browser", "reason": str(error), "looked": error.looked}
            more["details"] = [looked]
        case ConnectionFailed() | CdpError() | TimeoutError():
            log.warning("%s %s: %r", request.method, safe_path(request), error)
            status, code = 502, "browser_unresponsive"
            message = "the session's browser did not answer; try again, or release the session"
        case web.RequestPayloadError():
            status, code, message = 400, "invalid_request", f"the body cannot be read: {error}"
        case ConnectionResetError() if request.transport is None or request.transport.is_closing():
            status, code, message = 400, "hung_up", "the client hung up"  # and nobody reads this
        case _:
            what = (request.method, safe_path(request), request[REQUEST_ID])
            log.error("%s %s failed (%s)", *what, exc_info=error)
            status, code = 500, "internal"
            message = "something went wrong inside the server; its log says more"
    body = {"code": code, "message": message, "requestId": request[REQUEST_ID], **more}
    return status, body, headers


def _of_aiohttp(request: web.Request, error: web.HTTPException) -> tuple[int, str, str]:
    status = error.status
    if status == 404:
        message = f"there is nothing at {request.rel_url.raw_path}"
    elif status == 405:
        message = f"{request.method} is not possible here; Allow lists what is"
    elif status == 413:
        message = f"the body is too large: {error.text}"
    else:
        message = error.text or error.reason
    return status, _CODES.get(status, "invalid_request" if status < 500 else "internal"), message
