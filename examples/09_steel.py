"""A program written for Steel, with its own client: only the two addresses are this server's."""

import asyncio

from playwright.sync_api import sync_playwright
from steel import Steel

from browsercloud.local import LocalServer


def program(base_url: str, connect_url: str, api_key: str) -> None:
    with Steel(steel_api_key=api_key, base_url=base_url) as client:
        session = client.sessions.create(api_timeout=60_000)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.connect_over_cdp(
                    f"{connect_url}?apiKey={api_key}&sessionId={session.id}"
                )
                page = browser.contexts[0].pages[0]
                page.goto("data:text/html,<title>As with Steel</title><input autofocus>")
                client.sessions.computer(session.id, action="type_text", text="typed")
                print("title:", page.title(), "- input:", page.input_value("input"))
                browser.close()
        finally:
            print(client.sessions.release(session.id).message)


async def main() -> None:
    async with LocalServer() as server:  # in real life: `browsercloud serve` somewhere
        connect_url = server.url.replace("http", "ws", 1)
        await asyncio.to_thread(program, server.url, connect_url, server.api_key)


asyncio.run(main())
