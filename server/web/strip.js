// The line below the model's name: what the card is doing, asked for while the page is seen.

import { byId, el } from "./dom.js";
import { getJson } from "./server.js";

const kIdle = 5000;  // ms between questions
const kBusy = 1500;

function parts(state) {
  const list = [];
  const { device, requests, sequences, kv_pages: pages } = state;
  if (device) list.push(device.emulated ? "emulated card" : "card");
  list.push(`${requests.running} running`);
  if (requests.waiting > 0) list.push(`${requests.waiting} waiting`);
  if (sequences.max > 0) list.push(`batch ${sequences.running}/${sequences.max}`);
  if (pages.total > 0) list.push(`KV ${Math.ceil((100 * pages.used) / pages.total)} %`);
  if (state.tokens_per_second > 0) list.push(`${state.tokens_per_second.toFixed(1)} tokens/s`);
  // The sensors of an emulated card measure nothing.
  if (device && !device.emulated) {
    if (device.power_watts != null) list.push(`${device.power_watts.toFixed(0)} W`);
    if (device.temperature_celsius != null) {
      list.push(`${device.temperature_celsius.toFixed(0)} °C`);
    }
  }
  return list;
}

function show(status, list) {
  const dot = el("span", { class: `dot ${status}`, "aria-hidden": "true" });
  byId("strip").replaceChildren(dot, ...[status, ...list].map((part) => el("span", {}, part)));
}

// Calls onState with each state, and onError with what the server said instead. The returned
// function asks at once.
export function watch(onState, onError) {
  let timer = null;
  let asking = false;
  async function ask() {
    clearTimeout(timer);
    if (asking || document.hidden) return;
    asking = true;
    let busy = false;
    try {
      const state = await getJson("/state");
      busy = state.requests.running + state.requests.waiting > 0;
      show(state.status, parts(state));
      byId("strip").title = state.device?.name ?? "";
      onState(state);
    } catch (error) {
      show(error.status === 401 ? "locked" : "unreachable", []);
      onError(error);
    }
    asking = false;
    timer = setTimeout(ask, busy ? kBusy : kIdle);
  }
  document.addEventListener("visibilitychange", ask);
  ask();
  return ask;
}
