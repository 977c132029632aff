"""A program whose loop is torn down at every await, one loop for each; run by `test_leaks`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from browsercloud import BrowserCloud
from tests.cancelling import SuspendedAt
from tests.leaks import MARK, wait_until_nothing_is_left


async def whole() -> None:
    """A client's whole life."""
    async with BrowserCloud() as client, client.session(browser="headless-shell") as session:
        await session.page.evaluate("1 + 1")


async def torn_down_at(n: int) -> bool:
    """Return while the client's task is suspended for the *n*-th time, or when it is done.

    `asyncio.run` cancels every task then: the client's, and those that clean up for it.
    """
    reached = asyncio.Event()
    runner = SuspendedAt(whole(), n, reached.set)

    async def other() -> object:
        return await runner

    task = asyncio.create_task(other())
    waiting = asyncio.create_task(reached.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    return task.done()


def main() -> None:
    """Print how many loops there were; fail as soon as one has left something."""
    n, done = 1, False
    while not done:
        done = asyncio.run(torn_down_at(n))
        wait_until_nothing_is_left(Path(os.environ[MARK]), within=5)
        n += 1
    print(n)


if __name__ == "__main__":
    main()
