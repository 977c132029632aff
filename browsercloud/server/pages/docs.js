// Shows /openapi.json: every operation with what it takes and answers, and every model.
"use strict";

const OPEN_KEY = "$BROWSERCLOUD_API_KEY";
const place = (name) => document.querySelector(`[data-${name}]`);
let known = {};

// An element with children; text only ever becomes text.
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

// Words with `code` in them.
function words(text) {
  return (text || "").split("`").map((part, index) => (index % 2 ? make("code", "", part) : part));
}

function resolve(thing) {
  if (!thing || !thing.$ref) return thing || {};
  const steps = thing.$ref.replace("#/", "").split("/");
  return steps.reduce((inside, step) => inside[step], known);
}

function modelLink(ref) {
  const name = ref.split("/").pop();
  const link = make("a", "", name);
  link.href = `#model-${name}`;
  return link;
}

// What a value has to be, as words and links.
function kind(schema) {
  if (schema.$ref) return [modelLink(schema.$ref)];
  const choices = schema.anyOf || [];
  if (choices.length) return choices.flatMap((one, i) => (i ? [" or ", ...kind(one)] : kind(one)));
  if (schema.allOf) return kind(schema.allOf[0]);
  if (schema.enum) return schema.enum.flatMap((one, i) => (i ? [", ", make("code", "", one)] : [make("code", "", one)]));
  if (schema.type === "array") return ["array of ", ...kind(schema.items || {})];
  const types = [].concat(schema.type || "anything").join(" or ");
  const format = schema.format && schema.format !== "int64" ? ` (${schema.format})` : "";
  return [types + format];
}

function limits(schema) {
  const told = [];
  if ("exclusiveMinimum" in schema) told.push(`more than ${schema.exclusiveMinimum}`);
  if ("minimum" in schema) told.push(`at least ${schema.minimum}`);
  if ("maximum" in schema) told.push(`at most ${schema.maximum}`);
  if ("maxLength" in schema) told.push(`at most ${schema.maxLength} characters`);
  if ("default" in schema) told.push(`default ${JSON.stringify(schema.default)}`);
  return told.join(", ");
}

function row(name, schema, required, about) {
  const head = make("th", "", make("code", "", name), required ? make("span", "must", " required") : "");
  head.scope = "row";
  const bounds = limits(schema);
  const type = make("span", "kind", ...kind(schema), bounds ? `; ${bounds}` : "");
  return make("tr", "", head, make("td", "", ...words(about || schema.description), type));
}

function table(rows) {
  return make("table", "", make("tbody", "", ...rows));
}

function fields(schema) {
  // In a reply every field is there; to say so of each one would only be noise.
  const required = schema.additionalProperties === false ? schema.required || [] : [];
  const entries = Object.entries(schema.properties || {});
  return table(entries.map(([name, field]) => row(name, field, required.includes(name))));
}

function part(title, ...content) {
  return [make("h3", "", title), ...content];
}

const isSocket = (operation) => "101" in operation.responses;

function access(operation) {
  const names = operation.security.map((one) => Object.keys(one)[0]);
  if (!names.length) return "Open to anyone.";
  const token = names.includes("token") ? ", or the session's token as `?token=`" : "";
  const query = names.includes("keyInQuery") ? ", or the key as `?apiKey=`" : "";
  return `Needs a key: \`x-api-key\`, or \`Authorization\` with Bearer or Basic${token}${query}.`;
}

function sample(schema, name) {
  const told = resolve(schema);
  if ("default" in told) return told.default;
  if (told.enum) return told.enum[0];
  if ("maximum" in told) return Math.min(told.maximum, 600000);
  return { integer: 1, boolean: true }[[].concat(told.type)[0]] ?? name.toUpperCase();
}

// The body in the example: what is required, else the first default.
function sampleBody(schema) {
  const all = Object.entries(schema.properties || {});
  const needed = all.filter(([name]) => (schema.required || []).includes(name));
  const chosen = needed.length ? needed : all.filter(([, field]) => "default" in field).slice(0, 1);
  return JSON.stringify(Object.fromEntries(chosen.map(([name, field]) => [name, sample(field, name)])));
}

function example(method, path, operation) {
  const address = path.replace(/{(\w+)}/g, (_, name) => {
    const found = operation.parameters.find((one) => one.name === name);
    return found.schema.enum ? found.schema.enum[0] : name.replace(/[A-Z]/g, "_$&").toUpperCase();
  });
  const query = operation.parameters.filter((one) => one.in === "query" && one.required);
  const asked = query.map((one) => `${one.name}=${one.name.replace(/[A-Z]/g, "_$&").toUpperCase()}`);
  if (isSocket(operation)) {
    asked.push(operation.security.some((one) => one.token) ? "token=TOKEN" : "apiKey=API_KEY");
    return `${location.origin.replace("http", "ws")}${address}?${asked.join("&")}`;
  }
  const lines = [`curl ${method === "get" ? "" : `-X ${method.toUpperCase()} `}'${location.origin}${address}'`];
  if (operation.security.length) lines.push(`-H "x-api-key: ${OPEN_KEY}"`);
  if (operation.requestBody) {
    const asked = operation.requestBody.content["application/json"].schema;
    const schema = resolve(asked.anyOf ? asked.anyOf[0] : asked);
    lines.push("-H 'content-type: application/json'", `-d '${sampleBody(schema)}'`);
  }
  return lines.join(" \\\n  ");
}

function answer(status, reference) {
  const response = resolve(reference);
  const [media, content] = Object.entries(response.content || {})[0] || [];
  const head = make("th", "", make("code", "", status));
  head.scope = "row";
  const type = media ? make("span", "kind", media, ": ", ...kind(content.schema)) : "";
  return make("tr", "", head, make("td", "", ...words(response.description), type));
}

function takes(operation) {
  const rows = operation.parameters.map((one) => row(
    one.explode ? `${one.name}.*` : one.name, one.schema, one.required, `${one.description} (${one.in})`,
  ));
  const body = operation.requestBody && resolve(operation.requestBody.content["application/json"].schema);
  return [
    ...(rows.length ? part("Parameters", table(rows)) : []),
    ...(body ? part(operation.requestBody.required ? "Body" : "Body, may be empty", body.anyOf ? make("p", "kind", ...kind(body)) : fields(body)) : []),
  ];
}

function badge(method, operation) {
  const name = isSocket(operation) ? "socket" : method;
  return make("span", `method ${name}`, isSocket(operation) ? "WS" : method.toUpperCase());
}

function show(path, method, operation) {
  const title = make("summary", "", badge(method, operation), make("span", "path", path), make("span", "what", ...words(operation.summary)));
  const inside = make(
    "div", "inside",
    ...(operation.description || "").split("\n\n").filter(Boolean).map((text) => make("p", "", ...words(text))),
    make("p", "", ...words(access(operation))),
    ...takes(operation),
    ...part("Answers", table(Object.entries(operation.responses).map(([status, one]) => answer(status, one)))),
    ...part("Example", make("pre", "", example(method, path, operation))),
  );
  const block = make("details", "operation", title, inside);
  block.id = operation.operationId;
  return block;
}

function link(path, method, operation) {
  const found = make("a", "", badge(method, operation), make("span", "", path));
  found.href = `#${operation.operationId}`;
  return found;
}

function model([name, schema]) {
  const title = make("summary", "", make("span", "path", name), make("span", "what", ...words(schema.description)));
  const inside = schema.properties ? fields(schema) : make("p", "", ...kind(schema));
  const block = make("details", "model", title, make("div", "inside", inside));
  block.id = `model-${name}`;
  return block;
}

// Whoever follows a link to something wants to see what is in it.
function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (!target) return;
  target.open = true;
  target.scrollIntoView();
}

function showAll() {
  const groups = {};
  for (const [path, methods] of Object.entries(known.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      (groups[operation.tags[0]] ||= []).push([path, method, operation]);
    }
  }
  for (const [tag, rows] of Object.entries(groups)) {
    place("nav").append(make("h2", "", tag), ...rows.map((one) => link(...one)));
    place("operations").append(make("section", "group", make("h2", "", tag), ...rows.map((one) => show(...one))));
  }
  place("models").append(...Object.entries(known.components.schemas).map(model));
  place("models").hidden = false;
  place("intro").append(...words(known.info.description));
  place("version").textContent = known.info.version;
  openTarget();
}

async function start() {
  try {
    const reply = await fetch("/openapi.json");
    if (!reply.ok) throw new Error(`status ${reply.status}`);
    known = await reply.json();
    showAll();
  } catch (error) {
    place("notice").textContent = `The interface could not be shown: ${error.message}`;
    place("notice").hidden = false;
  }
}

window.addEventListener("hashchange", openTarget);
start();
