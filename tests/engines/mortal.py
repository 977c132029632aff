"""A program with an engine that is to be killed: prints its facts as JSON, then waits.

Arguments: data folder, seconds of grace, browser, how many sessions to start; then the states of
sessions to restore, as JSON, or nothing. `sweep` as a last argument sweeps too; `pool` keeps a
browser ahead, from which the first session is taken, and waits for the next one.
"""

import asyncio
import json
import sys

from browsercloud.engines.local import LocalEngine
from browsercloud.options import Browser, SessionOptions


async def main() -> None:
    """Open, restore, start, tell, wait."""
    folder, grace, browser, count, states, *rest = sys.argv[1:]
    engine = LocalEngine(folder, orphan_grace=float(grace), pool_size=int("pool" in rest))
    await engine.open()
    options = SessionOptions(browser=Browser(browser))
    for session_id, state in json.loads(states).items():
        assert await engine.restore(session_id, options, state) is not None
    if rest == ["sweep"]:
        await engine.sweep()
    await asyncio.gather(*(engine.start(f"s{n}", options) for n in range(int(count))))
    while rest == ["pool"] and not engine._pool:
        await asyncio.sleep(0.02)
    ahead = [one.folder.name for one in engine._browsers.values() if one.spare]
    assert engine._guard is not None
    kept = {name: dict(handle.state) for name, handle in engine.running().items()}
    print(json.dumps({"guard": engine._guard.pid, "states": kept, "ahead": ahead}), flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
