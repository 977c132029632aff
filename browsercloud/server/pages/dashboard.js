// Lists a project's sessions and what room there is, about every two seconds while it is seen.
"use strict";

const EVERY = 2000;
const PAGE = 50;
const MOST_PAGES = 10;
const OVER = ["released", "failed"];

const $ = (name) => document.querySelector(`[data-${name}]`);
const filters = $("filters");
const body = $("rows");
const rows = new Map();
let pages = 1;
let turn = 0;
let timer;

$("here").textContent = location.origin;

function say(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

async function call(method, path) {
  const response = await fetch(path, { method, cache: "no-store" });
  if (response.status === 401) {
    location.reload();
    return new Promise(() => {});
  }
  const told = await response.json();
  if (!response.ok) throw new Error(told.message);
  return told;
}

function wanted() {
  const given = new URLSearchParams();
  for (const [name, value] of new FormData(filters)) {
    const text = value.trim();
    if (!text) continue;
    if (name !== "metadata") {
      given.set(name, text);
    } else if (text.indexOf("=") > 0) {
      const at = text.indexOf("=");
      given.set(`metadata.${text.slice(0, at)}`, text.slice(at + 1));
    }
  }
  return given;
}

async function list() {
  const sessions = [];
  let told = {};
  for (let page = 0; page < pages; page += 1) {
    const asked = wanted();
    asked.set("limit", PAGE);
    if (told.nextCursor) asked.set("cursorId", told.nextCursor);
    told = await call("GET", `/v1/sessions?${asked}`);
    sessions.push(...told.sessions);
    if (!told.nextCursor) break;
  }
  return { sessions, more: Boolean(told.nextCursor), total: told.totalCount };
}

// What comes from a session is only ever set as text.
function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function cell(label) {
  const made = document.createElement("td");
  made.dataset.label = label;
  return made;
}

function link(text, href, about) {
  const made = document.createElement("a");
  made.href = href;
  made.textContent = text;
  if (about) made.setAttribute("aria-label", about);
  return made;
}

function row(session) {
  const made = document.createElement("tr");
  const name = session.name || session.id;
  const parts = { made, status: document.createElement("span"), asked: document.createElement("small") };
  const cells = ["Status", "Session", "Created", "Lasts", "Labels", ""].map(cell);
  parts.created = document.createElement("time");
  parts.created.dateTime = session.createdAt;
  parts.created.title = new Date(session.createdAt).toLocaleString();
  parts.lasts = cells[3];
  parts.labels = cells[4];
  parts.id = document.createElement("small");
  parts.id.textContent = session.name ? session.id : "";
  parts.view = link("View", `/sessions/${session.id}/viewer`, `View ${name}`);
  parts.release = document.createElement("button");
  parts.release.type = "button";
  parts.release.textContent = "Release";
  parts.release.setAttribute("aria-label", `Release ${name}`);
  parts.release.addEventListener("click", () => ask(session.id, name));
  cells[0].append(parts.status, parts.asked);
  cells[1].append(link(name, `/sessions/${session.id}`), parts.id);
  cells[2].append(parts.created);
  cells[5].className = "actions";
  cells[5].append(parts.view, parts.release);
  made.append(...cells);
  return parts;
}

function show(parts, session) {
  const over = OVER.includes(session.status);
  set(parts.status, session.status);
  parts.status.className = `status ${session.status}`;
  const line = session.queuePosition ? `place ${session.queuePosition}` : "";
  set(parts.asked, (session.releaseReason || line).replaceAll("_", " "));
  set(parts.created, ago(session.createdAt));
  set(parts.lasts, session.startedAt ? span(session.duration) : "–");
  const labels = Object.entries(session.metadata).map(([key, value]) => `${key}=${value}`);
  set(parts.labels, [session.build && `build ${session.build}`, ...labels].filter(Boolean).join(", "));
  parts.view.hidden = session.status !== "live";
  parts.release.hidden = over || session.status === "releasing";
}

function span(ms) {
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function ago(time) {
  const seconds = Math.max(0, (Date.now() - new Date(time)) / 1000);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(time).toLocaleDateString();
}

function update({ sessions, more, total }) {
  const seen = new Set();
  let place = body.firstElementChild;
  for (const session of sessions) {
    seen.add(session.id);
    if (!rows.has(session.id)) rows.set(session.id, row(session));
    const parts = rows.get(session.id);
    show(parts, session);
    if (parts.made === place) place = place.nextElementSibling;
    else body.insertBefore(parts.made, place);
  }
  for (const [id, parts] of rows) {
    if (seen.has(id)) continue;
    parts.made.remove();
    rows.delete(id);
  }
  const filtered = wanted().size > 0;
  set($("count"), total === 1 ? "1 session" : `${total} sessions`);
  document.querySelector("table").hidden = !sessions.length;
  $("count").hidden = !sessions.length;
  $("empty").hidden = sessions.length > 0 || filtered;
  $("none").hidden = sessions.length > 0 || !filtered;
  $("older").hidden = !more || pages >= MOST_PAGES;
}

async function room() {
  const told = await call("GET", "/v1/capacity");
  for (const figure of document.querySelectorAll("[data-figure]")) {
    set(figure, String(told[figure.dataset.figure]));
  }
}

async function round() {
  clearTimeout(timer);
  const mine = (turn += 1);
  try {
    const [found] = await Promise.all([list(), room()]);
    if (mine !== turn) return; // another filter has been chosen meanwhile
    update(found);
    say("");
  } catch (error) {
    if (mine !== turn) return;
    say(error instanceof TypeError ? "The server does not answer; trying again." : error.message);
  }
  if (!document.hidden) timer = setTimeout(round, EVERY);
}

function ask(id, name) {
  const dialog = $("ask");
  $("ask-about").textContent = name;
  dialog.returnValue = "cancel";
  dialog.onclose = async () => {
    if (dialog.returnValue !== "release") return;
    try {
      await call("DELETE", `/v1/sessions/${id}`);
    } catch (error) {
      say(error.message);
    }
    await round();
  };
  dialog.showModal();
}

for (const [name, value] of new URLSearchParams(location.search)) {
  const field = filters.elements.namedItem(name);
  if (field) field.value = value;
}
filters.addEventListener("submit", (event) => event.preventDefault());
filters.addEventListener("input", () => {
  const kept = new URLSearchParams(location.search);
  for (const [name, value] of new FormData(filters)) {
    if (value) kept.set(name, value);
    else kept.delete(name);
  }
  history.replaceState(null, "", kept.size ? `?${kept}` : "/");
  pages = 1;
  clearTimeout(timer);
  turn += 1;
  timer = setTimeout(round, 200);
});
$("older").addEventListener("click", () => {
  pages += 1;
  round();
});
document.addEventListener("visibilitychange", () => document.hidden || round());
round();
