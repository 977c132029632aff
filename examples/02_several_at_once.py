"""Several isolated browsers at once; they share nothing but the Playwright driver."""

import asyncio

from browsercloud import BrowserCloud


async def visit(client: BrowserCloud, name: str) -> str:
    async with client.session(browser="headless-shell", name=name) as session:
        await session.page.goto(f"data:text/html,<title>{name}</title>")
        return await session.page.title()


async def main() -> None:
    async with BrowserCloud() as client:
        titles = await asyncio.gather(*(visit(client, f"page {n}") for n in range(4)))
    print(titles)


asyncio.run(main())
