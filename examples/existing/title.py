"""A Playwright script as it was written once: it knows of no session."""

import sys

from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    browser = playwright.chromium.launch()
    page = browser.new_page()
    page.goto(sys.argv[1])
    print("the script says:", page.title())
    browser.close()
