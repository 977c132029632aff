"""A session on a browser that runs already: it is attached to, and left as it is."""

import asyncio

from browsercloud import BrowserCloud


async def main() -> None:
    # What stands for your own browser is another session here.
    async with BrowserCloud(testmu=False) as client, client.session() as yours:
        async with client.session(custom_websocket_url=yours.websocket_url) as session:
            await session.page.goto("data:text/html,<title>Your own</title>")
        print("released, and still there:", await yours.page.title())


asyncio.run(main())
