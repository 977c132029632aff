"""`browsercloud serve`: the server in the foreground, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import Annotated

from cyclopts import Parameter

from browsercloud._aio import stop_task
from browsercloud.engines.local import LocalEngine
from browsercloud.errors import BrowserNotFound, UsageError
from browsercloud.server import keys, logs
from browsercloud.server.app import Server
from browsercloud.server.config import SETTINGS, ServerConfig, from_environment
from browsercloud.server.descriptors import use_all_descriptors
from browsercloud.stores.sqlite import FILE_NAME, SqliteStore

log = logging.getLogger(__name__)

_BY_NAME = {setting.name: setting for setting in SETTINGS}


def _option(name: str, *, flag: bool = False) -> Parameter:
    """How a row of the settings' table looks on the command line.

    Every value stays text: the table's own parser reads it, so that an option and its environment
    variable take the same words and give the same errors.
    """
    row = _BY_NAME[name]
    return Parameter(
        name=row.option,
        help=f"{row.help} Default: {row.default}. Environment: {row.variable}.",
        show_default=False,
        negative="" if flag else None,
    )


def serve(
    *,
    host: Annotated[str | None, _option("host")] = None,
    port: Annotated[str | None, _option("port")] = None,
    data_dir: Annotated[str | None, _option("data_dir")] = None,
    api_key: Annotated[str | None, _option("api_key")] = None,
    no_auth: Annotated[bool, _option("no_auth", flag=True)] = False,
    allowed_hosts: Annotated[str | None, _option("allowed_hosts")] = None,
    lease_grace: Annotated[str | None, _option("lease_grace")] = None,
    max_sessions: Annotated[str | None, _option("max_sessions")] = None,
    max_queue: Annotated[str | None, _option("max_queue")] = None,
    queue_timeout: Annotated[str | None, _option("queue_timeout")] = None,
    drain: Annotated[bool, _option("drain", flag=True)] = False,
    keep_ended: Annotated[str | None, _option("keep_ended")] = None,
    orphan_grace: Annotated[str | None, _option("orphan_grace")] = None,
    session_memory: Annotated[str | None, _option("session_memory")] = None,
    chromium: Annotated[str | None, _option("chromium")] = None,
    headless_shell: Annotated[str | None, _option("headless_shell")] = None,
    chromedriver: Annotated[str | None, _option("chromedriver")] = None,
    log_format: Annotated[str | None, _option("log_format")] = None,
    log_level: Annotated[str | None, _option("log_level")] = None,
    handler_cancellation: Annotated[bool, _option("handler_cancellation", flag=True)] = False,
) -> int:
    """Run the cloud's server until SIGINT or SIGTERM; one more signal ends it at once.

    The first line on standard output is `listening on http://HOST:PORT`. A key is made at the first
    start without one, and shown that once.
    """
    given = {
        "host": host,
        "port": port,
        "data_dir": data_dir,
        "api_key": api_key,
        "no_auth": "yes" if no_auth else None,
        "allowed_hosts": allowed_hosts,
        "lease_grace": lease_grace,
        "max_sessions": max_sessions,
        "max_queue": max_queue,
        "queue_timeout": queue_timeout,
        "drain": "yes" if drain else None,
        "keep_ended": keep_ended,
        "orphan_grace": orphan_grace,
        "session_memory": session_memory,
        "chromium": chromium,
        "headless_shell": headless_shell,
        "chromedriver": chromedriver,
        "log_format": log_format,
        "log_level": log_level,
        "handler_cancellation": "yes" if handler_cancellation else None,
    }
    try:
        config = from_environment(given, os.environ)
        logs.set_up(config.log_format, config.log_level)
        asyncio.run(_serve(keys.ready(config)))
    except (UsageError, BrowserNotFound) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


async def _serve(config: ServerConfig) -> None:
    """Run until the first signal, then release everything."""
    if config.data_dir is None:
        raise UsageError("serve needs a data folder; give --data-dir")
    use_all_descriptors(asyncio.get_running_loop())
    engine = LocalEngine(
        config.data_dir,
        chromium=config.chromium,
        headless_shell=config.headless_shell,
        chromedriver=config.chromedriver,
        orphan_grace=config.orphan_grace,
        memory_cap=config.session_memory,
    )
    server = Server(config, engine, SqliteStore(config.data_dir / FILE_NAME))
    signals = Signals()
    starting = asyncio.create_task(server.start(), name="start")
    asked = asyncio.create_task(signals.next(), name="signal")
    try:
        # A signal may come while it starts: then the start is cancelled and undoes itself.
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            new_key = await server.first_key()
            keys.keep(config)
            _announce(server.url, new_key)
            if new_key is None and config.api_key is None and not config.no_auth:
                log.info("keys made earlier are in force; see `browsercloud keys list`")
            await asked
            if config.drain:
                await _drain(server, signals)
    finally:
        asked.cancel()
        starting.cancel()
        await asyncio.wait({starting, asked})
        engine.leave_nothing()  # the next signal may end us at once
        log.info("stopping: releasing every session")
        signals.close()
        await server.stop()


def _announce(url: str, new_key: str | None) -> None:
    lines = [f"listening on {url}"]
    if new_key is not None:
        lines.append(f"API key, shown this once: {new_key}")
    print("\n".join(lines), flush=True)


async def _drain(server: Server, signals: Signals) -> None:
    """Wait for the running sessions, or for one more signal."""
    log.info("draining: no new sessions; waiting for the running ones; a signal releases them")
    drained = asyncio.create_task(server.drain(), name="drain")
    asked = asyncio.create_task(signals.next(), name="signal")
    try:
        await asyncio.wait({drained, asked}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await stop_task(asked)
        await stop_task(drained)


class Signals:
    """SIGINT and SIGTERM, one after the other, until `close` gives them their usual effect."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._came = asyncio.Queue[None]()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._came.put_nowait, None)

    async def next(self) -> None:
        """Return at the next one, or at once if it has come already."""
        await self._came.get()

    def close(self) -> None:
        """From now on they end the process. Safe to call twice."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
