// A session's page: its live picture, what happens in it as it happens, its record and its end.
"use strict";

const MOST = 3000;
const LOOK_EVERY = 2000;
const PAUSE = 1000;

const id = document.body.dataset.session;
const given = new URLSearchParams(location.search);
const find = (name) => document.querySelector(`[data-${name}]`);
const timeline = find("timeline");
const filters = find("filters");
const notice = find("notice");
const list = find("pages");
let over = "over" in document.body.dataset;
let begun = null;

function address(path, more = {}) {
  const query = new URLSearchParams(more);
  if (given.has("token")) query.set("token", given.get("token"));
  return `${path}?${query}`;
}

function say(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

async function get(url) {
  const response = await fetch(url, { cache: "no-store" });
  if (response.ok) return response;
  const error = new Error((await response.json()).message);
  error.over = response.status === 410 || response.status === 401;
  throw error;
}

function node(name, text, kind) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.textContent = text; // what comes from strangers' pages is only ever set as text
  return made;
}

// ---------------------------------------------------------------------- timeline

const WORDS = {
  "page.console": (said) => `${said.level}: ${said.text}`,
  "page.error": (said) => said.text,
  "page.request": (said) => `${said.method} ${said.url}`,
  "page.navigated": (said) => said.url,
  "page.opened": (said) => said.url,
  "page.dialog": (said) => `${said.kind}: ${said.text}`,
  "page.download": (said) => `${said.name} from ${said.url}`,
  "page.downloaded": (said) => `${said.state}, ${size(said.size)}`,
  "page.input": (said) => said.kind,
};

function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1000).toFixed(1)} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

function facts(type, said) {
  if (type === "page.request") {
    const told = [said.failure || said.status, said.kind];
    if (said.size !== undefined) told.push(size(said.size));
    if (said.cached) told.push("cached");
    return [...told, `${said.duration} ms`].filter(Boolean).join(" · ");
  }
  if (said.line) return `${said.url || ""}:${said.line}`;
  if (WORDS[type]) return said.failed ? "could not be opened" : "";
  return Object.entries(said)
    .filter(([name]) => name !== "page")
    .map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(", ");
}

function isBad(type, said) {
  return (
    type === "page.error" || type === "session.failed" || said.level === "error" ||
    Boolean(said.failure && said.failure !== "canceled") || said.status >= 400
  );
}

function entry(event) {
  const at = new Date(event.at);
  begun ??= at;
  const said = event.details;
  const item = node("li", "", isBad(event.type, said) ? "bad" : "");
  item.dataset.type = event.type;
  const time = node("time", `+${((at - begun) / 1000).toFixed(2)} s`);
  time.dateTime = event.at;
  time.title = at.toLocaleString();
  const words = WORDS[event.type] ? WORDS[event.type](said) : "";
  item.append(time, node("span", event.type.replace("page.", ""), "kind"));
  item.append(node("span", words, "words"), node("small", facts(event.type, said)));
  return item;
}

function fits(item) {
  const wanted = filters.elements.namedItem("kind").value.split(" ");
  const text = filters.elements.namedItem("text").value.trim().toLowerCase();
  const kind = item.dataset.type;
  return wanted.some((one) => kind.startsWith(one)) && item.textContent.toLowerCase().includes(text);
}

function count() {
  const shown = timeline.querySelectorAll("li:not([hidden])").length;
  const all = timeline.children.length;
  find("count").textContent = shown === all ? `${all} events` : `${shown} of ${all} events`;
}

function add(events) {
  const items = events.map(entry);
  for (const item of items) item.hidden = !fits(item);
  timeline.append(...items);
  while (timeline.children.length > MOST) timeline.firstElementChild.remove();
  count();
}

async function follow() {
  let pointer = 0;
  while (pointer !== null) {
    try {
      const asked = { pointer, limit: 1000, wait: true };
      const response = await get(address(`/v1/sessions/${id}/events`, asked));
      const events = await response.json();
      if (events.length) add(events);
      const life = events.some((event) => event.type.startsWith("session."));
      const next = response.headers.get("Next-Cursor");
      pointer = next === null ? null : Number(next);
      if (life || pointer === null) await refresh();
      if (!over) say("");
    } catch (error) {
      say(error instanceof TypeError ? "The server does not answer; trying again." : error.message);
      if (error.over) return ended();
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }
}

// ---------------------------------------------------------------------- record, pages, end

function set(cell, text) {
  if (cell && cell.textContent !== text) cell.textContent = text;
}

async function refresh() {
  const session = await (await get(address(`/v1/sessions/${id}`))).json();
  set(find("status"), session.status);
  find("status").className = `status ${session.status}`;
  for (const name of ["status", "startedAt", "expiresAt", "endedAt", "releaseReason"]) {
    set(document.querySelector(`[data-field="${name}"]`), session[name] ?? "");
  }
  if (["released", "failed"].includes(session.status)) ended(session);
}

function ended(session) {
  over = true;
  document.body.classList.add("over");
  find("stage").hidden = true;
  find("picture").removeAttribute("src");
  list.replaceChildren(node("li", "none", "hint"));
  if (!session) {
    set(find("status"), "ended");
    find("status").className = "status released";
    return;
  }
  say("");
  const told = { reason: session.releaseReason, ...session.error };
  const rows = Object.entries(told).filter(([, value]) => value && value.length !== 0);
  find("evidence-rows").replaceChildren(
    ...rows.map(([name, value]) => {
      const row = document.createElement("tr");
      const head = node("th", name);
      head.scope = "row";
      const text = name === "memory" ? size(value) : [value].flat().join("\n");
      row.append(head, node("td", text));
      return row;
    }),
  );
  find("evidence").hidden = rows.length === 0;
}

function tab(page) {
  const item = document.createElement("li");
  const link = node("a", page.title || "Untitled");
  link.href = page.sessionViewerUrl;
  link.append(node("small", page.url));
  item.append(link);
  return item;
}

async function look() {
  if (over) return;
  try {
    if (!document.hidden) {
      const { pages } = await (await get(address(`/v1/sessions/${id}/live`))).json();
      const told = JSON.stringify(pages);
      if (!over && told !== look.before) list.replaceChildren(...pages.map(tab));
      look.before = told;
    }
  } catch (error) {
    if (error.over) return;
  }
  setTimeout(look, LOOK_EVERY);
}

filters.addEventListener("submit", (event) => event.preventDefault());
filters.addEventListener("input", () => {
  for (const item of timeline.children) item.hidden = !fits(item);
  count();
});

if (!over) {
  const theme = given.has("theme") ? { theme: given.get("theme") } : {};
  const wanted = { showControls: false, interactive: false, ...theme };
  find("picture").src = address(`/sessions/${id}/viewer`, wanted);
  find("stage").hidden = false;
  look();
}
follow();
