// The live picture of a session, and a person's hand on it. Speaks with /v1/sessions/{id}/viewer/ws.
"use strict";

const FIRST_PAUSE = 300;
const LONGEST_PAUSE = 5000;
const TWICE_WITHIN = 400;
const TWICE_NEAR = 4;
const BUTTONS = ["left", "middle", "right", "back", "forward"];

const id = document.body.dataset.session;
const given = new URLSearchParams(location.search);
const find = (name) => document.querySelector(`[data-${name}]`);
const picture = find("picture");
const ink = picture.getContext("2d", { alpha: false });
const keys = find("keys");
const waiting = find("waiting");
const notice = find("notice");
const status = find("status");
const tabs = find("tabs");
const address = find("address");

let socket = null;
let pause = FIRST_PAUSE;
let interactive = false;
let over = false;
let size = { width: 0, height: 0 };
let drawing = Promise.resolve();
let noticeTimer = 0;

function say(text, { fade = false } = {}) {
  clearTimeout(noticeTimer);
  notice.textContent = text;
  notice.hidden = !text;
  if (text && fade) noticeTimer = setTimeout(() => say(""), 5000);
}

function show(word) {
  status.textContent = word;
}

// ---------------------------------------------------------------------- the socket

function query(names) {
  const wanted = new URLSearchParams();
  for (const name of names) if (given.has(name)) wanted.set(name, given.get(name));
  return wanted;
}

function connect() {
  const wanted = query(["token", "pageId", "pageIndex", "interactive"]);
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/v1/sessions/${id}/viewer/ws?${wanted}`);
  socket.binaryType = "blob";
  socket.onmessage = ({ data }) => (typeof data === "string" ? hear(JSON.parse(data)) : draw(data));
  socket.onclose = ({ code, reason }) => lost(code, reason);
}

function hear(message) {
  if (message.type === "hello") begin(message.interactive);
  if (message.type === "size") size = message;
  if (message.type === "view") showView(message);
  if (message.type === "problem") say(message.message, { fade: true });
  if (message.type === "ended") end(`The session has ended: ${words(message.reason)}.`);
}

function words(reason) {
  return String(reason).replaceAll("_", " ");
}

function begin(may) {
  pause = FIRST_PAUSE;
  interactive = may;
  say("");
  show("live");
  document.body.classList.remove("away");
  document.body.classList.toggle("interactive", may);
  keys.hidden = !may;
  find("mode").hidden = may;
  for (const control of document.querySelectorAll("[data-controls] button, [data-address]")) {
    control.disabled = !may;
  }
}

async function lost(code, reason) {
  if (over) return;
  if (code === 1008) {
    end(`${reason || "This link does not open the session any more"}.`);
    return;
  }
  document.body.classList.add("away");
  show("connecting");
  const why = await whyNot();
  if (why) {
    end(why);
    return;
  }
  say("The connection was lost. Trying again…");
  setTimeout(connect, pause);
  pause = Math.min(pause * 2, LONGEST_PAUSE);
}

// A refused WebSocket tells a page nothing; the same address asked for plainly says why.
async function whyNot() {
  try {
    const wanted = query(["token", "pageId", "pageIndex"]);
    const reply = await fetch(`/v1/sessions/${id}/viewer/ws?${wanted}`, { cache: "no-store" });
    if (![400, 401, 403, 404, 409, 410].includes(reply.status)) return "";
    return (await reply.json()).message;
  } catch {
    return "";
  }
}

function end(text) {
  over = true;
  interactive = false;
  show("ended");
  say(text);
  document.body.classList.add("over");
  document.body.classList.remove("interactive", "away");
  keys.hidden = true;
  waiting.hidden = true;
  for (const control of document.querySelectorAll("[data-controls] button, [data-address]")) {
    control.disabled = true;
  }
}

function tell(message) {
  if (interactive && socket && socket.readyState === WebSocket.OPEN) {
    socket.send(JSON.stringify(message));
  }
}

// ---------------------------------------------------------------------- the picture

// One after the other, so that an older frame never covers a newer one.
function draw(blob) {
  drawing = drawing.then(async () => {
    const frame = await createImageBitmap(blob);
    if (picture.width !== frame.width || picture.height !== frame.height) {
      picture.width = frame.width;
      picture.height = frame.height;
    }
    ink.drawImage(frame, 0, 0);
    frame.close();
    waiting.hidden = true;
    picture.dataset.frames = Number(picture.dataset.frames || 0) + 1;
  }).catch((error) => say(`A picture could not be drawn: ${error.message}`, { fade: true }));
}

// Titles and addresses come from strangers' pages: only ever set as text.
function showView(view) {
  const fixed = given.has("pageId") || given.has("pageIndex");
  const listed = fixed ? view.tabs.filter((tab) => tab.id === view.shown) : view.tabs;
  tabs.replaceChildren(...listed.map((tab) => tabOf(tab, tab.id === view.shown)));
  const shown = view.tabs.find((tab) => tab.id === view.shown);
  document.body.classList.toggle("loading", view.loading);
  if (shown && document.activeElement !== address) address.value = shown.url;
  if (!shown) address.value = "";
}

function tabOf(tab, isShown) {
  const item = document.createElement("span");
  item.className = "tab";
  const name = document.createElement("button");
  name.type = "button";
  name.setAttribute("role", "tab");
  name.setAttribute("aria-selected", String(isShown));
  name.textContent = tab.title || tab.url || "New tab";
  name.title = tab.url;
  name.disabled = !interactive;
  name.onclick = () => tell({ type: "tab", do: "show", pageId: tab.id });
  item.append(name);
  if (interactive) {
    const close = document.createElement("button");
    close.type = "button";
    close.className = "close";
    close.textContent = "×";
    close.setAttribute("aria-label", `Close ${name.textContent}`);
    close.onclick = () => tell({ type: "tab", do: "close", pageId: tab.id });
    item.append(close);
  }
  return item;
}

// ---------------------------------------------------------------------- the controls

find("open").onclick = () => tell({ type: "tab", do: "open" });
for (const button of document.querySelectorAll("[data-go]")) {
  button.onclick = () => tell({ type: "go", to: button.dataset.go });
}
find("form").onsubmit = (event) => {
  event.preventDefault();
  tell({ type: "go", to: "address", address: address.value });
  keys.focus();
};
address.onfocus = () => address.select();

// ---------------------------------------------------------------------- mouse and fingers

// The picture is as large as fits, in the middle of the canvas.
function place(event) {
  const box = picture.getBoundingClientRect();
  const scale = Math.min(box.width / size.width, box.height / size.height);
  return {
    x: (event.clientX - box.left - (box.width - size.width * scale) / 2) / scale,
    y: (event.clientY - box.top - (box.height - size.height * scale) / 2) / scale,
  };
}

function modifiers(event) {
  return (event.altKey ? 1 : 0) + (event.ctrlKey ? 2 : 0) + (event.metaKey ? 4 : 0) + (event.shiftKey ? 8 : 0);
}

const last = { time: 0, x: 0, y: 0, button: -1, clicks: 0 };
let moving = null;

function clicksOf(event) {
  const near = Math.hypot(event.clientX - last.x, event.clientY - last.y) <= TWICE_NEAR;
  const again = near && event.timeStamp - last.time < TWICE_WITHIN && event.button === last.button;
  last.clicks = again ? Math.min(last.clicks + 1, 3) : 1;
  Object.assign(last, { time: event.timeStamp, x: event.clientX, y: event.clientY, button: event.button });
  return last.clicks;
}

function mouse(kind, event, more) {
  const held = { buttons: event.buttons & 31, modifiers: modifiers(event) };
  tell({ type: "mouse", kind, ...place(event), ...held, ...more });
}

function move() {
  const event = moving;
  moving = null;
  if (!event) return;
  const held = BUTTONS.find((_, bit) => event.buttons & [1, 4, 2, 8, 16][bit]);
  mouse("mouseMoved", event, { button: held || "none" });
}

const fingers = new Map();

function touch(kind, event) {
  if (kind === "touchStart" || kind === "touchMove") fingers.set(event.pointerId, place(event));
  else fingers.delete(event.pointerId);
  const told = [...fingers].map(([finger, where]) => ({ id: finger, ...where }));
  tell({ type: "touch", kind, fingers: told, modifiers: modifiers(event) });
}

picture.onpointerdown = (event) => {
  if (!interactive) return;
  event.preventDefault();
  keys.focus({ preventScroll: true });
  picture.setPointerCapture(event.pointerId);
  if (event.pointerType === "touch") {
    touch("touchStart", event);
    return;
  }
  move();
  mouse("mousePressed", event, { button: BUTTONS[event.button] || "none", clicks: clicksOf(event) });
};

picture.onpointermove = (event) => {
  if (!interactive) return;
  if (event.pointerType === "touch") {
    if (fingers.has(event.pointerId)) touch("touchMove", event);
    return;
  }
  if (!moving) requestAnimationFrame(move);
  moving = event;
};

picture.onpointerup = (event) => {
  if (!interactive) return;
  event.preventDefault();
  if (event.pointerType === "touch") {
    touch("touchEnd", event);
    return;
  }
  move();
  mouse("mouseReleased", event, { button: BUTTONS[event.button] || "none", clicks: last.clicks });
};

picture.onpointercancel = (event) => {
  if (interactive && fingers.has(event.pointerId)) touch("touchCancel", event);
};

picture.oncontextmenu = (event) => {
  if (interactive) event.preventDefault();
};

picture.addEventListener("wheel", (event) => {
  if (!interactive) return;
  event.preventDefault();
  const unit = [1, 40, size.height][event.deltaMode];
  mouse("mouseWheel", event, { wheelX: event.deltaX * unit, wheelY: event.deltaY * unit });
}, { passive: false });

// ---------------------------------------------------------------------- the keyboard

function key(event, down) {
  const plain = event.key.length === 1 && !event.ctrlKey && !event.metaKey;
  const text = event.key === "Enter" ? "\r" : plain ? event.key : "";
  tell({
    type: "key",
    down,
    key: event.key,
    code: event.code,
    number: event.keyCode,
    text: down ? text : "",
    location: event.location,
    modifiers: modifiers(event),
    repeat: event.repeat,
  });
}

// Keys that a keyboard on glass, or one that composes, does not tell: the text itself follows.
function isUntold(event) {
  return event.isComposing || ["Process", "Unidentified", "Dead"].includes(event.key);
}

function pastes(event) {
  return (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "v";
}

keys.onkeydown = (event) => {
  if (isUntold(event) || pastes(event)) return;
  event.preventDefault();
  key(event, true);
};
keys.onkeyup = (event) => {
  if (isUntold(event) || pastes(event)) return;
  event.preventDefault();
  key(event, false);
};
keys.addEventListener("compositionupdate", (event) => tell({ type: "compose", text: event.data }));
keys.addEventListener("compositionend", (event) => {
  tell({ type: "text", text: event.data });
  keys.value = "";
});
keys.oninput = (event) => {
  if (event.isComposing) return;
  if (event.inputType === "insertText" && event.data) tell({ type: "text", text: event.data });
  keys.value = "";
};
keys.onpaste = (event) => {
  event.preventDefault();
  tell({ type: "text", text: event.clipboardData.getData("text/plain") });
};

connect();
