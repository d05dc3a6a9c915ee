// /openapi.json as a page: each endpoint with its fields, their limits, an example and a form to
// try it.

import { byId, copyButton, el } from "./dom.js";
import { getJson, request, storeKey, storedKey } from "./server.js";

let description = null;
let model = "MODEL";

const kMessages = [{ role: "user", content: "What is an FPGA?" }];
const kExamples = {
  chat: { messages: kMessages, max_tokens: 64 },
  completion: { prompt: "Once upon a time", max_tokens: 32 },
  tokenize: { prompt: "Once upon a time" },
  detokenize: { tokens: [1, 2, 3] },
  applyTemplate: { messages: kMessages },
};

function resolved(schema) {
  if (!schema?.$ref) return schema ?? {};
  return schema.$ref.slice(2).split("/").reduce((at, name) => at[name], description);
}

const list = (value) => (value === undefined ? [] : [value].flat());

// What kind of value a schema takes, in words.
function typeOf(given) {
  const schema = resolved(given);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(", ");
  const kinds = (schema.anyOf ?? []).map(typeOf);
  for (const type of list(schema.type)) {
    if (type === "array") kinds.push(`list of ${typeOf(schema.items)}`);
    else kinds.push(type);
  }
  return [...new Set(kinds)].filter((kind) => kind && kind !== "null").join(" or ");
}

function limitsOf(given) {
  const schema = resolved(given);
  const limits = [];
  const range = (low, high, unit) => {
    const few = (bound) => bound !== undefined && Math.abs(bound) < 1e9;  // the rest says nothing
    const text = (bound) => `${bound}${unit}${unit && bound !== 1 ? "s" : ""}`;
    if (few(low) && few(high)) limits.push(`${low} to ${text(high)}`);
    else if (few(low)) limits.push(`at least ${text(low)}`);
    else if (few(high)) limits.push(`at most ${text(high)}`);
  };
  range(schema.minimum, schema.maximum, "");
  range(schema.minItems, schema.maxItems, " item");
  range(schema.minLength, schema.maxLength, " character");
  for (const part of schema.anyOf ?? []) limits.push(...limitsOf(part));
  return [...new Set(limits)];
}

// The objects below a schema, through lists and alternatives.
function objectsIn(given) {
  const schema = resolved(given);
  if (schema.properties) return [schema];
  return [...(schema.items ? objectsIn(schema.items) : []), ...(schema.anyOf ?? []).flatMap(objectsIn)];
}

// `asked`: of a request, where it matters which ones have to be there.
function rows(schema, asked, prefix = "") {
  const required = new Set(asked ? schema.required : []);
  return Object.entries(schema.properties ?? {}).flatMap(([name, member]) => {
    const inner = resolved(member);
    const limits = limitsOf(member);
    const type = el("td", {}, typeOf(member));
    if (limits.length > 0) type.append(el("span", { class: "limits" }, `, ${limits.join(", ")}`));
    const notes = [required.has(name) ? "Required." : "", inner.description ?? ""];
    const row = el("tr", {}, el("td", {}, prefix + name), type,
                   el("td", {}, notes.filter(Boolean).join(" ")));
    return [row, ...objectsIn(member).flatMap((below) => rows(below, asked, `${prefix}${name}.`))];
  });
}

function fields(title, schema, asked = false) {
  const [object] = objectsIn(schema);
  if (!object) return [];
  const head = el("tr", {}, el("th", {}, "field"), el("th", {}, "value"), el("th", {}, ""));
  const table = el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows(object, asked)));
  return [el("h3", {}, title), el("div", { class: "wide", tabindex: "0" }, table)];
}

function code(text, label) {
  const bar = el("div", { class: "code-bar" }, el("span", {}, label), copyButton(() => text));
  return el("div", { class: "code" }, bar, el("pre", { tabindex: "0" }, el("code", {}, text)));
}

function curl(path, body, open) {
  const parts = [`curl ${location.origin}${path}`];
  if (!open) parts.push("-H \"Authorization: Bearer $KEY\"");
  if (body) {
    const json = JSON.stringify(body).replaceAll("'", "'\\''");
    parts.push("-H 'Content-Type: application/json'", `-d '${json}'`);
  }
  return parts.join(" \\\n  ");
}

function form(path, body) {
  const output = el("output", {});
  const input = body
    ? el("textarea", { rows: 6, spellcheck: "false", "aria-label": "Body" }, JSON.stringify(body, null, 2))
    : null;
  const send = async (event) => {
    event.preventDefault();
    output.replaceChildren("…");
    try {
      const reply = await request(path, { body: input?.value });
      let text = await reply.text();
      try {
        text = JSON.stringify(JSON.parse(text), null, 2);
      } catch {
        // Not JSON: shown as it came.
      }
      output.replaceChildren(code(text, `${reply.status} ${reply.statusText}`));
    } catch (error) {
      output.replaceChildren(el("p", { class: "problem" }, error.message));
    }
  };
  const fieldsOfForm = el("form", { onsubmit: send }, ...(input ? [input] : []),
                          el("button", { class: "primary" }, "Send"), output);
  return el("details", {}, el("summary", {}, "Try it"), fieldsOfForm);
}

function endpoint(path, method, operation) {
  const id = operation.operationId;
  const open = !description.security || operation.security?.length === 0;
  const example = kExamples[id];
  const there = path.replace("{id}", encodeURIComponent(model));
  const body = operation.requestBody?.content["application/json"].schema;
  const good = operation.responses["200"];
  const reply = good.content?.["application/json"]?.schema;
  const access = open ? "" : " Needs a key.";
  return el("section", { id, "aria-labelledby": `${id}-title` },
    el("h2", { id: `${id}-title` }, el("span", { class: "method" }, method.toUpperCase()), path),
    el("p", {}, `${operation.summary}.${access}`),
    ...(body ? fields("Request", body, true) : []),
    el("h3", {}, "Answer"), el("p", {}, good.description),
    ...(reply ? fields("", reply).slice(1) : []),
    el("h3", {}, "Example"), code(curl(there, example, open), "curl"),
    form(there, example));
}

async function start() {
  try {
    description = await getJson("/openapi.json");
  } catch (error) {
    byId("about").textContent = error.message;
    byId("about").className = "problem";
    return;
  }
  byId("about").textContent = description.info.description;
  if (description.security) {
    byId("key-form").hidden = false;
    byId("key").value = storedKey() ?? "";
    byId("key").addEventListener("input", () => storeKey(byId("key").value));
    byId("key-form").addEventListener("submit", (event) => event.preventDefault());
  }
  if (!description.security || storedKey()) {
    const state = await getJson("/state").catch(() => ({}));
    model = state.model ?? model;
  }
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const link = el("a", { href: `#${operation.operationId}` }, path);
      byId("contents").append(el("li", {}, link));
      byId("endpoints").append(endpoint(path, method, operation));
    }
  }
  const errors = fields("Errors", { $ref: "#/components/schemas/Error" });
  byId("endpoints").append(el("section", { id: "errors" }, ...errors));
  if (location.hash) byId(location.hash.slice(1))?.scrollIntoView();
}

start();
