"""What becomes of requests that are no HTTP: they never reach a handler or a middleware."""

from __future__ import annotations

import asyncio
import logging
import uuid

from aiohttp import web

from browsercloud.server.logs import about
from browsercloud.server.middleware import error_body


class Runner(web.AppRunner):
    """Runs an application; what cannot be read as HTTP is refused with the usual body too."""

    __slots__ = ()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            loop=asyncio.get_running_loop(),
            **self._kwargs,
        )


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class _Protocol(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what aiohttp refuses by itself; it logs, and ends the connection."""
        request_id = uuid.uuid4().hex
        with about(request_id=request_id):
            super().handle_error(request, status, exc, message)
        body = error_body(
            "invalid_request" if status < 500 else "internal",
            # Not aiohttp's own words: they repeat what was sent, with whatever is secret in it.
            "this is no HTTP that can be read" if status < 500 else "something went wrong",
            request_id,
        )
        refusal = web.json_response(body, status=status, headers={"X-Request-Id": request_id})
        refusal.force_close()
        return refusal


class _OneLine(logging.Filter):
    """aiohttp logs the bytes of a request it cannot read, and those may hold a key."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            record.msg = f"refused what a client sent: {type(error).__name__}"
            record.args, record.exc_info = (), None
        return True


def quiet_logger() -> logging.Logger:
    """The logger for aiohttp's own lines."""
    logger = logging.getLogger("browsercloud.server.http")
    if not logger.filters:
        logger.addFilter(_OneLine())
    return logger
