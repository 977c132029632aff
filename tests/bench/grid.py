"""`grid`: a session of Selenium Grid beside one of ours, when its jar and Java are there.

`SELENIUM_GRID_JAR` names the jar, of Grid 4; chromedriver has to be on `PATH`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from browsercloud.options import Browser
from tests.bench.ground import TITLES, Ground, check_program, quiet
from tests.bench.measure import Contender, Group, Once, Skipped, contest
from tests.bench.warm import SERVED, Watch, ours

GRID = "Selenium Grid"
READY_WITHIN = 60.0


def command(port: int) -> list[str]:
    """How Grid is started. Raises `Skipped` when something for it is not there."""
    jar = os.environ.get("SELENIUM_GRID_JAR")
    if not jar:
        raise Skipped("SELENIUM_GRID_JAR does not name Selenium Grid's jar")
    if not Path(jar).is_file():
        raise Skipped(f"there is no file {jar}")
    for program in ("java", "chromedriver"):
        if shutil.which(program) is None:
            raise Skipped(f"{program} is not on PATH")
    options = ("--selenium-manager", "false", "--host", "127.0.0.1", "--port", str(port))
    return ["java", "-jar", jar, "standalone", *options]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@asynccontextmanager
async def running(ground: Ground) -> AsyncIterator[aiohttp.ClientSession]:
    """Grid, standalone, and an HTTP session to it."""
    port = free_port()
    with (ground.root / "grid.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command(port), stdout=log, stderr=subprocess.STDOUT
        )
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
                async with asyncio.timeout(READY_WITHIN):
                    while not await ready(http):
                        if process.returncode is not None:
                            raise RuntimeError(f"Grid ended with {process.returncode}")
                        await asyncio.sleep(0.2)
                yield http
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def ready(http: aiohttp.ClientSession) -> bool:
    """Whether it says so."""
    try:
        async with http.get("/status") as reply:
            return bool((await reply.json())["value"]["ready"])
    except (aiohttp.ClientError, OSError):
        return False


async def call(http: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> Any:
    """One WebDriver command: its value."""
    async with http.request(method, path, json=body) as reply:
        value = (await reply.json())["value"]
        if reply.status != 200:
            raise RuntimeError(str(value.get("message")))
        return value


@asynccontextmanager
async def grid(ground: Ground, kind: Browser) -> AsyncIterator[Once]:
    """A session each."""
    arguments = ground.launch_args(kind)
    chrome = {"binary": arguments["executable_path"], "args": ["--headless", "--no-sandbox"]}
    wanted = {
        "capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": chrome}}
    }
    async with running(ground) as http:

        async def once() -> Mapping[str, float]:
            watch = Watch()
            session_id = (await call(http, "POST", "/session", wanted))["sessionId"]
            try:
                body = {"script": "return 1", "args": []}
                await call(http, "POST", f"/session/{session_id}/execute/sync", body)
                watch.is_usable()
                check_program(ground.programs[kind])
            finally:
                watch.leaves()
                await call(http, "DELETE", f"/session/{session_id}")
            return watch.read()

        yield once


async def measure(ground: Ground) -> list[Group]:
    """Both kinds."""
    command(0)
    groups = []
    for kind in ground.programs:
        served = partial(ground.served, kind, f"grid-{kind.value}")
        contenders = [
            Contender(SERVED, partial(ours, served, ground, kind)),
            Contender(GRID, partial(grid, ground, kind)),
        ]
        outcome = await contest(contenders, ground.rounds, pause=quiet)
        groups += [
            Group(
                row="grid",
                title=f"{title}, {TITLES[kind]}",
                unit="ms",
                base=SERVED,
                samples=outcome.samples.get(name, {}),
                failed=outcome.failed,
            )
            for name, title in (("create", "ask → usable page"), ("release", "release"))
        ]
    return groups
