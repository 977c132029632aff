"""A session without `async with`: made, driven, found again, and released by its id."""

import asyncio

from browsercloud import BrowserCloud


async def main() -> None:
    async with BrowserCloud() as client:
        session = await client.sessions.create(timeout=120, metadata={"team": "docs"})
        try:
            async with await client.playwright.connect(session) as connection:
                await connection.page.goto("data:text/html,<title>By id</title>")
            live = await client.sessions.live(session.id)
            print("open now:", [page.title for page in live.pages])
            found = await client.sessions.list(metadata={"team": "docs"})
            print("found:", found.total_count, found.sessions[0].status)
        finally:
            released = await client.sessions.release(session.id)
        print(released.message)


asyncio.run(main())
