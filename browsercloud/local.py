"""The real server inside this process, on a thread and an event loop of its own.

Of its own, so that a blocked loop of the user delays no timeout and no clean-up, and nothing that
happens to the user's loop can take the server with it.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import secrets
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Self

from browsercloud._aio import join, settle
from browsercloud.engines.base import Engine
from browsercloud.engines.folders import embedded_data_dir
from browsercloud.engines.local import LocalEngine
from browsercloud.server.app import Server
from browsercloud.server.config import ServerConfig
from browsercloud.stores.memory import MemoryStore

log = logging.getLogger(__name__)

START_PATIENCE = 60.0
STOP_PATIENCE = 30.0
"""How long the server's thread may take to begin and to end, in seconds."""


class LocalServer:
    """An embedded server, for `async with`. It is entered and left on the user's event loop."""

    def __init__(
        self,
        *,
        chromium: Path | None = None,
        headless_shell: Path | None = None,
        chromedriver: Path | None = None,
        engine: Engine | None = None,
        lease_grace: float = 10.0,
        handler_cancellation: bool = False,
    ) -> None:
        self.url = ""
        self.api_key = "bc_" + secrets.token_urlsafe(32)
        """Known to this process only."""

        self._engine = engine
        self._chromium = chromium
        self._headless_shell = headless_shell
        self._chromedriver = chromedriver
        self._lease_grace = lease_grace
        self._handler_cancellation = handler_cancellation
        self._ready: Future[str] = Future()
        self._over: Future[None] = Future()
        self._asked = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # A daemon, as it must not keep a program alive whose main thread has ended; `atexit` stops
        # it in order then. A killed process is the business of the engine's guard.
        self._thread = threading.Thread(target=self._run, name="browsercloud server", daemon=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the thread and return when the server listens; `url` is known then.

        Raises what the server's start raised, such as `BrowserNotFound`. Cancelled, it stops the
        server before the cancellation is raised.
        """
        self._thread.start()
        atexit.register(self._stop_at_exit, os.getpid())
        try:
            async with asyncio.timeout(START_PATIENCE):
                self.url = await join(asyncio.wrap_future(self._ready))
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Release all sessions, stop the server and wait for its thread. Safe to call twice."""
        if self._thread.ident is None:
            return
        await settle(self._stopped, patience=STOP_PATIENCE, what="stopping the embedded server")

    async def _stopped(self) -> None:
        self._ask_to_stop()
        await join(asyncio.wrap_future(self._over))
        self._thread.join()
        atexit.unregister(self._stop_at_exit)

    def _ask_to_stop(self) -> None:
        self._asked.set()  # before the loop is looked at: the thread looks in the other order
        if self._over.done() or self._loop is None or self._stop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._stop.set)
        except RuntimeError:
            log.debug("the embedded server has just stopped by itself")

    def _stop_at_exit(self, pid: int) -> None:
        if os.getpid() == pid:  # a forked child has the object and not the thread
            self._ask_to_stop()
            self._thread.join(STOP_PATIENCE)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
                self._over.set_result(None)  # told once: by the start
            else:
                self._over.set_exception(error)
        else:
            self._over.set_result(None)

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._asked.is_set():
            self._stop.set()
        config = ServerConfig(
            port=0,
            api_key=self.api_key,
            lease_grace=self._lease_grace,
            handler_cancellation=self._handler_cancellation,
        )
        engine = self._engine or LocalEngine(
            embedded_data_dir(),
            chromium=self._chromium,
            headless_shell=self._headless_shell,
            chromedriver=self._chromedriver,
            memory_cap=config.session_memory,
        )
        server = Server(config, engine, MemoryStore())
        try:
            await server.start()
            self._ready.set_result(server.url)
            await self._stop.wait()
        finally:
            await server.stop()
