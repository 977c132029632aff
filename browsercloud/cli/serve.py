"""`browsercloud serve`: the server in the foreground, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import Annotated

from cyclopts import Parameter

from browsercloud.engines.local import LocalEngine
from browsercloud.errors import BrowserNotFound, UsageError
from browsercloud.server import keys, logs
from browsercloud.server.app import Server
from browsercloud.server.config import SETTINGS, ServerConfig, from_environment
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
    keep_ended: Annotated[str | None, _option("keep_ended")] = None,
    chromium: Annotated[str | None, _option("chromium")] = None,
    headless_shell: Annotated[str | None, _option("headless_shell")] = None,
    log_format: Annotated[str | None, _option("log_format")] = None,
    log_level: Annotated[str | None, _option("log_level")] = None,
    handler_cancellation: Annotated[bool, _option("handler_cancellation", flag=True)] = False,
) -> int:
    """Run the cloud's server until SIGINT or SIGTERM; a second signal ends it at once.

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
        "keep_ended": keep_ended,
        "chromium": chromium,
        "headless_shell": headless_shell,
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
    engine = LocalEngine(
        config.data_dir, chromium=config.chromium, headless_shell=config.headless_shell
    )
    server = Server(config, engine, SqliteStore(config.data_dir / FILE_NAME))
    stopping = _on_first_signal()
    starting = asyncio.create_task(server.start(), name="start")
    asked = asyncio.create_task(stopping.wait(), name="signal")
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
    finally:
        asked.cancel()
        starting.cancel()
        await asyncio.wait({starting, asked})
        await server.stop()


def _announce(url: str, new_key: str | None) -> None:
    lines = [f"listening on {url}"]
    if new_key is not None:
        lines.append(f"API key, shown this once: {new_key}")
    print("\n".join(lines), flush=True)


def _on_first_signal() -> asyncio.Event:
    """An event that the first SIGINT or SIGTERM sets; the next one has its usual effect."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def first() -> None:
        log.info("stopping: releasing every session")
        stopping.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, first)
    return stopping
