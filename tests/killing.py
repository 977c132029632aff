"""Engines that are killed, and those that come after them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from browsercloud.cdp.connection import CdpConnection
from browsercloud.engines.local import LocalEngine
from browsercloud.options import Browser, SessionOptions
from tests.processes import living, until

SHELL = SessionOptions(browser=Browser.HEADLESS_SHELL)
MORTAL = Path(__file__).parent / "engines" / "mortal.py"
GRACE = 30.0
"""Seconds: longer than any test that has a successor."""


@contextmanager
def mortal(
    data_dir: Path,
    grace: float,
    browser: Browser = Browser.HEADLESS_SHELL,
    count: int = 1,
    restore: Mapping[str, Any] | None = None,
    more: Sequence[str] = (),
) -> Iterator[tuple[int, Any]]:
    """A running program with an engine: its pid, and what it tells."""
    arguments = [str(data_dir), str(grace), browser.value, str(count), json.dumps(restore or {})]
    with subprocess.Popen(
        [sys.executable, MORTAL, *arguments, *more],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ) as process:
        assert process.stdout is not None
        try:
            yield process.pid, json.loads(process.stdout.readline())
        finally:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def kill(*pids: int) -> None:
    """SIGKILL all of them as in one moment."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # all stand still first, so that none can replace another
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def killed(data_dir: Path, grace: float = GRACE, *, guard: bool = False, **more: Any) -> Any:
    """The facts of a program that was killed, with its guard or without."""
    with mortal(data_dir, grace, **more) as (pid, facts):
        kill(pid, *([facts["guard"]] if guard else []))
    return facts


async def evaluate(endpoint: str, expression: str) -> Any:
    """The value of *expression* in the first page."""
    async with await CdpConnection.open(endpoint) as cdp:
        pages = (await cdp.send("Target.getTargets"))["targetInfos"]
        page = next(one["targetId"] for one in pages if one["type"] == "page")
        attached = await cdp.send("Target.attachToTarget", {"targetId": page, "flatten": True})
        answer = await cdp.send(
            "Runtime.evaluate",
            {"expression": expression, "returnByValue": True, "awaitPromise": True},
            attached["sessionId"],
        )
        return answer["result"].get("value")


async def go(endpoint: str, url: str) -> None:
    """Load *url* in the first page."""
    await evaluate(endpoint, f"location.href = {url!r}")
    deadline = time.monotonic() + 5
    while await evaluate(endpoint, "location.href + document.readyState") != f"{url}complete":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def nothing_is_left(data_dir: Path) -> None:
    """No process that was given the folder, and no session's folder in it."""
    assert [] == living(data_dir)
    assert [] == os.listdir(data_dir / "sessions")


async def gone(data_dir: Path, within: float) -> None:
    """Wait until nothing is left, for *within* seconds."""
    await until(
        lambda: not living(data_dir) and not os.listdir(data_dir / "sessions"),
        "the end of browsers and folders",
        timeout=within,
    )


async def successor(data_dir: Path, states: Mapping[str, Any]) -> LocalEngine:
    """An engine that has restored these."""
    engine = LocalEngine(data_dir, orphan_grace=GRACE)
    await engine.open()
    for name, state in states.items():
        assert await engine.restore(name, SHELL, state) is not None
    await engine.sweep()
    return engine
