"""Selenium: a driver in a session, and any Selenium program by its address alone."""

import asyncio

from selenium import webdriver

from browsercloud import BrowserCloud

PAGE = "data:text/html,<title>Selenium</title>"


def as_you_have_it(address: str) -> str:
    driver = webdriver.Remote(address, options=webdriver.ChromeOptions())
    try:
        return driver.title
    finally:
        driver.quit()  # detaches; the session goes on


async def main() -> None:
    async with BrowserCloud() as client:
        async with client.session(adapter="selenium") as session:
            await session.run(session.driver.get, PAGE)
            print("ours:", await session.run(lambda: session.driver.title))
            title = await asyncio.to_thread(as_you_have_it, session.webdriver_url)
            print("by its address:", title)


asyncio.run(main())
