"""A program that embeds an engine: prints its facts as JSON, then waits to be killed.

Arguments: data folder or `-` for an embedded one, browser, how many sessions.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from browsercloud.engines.folders import embedded_data_dir
from browsercloud.engines.local import LocalEngine
from browsercloud.options import Browser, SessionOptions

FORKED_LIFE = 8.0


async def main() -> None:
    """Start, tell, wait."""
    folder = embedded_data_dir() if sys.argv[1] == "-" else Path(sys.argv[1])
    engine = LocalEngine(folder)
    await engine.open()
    options = SessionOptions(browser=Browser(sys.argv[2]))
    await asyncio.gather(*(engine.start(f"s{n}", options) for n in range(int(sys.argv[3]))))
    child = os.fork()
    if child == 0:  # as a user's own child may: it shares every pipe and lock, and lives on
        time.sleep(FORKED_LIFE)
        os._exit(0)
    assert engine._guard is not None
    facts = {"folder": str(folder), "guard": engine._guard.pid, "forked": child}
    print(json.dumps(facts), flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
