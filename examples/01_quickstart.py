"""A live browser in one `async with`."""

import asyncio

from browsercloud import BrowserCloud


async def main() -> None:
    async with BrowserCloud() as client:
        async with client.session() as session:
            await session.page.goto("data:text/html,<title>Hello</title><h1>Hello</h1>")
            print("title:", await session.page.title())


asyncio.run(main())
