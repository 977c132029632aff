"""The server put together: what opens closes again, in the reverse order, whatever fails."""

from __future__ import annotations

import socket

import aiohttp
import pytest

from browsercloud.errors import UsageError
from browsercloud.server.app import Server
from browsercloud.server.config import ServerConfig
from browsercloud.stores.memory import MemoryStore
from browsercloud.testing import IdleEngine

CONFIG = ServerConfig(port=0, api_key="k")


class Traced:
    """Writes down what is opened and closed; fails where it is told to."""

    def __init__(self, *failing: str) -> None:
        self.calls: list[str] = []
        self.failing = failing

    def note(self, call: str) -> None:
        """One step."""
        self.calls.append(call)
        if call in self.failing:
            raise OSError(f"{call} failed")


class TracedEngine(IdleEngine):
    """An engine that is watched."""

    def __init__(self, trace: Traced) -> None:
        super().__init__()
        self.trace = trace

    async def open(self) -> None:
        """Open."""
        self.trace.note("engine.open")

    async def close(self) -> None:
        """Close."""
        self.trace.note("engine.close")
        await super().close()


class TracedStore(MemoryStore):
    """A store that is watched."""

    def __init__(self, trace: Traced) -> None:
        super().__init__()
        self.trace = trace

    async def open(self) -> None:
        """Open."""
        self.trace.note("store.open")

    async def close(self) -> None:
        """Close."""
        self.trace.note("store.close")


def traced(*failing: str) -> tuple[Server, Traced]:
    """A server whose parts are watched."""
    trace = Traced(*failing)
    return Server(CONFIG, TracedEngine(trace), TracedStore(trace)), trace


async def test_what_opens_closes_in_reverse() -> None:
    """Engine, store; store, engine. Stopping again does nothing more."""
    server, trace = traced()
    await server.start()
    assert trace.calls == ["engine.open", "store.open"]
    await server.stop()
    assert trace.calls[2:] == ["store.close", "engine.close"]
    await server.stop()
    assert len(trace.calls) == 4


@pytest.mark.parametrize(
    ("failing", "calls"),
    [
        ("engine.open", ["engine.open", "engine.close"]),
        ("store.open", ["engine.open", "store.open", "store.close", "engine.close"]),
    ],
)
async def test_a_start_that_fails_undoes_itself(failing: str, calls: list[str]) -> None:
    """What had been opened is closed, and the address is free again."""
    server, trace = traced(failing)
    with pytest.raises(OSError, match=f"{failing} failed"):
        await server.start()
    assert trace.calls == calls
    assert server.url == ""


async def test_a_failing_close_stops_no_other() -> None:
    """Every part is closed, and every failure is told."""
    server, trace = traced("store.close", "engine.close")
    await server.start()
    with pytest.raises(ExceptionGroup) as caught:
        await server.stop()
    told = {str(error) for error in caught.value.exceptions}
    assert told == {"store.close failed", "engine.close failed"}
    assert trace.calls[2:] == ["store.close", "engine.close"]


async def test_a_taken_address_is_found_before_anything_opens() -> None:
    """A second server does not touch what the first one owns."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        trace = Traced()
        config = ServerConfig(port=port, api_key="k")
        server = Server(config, TracedEngine(trace), TracedStore(trace))
        with pytest.raises(UsageError, match=f"port {port} on 127.0.0.1 is in use"):
            await server.start()
    assert trace.calls == []


async def test_stopping_releases_every_session_and_hangs_up() -> None:
    """Nothing runs in the engine, and nobody answers any more."""
    engine = IdleEngine()
    server = Server(CONFIG, engine, MemoryStore())
    await server.start()
    async with aiohttp.ClientSession(headers={"x-api-key": "k"}) as http:
        for _ in range(3):
            async with http.post(f"{server.url}/v1/sessions") as reply:
                assert reply.status == 201
        await server.stop()
        assert (len(engine.stops), engine.running()) == (3, {})
        with pytest.raises(aiohttp.ClientConnectionError):
            await http.get(f"{server.url}/healthz")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0"])
async def test_the_url_is_the_bound_one(host: str) -> None:
    """With the port the system chose; it can be connected to as it is."""
    server = Server(ServerConfig(host=host, port=0, api_key="k"), IdleEngine(), MemoryStore())
    await server.start()
    async with aiohttp.ClientSession() as http, http.get(f"{server.url}/healthz") as reply:
        assert reply.status == 200
    await server.stop()
