// The settings form. What is left empty is not sent, so that the model's own default holds.

import { byId } from "./dom.js";

const kStore = "flexllm-settings";
const kNumbers = ["temperature", "top_p", "top_k", "min_p", "max_tokens", "seed"];

export function setUpSettings() {
  const form = byId("settings-form");
  const dialog = byId("settings");
  try {
    const stored = JSON.parse(localStorage.getItem(kStore) ?? "{}");
    for (const [name, value] of Object.entries(stored)) {
      if (form.elements[name]) form.elements[name].value = value;
    }
  } catch {
    localStorage.removeItem(kStore);
  }
  const store = () =>
    localStorage.setItem(kStore, JSON.stringify(Object.fromEntries(new FormData(form))));
  form.addEventListener("input", store);
  byId("open-settings").addEventListener("click", () => dialog.showModal());
  byId("reset-settings").addEventListener("click", () => {
    form.reset();
    store();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();  // beside the sheet
  });
}

export const systemPrompt = () => byId("settings-form").elements.system.value.trim();

// The fields of a request.
export function sampling() {
  const { elements } = byId("settings-form");
  const fields = {};
  for (const name of kNumbers) {
    if (elements[name].value !== "") fields[name] = elements[name].valueAsNumber;
  }
  const stop = elements.stop.value.split("\n").filter((line) => line !== "");
  if (stop.length > 0) fields.stop = stop;
  return fields;
}
