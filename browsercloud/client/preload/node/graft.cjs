"use strict";
// Puppeteer's ES modules bind launch() while they load: the class has to be changed as it is made.

const HOOK = "Symbol.for('browsercloud.puppeteer')";

/** What a loader returned, with Puppeteer's class handed to the preload as soon as it exists. */
function graft(url, loaded) {
  if (loaded.format !== "module" || loaded.source == null || !/\bpuppeteer/.test(url)) return loaded;
  const text = Buffer.from(loaded.source).toString("utf8");
  const changed = text.replace(
    /\bclass PuppeteerNode\b[^{]*\{/,
    (head) => `${head} static { globalThis[${HOOK}]?.(this); }`,
  );
  return changed === text ? loaded : { ...loaded, source: changed };
}

module.exports = { graft };
