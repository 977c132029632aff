"""One page with browsercloud: KIND PROGRAM URL."""

import asyncio
import sys

from browsercloud import BrowserCloud


async def main(kind: str, program: str, url: str) -> None:
    """Print the page's title."""
    setting = {"chromium": "chromium", "headless-shell": "headless_shell"}[kind]
    async with BrowserCloud(**{setting: program}) as client:
        async with client.session(browser=kind) as session:
            await session.page.goto(url)
            print(await session.page.title())


asyncio.run(main(*sys.argv[1:]))
