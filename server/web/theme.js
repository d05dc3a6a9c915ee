// The theme: the system's, until the button is used. Runs before the page is shown, so that it does
// not flash in the wrong one.
"use strict";

(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => localStorage.getItem("theme");
  const dark = () => (stored() ? stored() === "dark" : system.matches);

  function apply() {
    root.dataset.theme = dark() ? "dark" : "light";
    for (const button of document.querySelectorAll("button.theme")) {
      button.textContent = dark() ? "Light" : "Dark";
      button.setAttribute("aria-label", dark() ? "Light theme" : "Dark theme");
    }
  }

  apply();
  system.addEventListener("change", apply);
  addEventListener("storage", apply);
  addEventListener("DOMContentLoaded", () => {
    apply();
    for (const button of document.querySelectorAll("button.theme")) {
      button.addEventListener("click", () => {
        const wanted = dark() ? "light" : "dark";
        if ((wanted === "dark") === system.matches) localStorage.removeItem("theme");
        else localStorage.setItem("theme", wanted);
        apply();
      });
    }
  });
})();
