// The chat: a list of messages, one answer at a time.

import { byId, copyButton, el } from "./dom.js";
import { render } from "./markdown.js";
import { ServerError, chat, forgetKey, storeKey, storedKey } from "./server.js";
import { sampling, setUpSettings, systemPrompt } from "./settings.js";
import { watch } from "./strip.js";

const kStore = "flexllm-chat";
const prompt = byId("prompt");
const scroller = byId("scroller");

// {role, content}; of an answer also `figures` (text) and `error` ({message, detail}).
let messages = [];
let editing = null;  // index of the message that the composer holds
let running = null;  // AbortController of the answer under way
let model = "FlexLLM";

function say(text) {
  byId("status").textContent = text;
}

function store() {
  try {
    sessionStorage.setItem(kStore, JSON.stringify(messages));
  } catch {
    // A chat that is too long to keep is still a chat.
  }
}

function tool(label, action) {
  return el("button", { type: "button", onclick: action }, label);
}

function nodeOf(message, index) {
  const user = message.role === "user";
  const body = el("div", { class: "body" });
  if (user) body.textContent = message.content;
  else render(body, message.content);
  const node = el("article", { class: message.role, "aria-label": user ? "You" : model }, body);
  if (message.error) {
    node.append(el("div", { class: "problem", role: "alert" }, el("p", {}, message.error.message),
                   el("p", { class: "detail" }, message.error.detail)));
  }
  const tools = el("div", { class: "tools" });
  if (message.content) tools.append(copyButton(() => message.content));
  if (user) tools.append(tool("Edit", () => edit(index)));
  if (!user && index === messages.length - 1) {
    tools.append(tool(message.error ? "Try again" : "Again", regenerate));
  }
  if (message.figures) tools.append(el("span", { class: "figures" }, message.figures));
  node.append(tools);
  return node;
}

function show() {
  byId("messages").replaceChildren(...messages.map(nodeOf));
  byId("welcome").hidden = messages.length > 0;
  byId("clear").disabled = messages.length === 0;
  [...byId("messages").children].forEach((node, index) => {
    node.classList.toggle("replaced", editing !== null && index >= editing);
  });
}

function toEnd() {
  scroller.scrollTop = scroller.scrollHeight;
}

const atEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 48;

// What the model is told. Answers that failed before they began leave two messages of the user
// side by side, which some templates refuse: they become one.
function history() {
  const told = systemPrompt() ? [{ role: "system", content: systemPrompt() }] : [];
  for (const { role, content } of messages) {
    if (content === "") continue;
    if (told.at(-1)?.role === role) told.at(-1).content += `\n\n${content}`;
    else told.push({ role, content });
  }
  return told;
}

function setRunning(controller) {
  running = controller;
  byId("send").textContent = controller ? "Stop" : "Send";
  byId("composer").classList.toggle("running", controller !== null);
  byId("messages").setAttribute("aria-busy", controller !== null);
}

function figuresOf({ sent, first, last, usage, stopped, cut }) {
  const parts = [];
  const tokens = usage?.completion_tokens;
  if (tokens) parts.push(`${tokens} token${tokens === 1 ? "" : "s"}`);
  if (tokens > 1 && last > first) {
    parts.push(`${((1000 * (tokens - 1)) / (last - first)).toFixed(1)} tokens/s`);
  }
  if (first) parts.push(`first after ${((first - sent) / 1000).toFixed(2)} s`);
  if (cut) parts.push("cut off at the most tokens");
  if (stopped) parts.push("stopped");
  return parts.join(" · ");
}

async function answer() {
  const controller = new AbortController();
  const body = { messages: history(), ...sampling() };
  const message = { role: "assistant", content: "" };
  messages.push(message);
  show();
  toEnd();
  setRunning(controller);
  say("Answering.");
  setTimeout(ask, 300);  // when the server has taken it
  const node = byId("messages").lastElementChild;
  node.classList.add("running");
  let drawn = true;
  const draw = () => {
    if (!drawn) return;
    drawn = false;
    requestAnimationFrame(() => {
      drawn = true;
      if (running !== controller) return;
      const follow = atEnd();
      render(node.querySelector(".body"), message.content);
      if (follow) toEnd();
    });
  };
  const times = { sent: performance.now(), first: 0, last: 0, usage: null };
  try {
    for await (const chunk of chat(body, controller.signal)) {
      times.usage = chunk.usage ?? times.usage;
      const choice = chunk.choices[0];
      if (choice?.finish_reason === "length") times.cut = true;
      if (!choice?.delta.content) continue;
      times.last = performance.now();
      times.first ||= times.last;
      message.content += choice.delta.content;
      draw();
    }
    say("The answer is complete.");
  } catch (error) {
    if (error.name === "AbortError") {
      times.stopped = true;
      say("Stopped.");
    } else if (error instanceof ServerError) {
      message.error = { message: error.message, detail: error.detail };
      if (error.status === 401) askForKey(error);
    } else {
      message.error = { message: "The connection broke.", detail: String(error.message) };
    }
  }
  message.figures = figuresOf(times);
  setRunning(null);
  const follow = atEnd();
  show();
  if (follow) toEnd();
  store();
  ask();
}

function send() {
  const text = prompt.value.trim();
  if (running || text === "") return;
  if (editing !== null) messages.length = editing;
  endEdit();
  prompt.value = "";
  fit();
  messages.push({ role: "user", content: text });
  answer();
}

function regenerate() {
  if (running) return;
  messages.pop();
  answer();
}

function edit(index) {
  if (running) return;
  editing = index;
  prompt.value = messages[index].content;
  byId("editing").hidden = false;
  show();
  fit();
  prompt.focus();
}

function endEdit() {
  editing = null;
  byId("editing").hidden = true;
}

function cancelEdit() {
  endEdit();
  prompt.value = "";
  fit();
  show();
  prompt.focus();
}

function fit() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
}

function askForKey(error) {
  byId("key-error").textContent = storedKey() ? error.message : "";
  byId("key-form").hidden = false;
  byId("composer").hidden = true;
  byId("key").focus();
}

function onState(state) {
  if (!byId("key-form").hidden) {
    byId("key-form").hidden = true;
    byId("composer").hidden = false;
    prompt.focus();
  }
  byId("forget-key").hidden = !storedKey();
  if (!state.model) return;
  model = state.model;
  const length = state.max_model_len.toLocaleString("en");
  byId("model").replaceChildren(model, el("small", {}, `${length} tokens`));
  document.title = `${model} · FlexLLM`;
  const emulated = " It runs on an emulated card, whose speed is not that of a card.";
  byId("about").textContent =
    `${model} reads and writes up to ${length} tokens.${state.device?.emulated ? emulated : ""}`;
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) running.abort();
  else send();
});
prompt.addEventListener("input", fit);
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || byId("settings").open) return;
  if (running) running.abort();
  else if (editing !== null) cancelEdit();
});
byId("cancel-edit").addEventListener("click", cancelEdit);
byId("clear").addEventListener("click", () => {
  running?.abort();
  messages = [];
  endEdit();
  show();
  store();
  prompt.focus();
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  storeKey(byId("key").value);
  byId("key").value = "";
  ask();
});
byId("forget-key").addEventListener("click", () => {
  forgetKey();
  byId("settings").close();
  ask();
});

setUpSettings();
try {
  messages = JSON.parse(sessionStorage.getItem(kStore) ?? "[]");
} catch {
  sessionStorage.removeItem(kStore);
}
show();
toEnd();
const ask = watch(onState, (error) => {
  if (error.status === 401) askForKey(error);
});
