"""A session that ends by itself says why, wherever your code was at that moment."""

import asyncio

from browsercloud import BrowserCloud, SessionTimedOut


async def main() -> None:
    async with BrowserCloud() as client:
        try:
            async with client.session(browser="headless-shell", timeout=2) as session:
                await session.page.goto("data:text/html,<title>Patience</title>")
                await session.page.wait_for_selector("#never")
        except SessionTimedOut as ended:
            print(f"{ended} — while: {type(ended.__cause__).__name__}")


asyncio.run(main())
