"""Scripts as people have them: nothing in them knows of sessions. `URL` is their first argument."""

PUPPETEER_CJS = """
const puppeteer = require('puppeteer');

(async () => {
  const browser = await puppeteer.launch({headless: true, args: ['--no-sandbox']});
  const page = await browser.newPage();
  await page.setViewport({width: 1080, height: 1024});
  await page.goto(process.argv[2]);
  console.log(await page.title());
  await browser.close();
})();
"""

PUPPETEER_ESM = """
import puppeteer from 'puppeteer';

const browser = await puppeteer.launch();
const page = await browser.newPage();
await page.goto(process.argv[2]);
console.log(await page.title());
await browser.close();
"""

PUPPETEER_CORE_NAMED = """
import {launch} from 'puppeteer-core';

const browser = await launch({executablePath: '/opt/google/chrome/chrome'});
const [page] = await browser.pages();
await page.goto(process.argv[2]);
console.log(await page.title());
await browser.close();
"""

PLAYWRIGHT_CJS = """
const { chromium, devices } = require('playwright');

(async () => {
  const browser = await chromium.launch();
  const context = await browser.newContext(devices['iPhone 13']);
  const page = await context.newPage();
  await page.goto(process.argv[2]);
  console.log(await page.title());
  await context.close();
  await browser.close();
})();
"""

PLAYWRIGHT_ESM = """
import { chromium } from 'playwright';

const browser = await chromium.launch({ headless: false });
const page = await browser.newPage();
await page.goto(process.argv[2]);
console.log(await page.title());
await browser.close();
"""

PLAYWRIGHT_TEST_ESM = PLAYWRIGHT_ESM.replace("'playwright'", "'@playwright/test'")

PLAYWRIGHT_PERSISTENT = """
const { chromium } = require('playwright-core');

(async () => {
  const context = await chromium.launchPersistentContext('/tmp/never-made', { channel: 'chrome' });
  const [page] = context.pages();
  await page.goto(process.argv[2]);
  console.log(await page.title());
  await context.close();
})();
"""

PYTHON_SYNC = """
import sys
from playwright.sync_api import sync_playwright

with sync_playwright() as p:
    browser = p.chromium.launch()
    page = browser.new_page()
    page.goto(sys.argv[1])
    print(page.title())
    browser.close()
"""

PYTHON_ASYNC = """
import asyncio
import sys
from playwright.async_api import async_playwright

async def main():
    async with async_playwright() as p:
        browser = await p.chromium.launch(headless=False, slow_mo=1)
        page = await browser.new_page()
        await page.goto(sys.argv[1])
        print(await page.title())
        await browser.close()

asyncio.run(main())
"""

PYTHON_PERSISTENT = """
import sys
from playwright.sync_api import sync_playwright

with sync_playwright() as p:
    context = p.chromium.launch_persistent_context("/tmp/never-made", headless=True)
    page = context.pages[0]
    page.goto(sys.argv[1])
    print(page.title())
    context.close()
"""

SELENIUM = """
import sys
from selenium import webdriver

options = webdriver.ChromeOptions()
options.add_argument("--headless=new")
options.page_load_strategy = "eager"
driver = webdriver.Chrome(options=options)
driver.get(sys.argv[1])
print(driver.title)
driver.execute_cdp_cmd("Browser.getVersion", {})
driver.quit()
"""

SCRIPTS = {
    "puppeteer.js": PUPPETEER_CJS,
    "puppeteer-core.mjs": PUPPETEER_CORE_NAMED,
    "playwright.cjs": PLAYWRIGHT_CJS,
    "playwright.mjs": PLAYWRIGHT_ESM,
    "playwright-test.mjs": PLAYWRIGHT_TEST_ESM,
    "persistent.js": PLAYWRIGHT_PERSISTENT,
    "async.py": PYTHON_ASYNC,
    "persistent.py": PYTHON_PERSISTENT,
}

FOR_EVER = """
const puppeteer = require('puppeteer');

(async () => {
  const browser = await puppeteer.launch();
  console.log(process.pid);
  setInterval(() => {}, 1000);
})();
"""

FOR_EVER_PY = """
import os
from playwright.sync_api import sync_playwright

with sync_playwright() as p:
    page = p.chromium.launch().new_page()
    print(os.getpid())
    page.wait_for_timeout(3600000)
"""
