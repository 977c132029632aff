"""One session, every tool: Playwright, raw CDP and Puppeteer in Node meet in the same tabs.

Puppeteer is `npm install puppeteer-core`, beside the script or where NODE_PATH says.
"""

import asyncio
import os
from pathlib import Path

import aiohttp
from playwright.async_api import async_playwright
from playwright.sync_api import sync_playwright

from browsercloud import BrowserCloud

SCRIPT = Path(__file__).parent / "existing" / "connect.cjs"


async def playwright_async(address: str) -> str:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(address)
        return await browser.contexts[0].pages[0].title()


def playwright_sync(address: str) -> str:
    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(address)
        return browser.contexts[0].pages[0].title()


async def raw_cdp(address: str) -> str:
    async with aiohttp.ClientSession() as http, http.ws_connect(address) as cdp:
        await cdp.send_json({"id": 1, "method": "Target.getTargets"})
        targets = (await cdp.receive_json())["result"]["targetInfos"]
        return next(target["title"] for target in targets if target["type"] == "page")


async def puppeteer(address: str) -> str:
    node = await asyncio.create_subprocess_exec(
        "node", str(SCRIPT), stdout=asyncio.subprocess.PIPE, env=os.environ | {"ADDRESS": address}
    )
    out, _ = await node.communicate()
    if node.returncode != 0:
        raise SystemExit("Puppeteer is missing: npm install puppeteer-core")
    return out.decode().strip()


async def main() -> None:
    async with BrowserCloud() as client, client.session(browser="headless-shell") as session:
        await session.page.goto("data:text/html,<title>The same tab</title>")
        address = session.websocket_url
        print("Playwright, async:", await playwright_async(address))
        print("Playwright, sync:", await asyncio.to_thread(playwright_sync, address))
        print("raw CDP:", await raw_cdp(address))
        print("Puppeteer:", await puppeteer(address))


asyncio.run(main())
