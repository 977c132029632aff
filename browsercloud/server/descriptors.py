"""File descriptors: as many as there may be, and no noise when they are used up."""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import Any

log = logging.getLogger(__name__)

QUIET = 60.0
"""Seconds between two words about it."""


def use_all_descriptors(loop: asyncio.AbstractEventLoop) -> None:
    """Raise this process's limit to what it may have, and make *loop* bear that it is reached.

    Children inherit the limit. The loop's exception handler is replaced.
    """
    _raise_limit()
    loop.set_exception_handler(_Quiet())


def _raise_limit() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # macOS says "unlimited" and means less
        log.debug("the limit of open files stays at %d: %s", soft, error)


class _Quiet:
    """asyncio accepts again after a second, and logs a traceback for each time it could not."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, ValueError) and "_start_serving" in context.get("message", ""):
            return  # asyncio wants to accept again, and the server has been closed meanwhile
        used_up = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
        if not (used_up and "socket" in context):
            loop.default_exception_handler(context)
        elif loop.time() >= self._next:
            self._next = loop.time() + QUIET
            log.warning("all file descriptors are in use: new connections wait for one")
