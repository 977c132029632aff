// Shows a session's picture and its open pages, about once a second, until it ends.
"use strict";

const EVERY = 1000;
const id = document.body.dataset.session;
const given = new URLSearchParams(location.search);
const picture = document.querySelector("[data-picture]");
const waiting = document.querySelector("[data-waiting]");
const notice = document.querySelector("[data-notice]");
const status = document.querySelector("[data-status]");
const list = document.querySelector("[data-pages]");

function address(path, names) {
  const query = new URLSearchParams();
  for (const name of names) {
    if (given.has(name)) query.set(name, given.get(name));
  }
  return `${path}?${query}`;
}

function say(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

async function problem(response) {
  const body = await response.json();
  const error = new Error(body.message);
  error.over = response.status === 410 || response.status === 401;
  return error;
}

async function get(url) {
  const response = await fetch(url, { cache: "no-store" });
  if (!response.ok) throw await problem(response);
  return response;
}

async function showPicture() {
  const response = await get(address(`/sessions/${id}/screenshot`, ["token", "pageId"]));
  const before = picture.src;
  picture.src = URL.createObjectURL(await response.blob());
  waiting.hidden = true;
  if (before) URL.revokeObjectURL(before);
}

// Titles and addresses come from strangers' pages: only ever set as text.
function entry(page) {
  const item = document.createElement("li");
  const link = document.createElement("a");
  const where = document.createElement("small");
  link.href = page.sessionViewerUrl;
  link.textContent = page.title || "Untitled";
  where.textContent = page.url;
  link.append(where);
  item.append(link);
  return item;
}

async function showPages() {
  const response = await get(address(`/v1/sessions/${id}/live`, ["token"]));
  const { pages } = await response.json();
  list.replaceChildren(...pages.map(entry));
}

async function round() {
  try {
    await showPicture();
    if (list) await showPages();
    say("");
  } catch (error) {
    say(error.message);
    if (error.over) {
      status.textContent = "ended";
      document.body.classList.add("over");
      const cell = document.querySelector("[data-field=status]");
      if (cell) cell.textContent = "ended";
      if (list) list.replaceChildren();
      return;
    }
  }
  setTimeout(round, EVERY);
}

round();
