"""The CDP gateway beside no gateway: `python -m tests.bench.gateway [--against CHECKOUT]`.

Upstream, gateway and client are three processes. Every row is measured in turn, several times, and
reported as medians; CPU is that of the gateway's process. A bare relay on asyncio takes part,
as the floor. With `--against` the gateway of another checkout does too. What counts are the ratios
within one run, and what a round trip takes more than the direct one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from tests.bench.wire import Client, Upstream, big, frame

HERE = Path(__file__).resolve().parents[2]
BUSY = (1, 8, 32)
SMALL = frame(b'{"id":1,"method":"Browser.getVersion","params":{}}', masked=True)
MB = 2**20
SLOW = 200 * MB
ROUND_TRIP = "round trip"


async def upstream() -> None:
    """The endpoint that is no browser, until standard input ends."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"endpoint": f"ws://127.0.0.1:{port}/devtools/browser/x"}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def relay(endpoint: str) -> None:
    """A relay to *endpoint* that does nothing else, until standard input ends."""
    from tests.bench.relay import Relay  # here, as another checkout may not have it

    port = urlsplit(endpoint).port
    assert port is not None
    server = await asyncio.get_running_loop().create_server(lambda: Relay(port), "127.0.0.1", 0)
    here = server.sockets[0].getsockname()[1]
    url = endpoint.replace(f":{port}/", f":{here}/")
    print(json.dumps({"urls": [url] * max(BUSY)}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def chromium() -> None:
    """A headless shell, until standard input ends."""
    from browsercloud.engines.local import LocalEngine
    from browsercloud.options import SessionOptions

    with tempfile.TemporaryDirectory(prefix="bc-") as folder:
        engine = LocalEngine(Path(folder))
        await engine.open()
        try:
            options = SessionOptions(browser="headless-shell")
            handle = await engine.start(str(uuid.uuid4()), options)
            print(json.dumps({"endpoint": handle.endpoint}), flush=True)
            await asyncio.to_thread(sys.stdin.read)
        finally:
            await engine.close()


async def server(endpoint: str, sessions: int) -> None:
    """A server whose sessions all lead to *endpoint*, until standard input ends."""
    import aiohttp

    from browsercloud.server.app import Server
    from browsercloud.server.config import ServerConfig
    from browsercloud.stores.memory import MemoryStore
    from browsercloud.testing import IdleEngine

    running = Server(
        ServerConfig(port=0, api_key="k"), IdleEngine(endpoint=endpoint), MemoryStore()
    )
    await running.start()
    urls = []
    async with aiohttp.ClientSession(headers={"x-api-key": "k"}) as http:
        for _ in range(sessions):
            body = {"timeout": 3_600_000}
            async with http.post(running.url + "/v1/sessions", json=body) as reply:
                assert reply.status == 201, await reply.text()
                urls.append((await reply.json())["websocketUrl"])
    print(json.dumps({"urls": urls}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await running.stop()


@contextmanager
def child(checkout: Path, *arguments: str) -> Iterator[tuple[psutil.Process, dict[str, Any]]]:
    """A process of this file, with the package of *checkout*; and the line it says first."""
    with subprocess.Popen(
        [sys.executable, __file__, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{checkout}{os.pathsep}{HERE}"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield psutil.Process(process.pid), json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(20)


class Way:
    """One way to the upstream: direct, or through a gateway."""

    def __init__(self, name: str, urls: list[str], process: psutil.Process | None) -> None:
        self.name = name
        self.urls = urls
        self.process = process
        self.found: dict[str, list[float]] = {}

    def note(self, row: str, value: float) -> None:
        """One more measurement."""
        self.found.setdefault(row, []).append(value)

    def cpu(self) -> float:
        """CPU seconds of the gateway so far."""
        if self.process is None:
            return 0.0
        used = self.process.cpu_times()
        return float(used.user + used.system)

    async def with_clients(
        self, count: int, work: Callable[[Client], Awaitable[None]]
    ) -> tuple[float, float]:
        """Do *work* on so many sessions at once: seconds, and the gateway's CPU seconds."""
        clients = [await Client.open(url) for url in self.urls[:count]]
        try:
            cpu, begin = self.cpu(), time.perf_counter()
            await asyncio.gather(*(work(client) for client in clients))
            return time.perf_counter() - begin, self.cpu() - cpu
        finally:
            for client in clients:
                client.transport.close()


async def latency(way: Way, rounds: int) -> None:
    """One session, one call at a time."""
    times = []

    async def work(client: Client) -> None:
        for _ in range(rounds):
            begin = time.perf_counter()
            await client.call(SMALL)
            times.append(time.perf_counter() - begin)

    await way.with_clients(1, work)
    cuts = statistics.quantiles(times, n=100)
    way.note(f"{ROUND_TRIP} p50, ms", cuts[49] * 1000)
    way.note(f"{ROUND_TRIP} p99, ms", cuts[98] * 1000)


async def small(way: Way, busy: int, rounds: int) -> None:
    """Many sessions, each one call after the other. A round trip is two messages."""

    async def work(client: Client) -> None:
        for _ in range(rounds // busy):
            await client.call(SMALL)

    seconds, cpu = await way.with_clients(busy, work)
    way.note(f"messages/s, {busy} busy", 2 * rounds / seconds)
    way.note(f"CPU s per 10 000 messages, {busy} busy", cpu * 10_000 / (2 * rounds))


async def bulk(way: Way, busy: int, size: int, total: int) -> None:
    """Big messages, one way and then the other."""
    each = max(1, total // size // busy)
    message = frame(big(size), masked=True)

    async def inward(client: Client) -> None:
        for _ in range(each):
            await client.call(message)

    async def outward(client: Client) -> None:
        await client.take(size, each)

    for name, work in (("in", inward), ("out", outward)):
        seconds, cpu = await way.with_clients(busy, work)
        amount = each * busy * size / MB
        way.note(f"MB/s {name}, {size // MB} MB, {busy} busy", amount / seconds)
        if busy == 1:
            way.note(f"CPU s per GB {name}, {size // MB} MB", cpu * 1024 / amount)


async def slow_reader(way: Way) -> None:
    """A client that asks for 200 MB and does not read: how the gateway grows, in MB."""
    if way.process is None:
        return
    client = await Client.open(way.urls[0])
    before = way.process.memory_info().rss
    client.transport.write(frame(b'{"give":[%d,%d]}' % (16 * MB, SLOW // (16 * MB)), masked=True))
    client.transport.pause_reading()
    most = before
    for _ in range(20):
        await asyncio.sleep(0.05)
        most = max(most, way.process.memory_info().rss)
    way.note("MB more with a client that reads nothing", (most - before) / MB)
    client.transport.abort()


Step = Callable[["Way"], Awaitable[None]]


def echo_steps(rounds: int, total: int) -> list[Step]:
    """All rows, with the upstream that costs next to nothing."""
    # The memory first: what big messages have left free would hide the growth.
    steps: list[Step] = [slow_reader, partial(latency, rounds=rounds)]
    steps += [partial(small, busy=busy, rounds=rounds) for busy in BUSY]
    steps += [
        partial(bulk, busy=busy, size=size, total=total) for size in (MB, 16 * MB) for busy in BUSY
    ]
    return steps


def chromium_steps(rounds: int) -> list[Step]:
    """What a browser that works itself can be asked; it has one port for all."""
    return [partial(latency, rounds=rounds), *(partial(small, busy=n, rounds=rounds) for n in BUSY)]


async def measure(ways: list[Way], steps: list[Step], repeat: int) -> None:
    """Every row so many times, each way in turn."""
    told: set[str] = set()
    print(f"{'median':44}" + "".join(f"{way.name:>24}" for way in ways), flush=True)
    for step in steps:
        for turn in range(repeat):
            # Every other time the other way round: who comes first may pay for what came before.
            for way in ways if turn % 2 else reversed(ways):
                await step(way)
        rows = dict.fromkeys(row for way in ways for row in way.found if row not in told)
        told.update(rows)
        for row in rows:
            print(line(row, ways), flush=True)


def line(row: str, ways: list[Way]) -> str:
    """The medians of one row, and their ratios to the first way's."""
    cells = ""
    base = statistics.median(ways[0].found.get(row) or [0])
    for way in ways:
        if row not in way.found:
            cells += f"{'–':>24}"
            continue
        value = statistics.median(way.found[row])
        ratio = f" ({value / base:.2f}×)" if base and way is not ways[0] else ""
        if ratio and row.startswith(ROUND_TRIP):
            ratio = f" ({value - base:+.3f}, {ratio[2:]}"
        cells += f"{f'{value:.3g}' if value < 1000 else f'{value:.0f}'}{ratio}".rjust(24)
    return f"{row:44}{cells}"


def run(role: str, steps: list[Step], against: Path | None, repeat: int) -> None:
    """Start the upstream and each gateway, measure, print the table."""
    with ExitStack() as stack:
        _, told = stack.enter_context(child(HERE, "--role", role))
        endpoint = told["endpoint"]
        ways = [Way("direct", [endpoint] * max(BUSY), None)]
        others = [("bare relay", "relay", HERE), ("gateway", "server", HERE)]
        if against is not None:
            others.append(("other checkout", "server", against))
        for name, part, checkout in others:
            process, told = stack.enter_context(
                child(checkout, "--role", part, "--endpoint", endpoint)
            )
            ways.append(Way(name, told["urls"], process))
        asyncio.run(measure(ways, steps, repeat))


def main() -> None:
    """Read the arguments, measure, print."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--against", type=Path, help="another checkout, whose gateway takes part")
    given.add_argument("--rounds", type=int, default=5_000)
    given.add_argument("--total", type=int, default=512, help="MB sent in each bulk row")
    given.add_argument("--repeat", type=int, default=5)
    roles = ("upstream", "chromium", "relay", "server")
    given.add_argument("--role", choices=roles, help=argparse.SUPPRESS)
    given.add_argument("--endpoint", help=argparse.SUPPRESS)
    asked = given.parse_args()
    if asked.role == "upstream":
        asyncio.run(upstream())
    elif asked.role == "chromium":
        asyncio.run(chromium())
    elif asked.role == "relay":
        asyncio.run(relay(asked.endpoint))
    elif asked.role == "server":
        asyncio.run(server(asked.endpoint, max(BUSY)))
    else:
        echo = echo_steps(asked.rounds, asked.total * MB)
        for role, title, steps in (
            ("upstream", "an upstream that costs next to nothing", echo),
            ("chromium", "a headless shell", chromium_steps(asked.rounds)),
        ):
            print(f"\n{title}", flush=True)
            run(role, steps, asked.against, asked.repeat)


if __name__ == "__main__":
    main()
