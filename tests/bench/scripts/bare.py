"""One page with Playwright alone: KIND PROGRAM URL."""

import asyncio
import sys

from playwright.async_api import async_playwright


async def main(kind: str, program: str, url: str) -> None:
    """Print the page's title."""
    mode = ["--headless=new"] if kind == "chromium" else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program, headless=True, args=[*mode, "--no-sandbox"]
        )
        page = await browser.new_page()
        await page.goto(url)
        print(await page.title())
        await browser.close()


asyncio.run(main(*sys.argv[1:]))
