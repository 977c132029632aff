"""`cdp`: one browser, asked directly and through the gateway, by the same raw client."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import psutil

from browsercloud.engines.local import LocalEngine
from browsercloud.options import Browser, SessionOptions
from tests.bench.ground import MB, TITLES, Ground, child, cpu_of, quiet
from tests.bench.measure import (
    Contender,
    Group,
    Once,
    Outcome,
    Target,
    at_most,
    contest,
    part_of,
    side_by_side,
    times_of,
)
from tests.bench.wire import Client, frame

DIRECT = "direct"
GATEWAY = "browsercloud gateway"
BIG = MB


class CdpClient(Client):
    """A client that waits for the answer to its own call: events come in between."""

    def __init__(self) -> None:
        super().__init__()
        self.awaited = b""
        self.number = 0

    def on_message(self, got: bytes) -> None:
        """Chromium's answers begin with their id."""
        if got.startswith(self.awaited) and self.answer is not None and not self.answer.done():
            self.answer.set_result(got)

    async def ask(self, method: str, params: Mapping[str, Any], target: str | None = None) -> bytes:
        """Send one command and return how its answer begins."""
        self.number += 1
        self.awaited = b'{"id":%d,' % self.number
        self.answer = asyncio.get_running_loop().create_future()
        command: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        if target is not None:
            command["sessionId"] = target
        self.transport.write(frame(json.dumps(command).encode(), masked=True))
        answer = await self.answer
        if b'"error"' in answer:
            raise RuntimeError(f"{method}: {answer.decode(errors='replace')}")
        return answer

    async def attach(self) -> str:
        """A new page: the CDP session to it."""
        made = json.loads(await self.ask("Target.createTarget", {"url": "about:blank"}))
        target = {"targetId": made["result"]["targetId"], "flatten": True}
        attached = json.loads(await self.ask("Target.attachToTarget", target))
        return str(attached["result"]["sessionId"])

    async def evaluate(self, target: str, expression: str) -> bytes:
        """The value of an expression in the page."""
        params = {"expression": expression, "returnByValue": True}
        return await self.ask("Runtime.evaluate", params, target)


async def round_trips(client: CdpClient, target: str, count: int) -> dict[str, float]:
    """So many calls, one after the other: milliseconds."""
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        await client.evaluate(target, "1+1")
        times.append((time.perf_counter() - begin) * 1000)
    cuts = statistics.quantiles(times, n=100)
    return {"p50": cuts[49], "p99": cuts[98]}


async def throughput(client: CdpClient, target: str, noise: str, count: int) -> dict[str, float]:
    """Strings of 1 MB out of the page and into it, and pictures: MB/s, and pictures a second."""
    outward, inward = f"'x'.repeat({BIG})", f"'{'x' * BIG}'.length"
    found = {}
    for name, expression in (("out", outward), ("in", inward)):
        begin = time.perf_counter()
        for _ in range(count):
            await client.evaluate(target, expression)
        found[name] = count * BIG / MB / (time.perf_counter() - begin)
    begin = time.perf_counter()
    for _ in range(max(1, count // 8)):
        await client.ask("Page.captureScreenshot", {"format": "png"}, noise)
    found["pictures"] = max(1, count // 8) / (time.perf_counter() - begin)
    return found


@asynccontextmanager
async def asking(
    url: str, gateway: psutil.Process | None, calls: int, big: int
) -> AsyncIterator[Once]:
    """A client with a page of its own on this way to the browser."""
    client = await CdpClient.open(url)
    assert isinstance(client, CdpClient)
    target, noise = await client.attach(), await client.attach()
    await client.evaluate(noise, NOISE)  # so that a picture of it is large

    async def once() -> Mapping[str, float]:
        before = 0.0 if gateway is None else cpu_of(gateway)
        found = await round_trips(client, target, calls)
        if gateway is not None:
            found["cpu"] = (cpu_of(gateway) - before) * 10_000 / (2 * calls)
        return found | await throughput(client, target, noise, big)

    try:
        yield once
    finally:
        client.transport.abort()


NOISE = """
const canvas = document.createElement('canvas'); canvas.width = 900; canvas.height = 500;
document.body.append(canvas);
const pen = canvas.getContext('2d'), picture = pen.createImageData(900, 500);
for (let i = 0; i < picture.data.length; i += 4) {
  picture.data[i] = Math.random() * 256; picture.data[i + 3] = 255;
}
pen.putImageData(picture, 0, 0); 1
"""


@asynccontextmanager
async def browser(ground: Ground, kind: Browser) -> AsyncIterator[str]:
    """A browser without a server: its endpoint."""
    engine = LocalEngine(
        ground.root / f"cdp-{kind.value}",
        chromium=ground.programs.get(Browser.CHROMIUM),
        headless_shell=ground.programs.get(Browser.HEADLESS_SHELL),
    )
    await engine.open()
    try:
        handle = await engine.start(str(uuid.uuid4()), SessionOptions(browser=kind))
        yield handle.endpoint
    finally:
        await engine.close()


def differs(contender: str, other: str, limit: float, unit: str) -> Target:
    """The most that a median may be above the other's."""
    says = f"{contender}, added to {other}"
    return Target(says, lambda medians: medians[contender] - medians[other], limit, unit)


TABLE: tuple[tuple[str, str, str, list[Target]], ...] = (
    (
        "p50",
        "round trip, p50",
        "ms",
        [differs(GATEWAY, DIRECT, 0.06, "ms"), part_of(GATEWAY, DIRECT, 1.5)],
    ),
    ("p99", "round trip, p99", "ms", []),
    ("out", "1 MB strings out of the page", "MB/s", [times_of(GATEWAY, DIRECT, 0.97)]),
    ("in", "1 MB strings into the page", "MB/s", [times_of(GATEWAY, DIRECT, 0.97)]),
    ("pictures", "screenshots of noise", "pictures/s", []),
    ("cpu", "the server's CPU for 10 000 messages", "s", [at_most(GATEWAY, 0.3, "s")]),
)


async def measure(ground: Ground) -> list[Group]:
    """Each kind of browser."""
    calls, big = (500, 16) if ground.quick else (2_000, 64)
    kinds: list[list[Group]] = []
    for kind in ground.programs:
        async with browser(ground, kind) as endpoint:
            with child("tests.bench.control", "--endpoint", endpoint, "--fill", "1") as (
                process,
                told,
            ):
                contenders = [
                    Contender(DIRECT, partial(asking, endpoint, None, calls, big)),
                    Contender(GATEWAY, partial(asking, told["urls"][0], process, calls, big)),
                ]
                outcome = await contest(contenders, ground.fewer, pause=quiet)
        kinds.append(compared(kind, outcome))
    return side_by_side(kinds)


def compared(kind: Browser, outcome: Outcome) -> list[Group]:
    """Each measure of one kind of browser."""
    return [
        Group(
            row="cdp",
            title=f"{title}, {TITLES[kind]}",
            unit=unit,
            base=DIRECT if name != "cpu" else GATEWAY,
            samples=outcome.samples.get(name, {}),
            failed=outcome.failed,
            more=unit.endswith("/s"),
            targets=needed,
        )
        for name, title, unit, needed in TABLE
    ]
