// Building nodes. Text only ever becomes text nodes: nothing here parses HTML.

// An element with these attributes (`onclick` and the like are listeners; false and null are left
// out) and these children, nodes or strings.
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export const byId = (id) => document.getElementById(id);

// A button that copies text() and says so.
export function copyButton(text, label = "Copy") {
  const button = el("button", { type: "button", class: "copy" }, label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";  // browsers want HTTPS or localhost for this
    }
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}
