// A Puppeteer program of one's own: it is given an address, and launches nothing.
const puppeteer = require('puppeteer-core');

(async () => {
  const browser = await puppeteer.connect({browserWSEndpoint: process.env.ADDRESS});
  const [page] = await browser.pages();
  console.log(await page.title());
  await browser.disconnect();
})();
