"""The client's lease: one WebSocket; while it is open, the client is there.

When the process dies, the kernel closes the socket, and the server releases the sessions that are
tied to it. Nothing is sent over it: an event loop that is blocked for minutes loses no session.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from typing import TYPE_CHECKING
from weakref import WeakSet

from browsercloud._aio import keep_alive, stop_task
from browsercloud._later import later
from browsercloud.client.transport import Transport
from browsercloud.errors import BrowserCloudError, ServiceError

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = later("aiohttp")

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Between two tries, in seconds."""

FINAL = (400, 401, 403, 404)


KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 10, 5, 3
"""The kernel asks a silent server after so many seconds, how often and how many times (25 s)."""

_open: WeakSet[aiohttp.ClientWebSocketResponse[bool]] = WeakSet()
"""The sockets of every lease of this process, for a child that is forked from it."""


class Lease:
    """Holds the lease's socket open, and opens it again when it drops."""

    def __init__(self, transport: Transport) -> None:
        self.id = str(uuid.uuid4())
        self._transport = transport
        self._task: asyncio.Task[None] | None = None
        self.server_stopped = False
        """Whether the server has said that it stops; it releases every session before it does."""

    def hold(self) -> None:
        """Open the socket behind the caller's back, if it is not being held already.

        A session may be created before it is open: the server waits `lease_grace` for it.
        """
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep(), name=f"lease {self.id}")

    async def close(self) -> None:
        """Let go. Safe to call twice."""
        await stop_task(self._task)

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                socket = await self._transport.websocket(f"/v1/leases/{self.id}")
                pause, self.server_stopped = FIRST_PAUSE, False
                _watch(socket)
                async with socket:
                    async for message in socket:
                        log.debug("lease %s: ignoring %s", self.id, message.type)
                self.server_stopped = socket.close_code == aiohttp.WSCloseCode.GOING_AWAY
                log.info("lease %s: the connection was lost; connecting again", self.id)
            except ServiceError as error:
                if error.status in FINAL:
                    # The create says the same to the caller; asking again would not help.
                    log.warning("lease %s was refused: %s", self.id, error)
                    return
                log.info("lease %s: %s; trying again", self.id, error)
            except BrowserCloudError as error:
                log.info("lease %s: %s; trying again", self.id, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


def _watch(socket: aiohttp.ClientWebSocketResponse[bool]) -> None:
    """Let the kernel notice a server that is gone, and no forked child hold the connection open."""
    _open.add(socket)
    keep_alive(
        socket.get_extra_info("socket"),
        idle=KEEPALIVE_IDLE,
        interval=KEEPALIVE_INTERVAL,
        count=KEEPALIVE_COUNT,
    )


def _let_go_in_child() -> None:
    """In a forked child: the lease is its parent's, and has to end with that one."""
    for socket in _open:
        found = socket.get_extra_info("socket")
        if found is not None and found.fileno() >= 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            # Replaced and not closed: the objects of the parent's loop still know the number.
            os.dup2(nothing, found.fileno())
            os.close(nothing)


os.register_at_fork(after_in_child=_let_go_in_child)
