"""The public fakes behave as their names say."""

from __future__ import annotations

import asyncio

import pytest

from browsercloud.models import BrowserExit
from browsercloud.options import SessionOptions
from browsercloud.testing import DyingEngine, IdleEngine, NeverEngine, SlowEngine

OPTIONS = SessionOptions()


async def test_an_idle_engine_counts() -> None:
    """Starts and stops in their order, and what runs in between."""
    engine = IdleEngine()
    first = await engine.start("a", OPTIONS)
    await engine.start("b", OPTIONS)
    assert (engine.starts, sorted(engine.running())) == (["a", "b"], ["a", "b"])
    assert await engine.poll(first) is None
    await engine.stop(first, grace=1)
    assert await engine.poll(first) == first.exited.result() == BrowserExit(exit_code=0)
    await engine.close()
    assert (engine.stops, engine.running()) == (["a", "b"], {})


async def test_a_slow_engine_takes_its_time() -> None:
    """No less than its delay."""
    engine = SlowEngine(0.05)
    began = asyncio.get_running_loop().time()
    await engine.start("a", OPTIONS)
    assert asyncio.get_running_loop().time() - began >= 0.05


async def test_a_never_engine_waits_to_be_cancelled() -> None:
    """Nothing is left of such a start."""
    engine = NeverEngine()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await engine.start("a", OPTIONS)
    assert (engine.cancelled, engine.running()) == (["a"], {})


async def test_a_dying_engine_dies_when_told() -> None:
    """It still counts as running until it is stopped, as a real one does."""
    engine = DyingEngine()
    handle = await engine.start("a", OPTIONS)
    engine.die("a")
    engine.die("a", BrowserExit(exit_code=1))
    assert handle.exited.result().signal == "SIGKILL"
    assert list(engine.running()) == ["a"]
    with pytest.raises(KeyError):
        engine.die("b")
