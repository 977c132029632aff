"use strict";
// Loaded before a script of Node (`--require`): its launch() connects to the session whose address
// is in the environment. Node's own modules only; it must run with whatever Node the script needs.

const { writeFileSync } = require("node:fs");
const Module = require("node:module");
const { join } = require("node:path");
const { pathToFileURL } = require("node:url");
const { graft } = require("./graft.cjs");

const ENDPOINT = process.env.BROWSERCLOUD_WEBSOCKET_URL;
// The run's own folder: whether the script has connected, and files that must not outlive it.
const FOLDER = process.env.BROWSERCLOUD_RUN_FOLDER;

// Options of launch() that a connection takes, too.
const PUPPETEER_TAKES = new Set([
  "acceptInsecureCerts", "defaultViewport", "downloadBehavior", "handleDevToolsAsPage",
  "ignoreHTTPSErrors", "issuesEnabled", "networkEnabled", "protocolTimeout", "slowMo",
  "targetFilter", "blocklist", "allowlist",
]);
const PLAYWRIGHT_TAKES = new Set(["logger", "slowMo", "timeout", "artifactsDir"]);
// Options that mean nothing where no process is started.
const IDLE = new Set([
  "browser", "dumpio", "env", "handleSIGHUP", "handleSIGINT", "handleSIGTERM", "pipe", "product",
  "protocol", "timeout", "waitForInitialPage",
]);

let launched = 0;
let open = 0;

function say(line) {
  process.stderr.write(`browsercloud: ${line}\n`);
}

/** The options that a connection takes; the others are named on standard error. */
function fitting(call, options, taken) {
  const given = Object.keys(options).filter((name) => {
    const value = options[name];
    return value !== undefined && !(Array.isArray(value) && value.length === 0);
  });
  const ignored = given.filter((name) => !taken.has(name) && !IDLE.has(name));
  if (ignored.length > 0) {
    say(`the session's browser is running already; ${call} ignores: ${ignored.join(", ")}`);
  }
  return Object.fromEntries(given.filter((n) => taken.has(n)).map((n) => [n, options[n]]));
}

/** Count a launch, connect, and let no error show the session's token. */
async function connecting(connect) {
  launched += 1;
  if (launched === 2) {
    say("launch() again: it is the same session, with the same cookies and tabs");
  }
  let browser;
  try {
    browser = await connect();
  } catch (error) {
    for (const name of ["message", "stack"]) {
      if (typeof error?.[name] === "string") {
        error[name] = error[name].replace(/token=[^\s&"']*/g, "token=…");
      }
    }
    throw error;
  }
  if (FOLDER) writeFileSync(join(FOLDER, "connected"), "");
  return browser;
}

function refuse(what, instead) {
  return Promise.reject(new Error(`browsercloud: ${what} does not work in a session: ${instead}`));
}

// ---------------------------------------------------------------------------------- Puppeteer

function patchPuppeteer(PuppeteerNode) {
  PuppeteerNode.prototype.launch = async function launch(options = {}) {
    const browser = options.browser ?? options.product ?? "chrome";
    if (browser !== "chrome") {
      return refuse(`browser: "${browser}"`, "it is a Chromium; leave the option out");
    }
    if (options.protocol === "webDriverBiDi") {
      return refuse('protocol: "webDriverBiDi"', "it speaks CDP; leave the option out");
    }
    const taken = fitting("launch()", options, PUPPETEER_TAKES);
    return connecting(async () =>
      closing(await this.connect({ ...taken, browserWSEndpoint: ENDPOINT })),
    );
  };
}

/** Puppeteer's close() ends Chromium. Here it ends what the script has opened in it, and detaches. */
async function closing(browser) {
  const contexts = new Set(browser.browserContexts());
  const pages = new Set(await browser.pages());
  let closed;
  open += 1;
  async function close() {
    const mine = browser.browserContexts().filter((context) => !contexts.has(context));
    await Promise.allSettled(mine.map((context) => context.close()));
    if (open === 1) {
      // With another launch() in use it cannot be told whose the other tabs are.
      const left = (await browser.pages()).filter((page) => !pages.has(page));
      await Promise.allSettled(left.map((page) => page.close()));
    }
    open -= 1;
    await browser.disconnect();
  }
  browser.close = () => (closed ??= close());
  return browser;
}

// --------------------------------------------------------------------------------- Playwright

const patched = new WeakSet();

/** Playwright would make a folder in the system's, and leave it behind when it is killed. */
function connectPlaywright(chromium, taken) {
  const artifacts = FOLDER ? { artifactsDir: join(FOLDER, `artifacts-${launched}`) } : {};
  return connecting(() => chromium.connectOverCDP(ENDPOINT, { ...artifacts, ...taken }));
}

function patchPlaywright(playwright) {
  const { chromium, firefox, webkit } = playwright;
  if (patched.has(chromium)) return;
  patched.add(chromium);
  chromium.launch = async (options = {}) => {
    const taken = fitting("launch()", options, PLAYWRIGHT_TAKES);
    return connectPlaywright(chromium, taken);
  };
  chromium.launchPersistentContext = async (folder, options = {}) => {
    const given = folder ? { userDataDir: folder, ...options } : options;
    const taken = fitting("launchPersistentContext()", given, PLAYWRIGHT_TAKES);
    const browser = await connectPlaywright(chromium, taken);
    return browser.contexts()[0];
  };
  chromium.launchServer = () => refuse("launchServer()", "launch() connects to it");
  for (const other of [firefox, webkit]) {
    for (const name of ["launch", "launchPersistentContext", "launchServer"]) {
      if (other) other[name] = () => refuse(`${other.name()}.${name}()`, "use chromium.launch()");
    }
  }
}

// ------------------------------------------------------------------------------------ loading

function patch(loaded) {
  if (typeof loaded?.PuppeteerNode === "function" && !patched.has(loaded.PuppeteerNode)) {
    patched.add(loaded.PuppeteerNode);
    patchPuppeteer(loaded.PuppeteerNode);
  }
  if (typeof loaded?.chromium?.connectOverCDP === "function") patchPlaywright(loaded);
}

function install() {
  globalThis[Symbol.for("browsercloud.puppeteer")] = (PuppeteerNode) => patch({ PuppeteerNode });
  // CommonJS, and what ES modules import of it. Other packages' exports are not looked at: their
  // getters may do things.
  const load = Module._load;
  Module._load = function (request, parent, ...rest) {
    const loaded = load.call(this, request, parent, ...rest);
    const place = `${request} ${parent?.filename ?? ""}`;
    if (/puppeteer|playwright/.test(place)) patch(loaded);
    return loaded;
  };
  if (typeof Module.registerHooks === "function") {
    Module.registerHooks({ load: (url, context, next) => graft(url, next(url, context)) });
  } else if (typeof Module.register === "function") {
    Module.register("./hooks.mjs", pathToFileURL(__filename));
  } else {
    say(`Node ${process.version} cannot redirect launch() of ES modules; use Node 20 or newer`);
  }
}

if (ENDPOINT) install();
