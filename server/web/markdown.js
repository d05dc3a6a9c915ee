// A part of Markdown as DOM nodes: what models write. Raw HTML stays text, images become their
// text, and links lead only to http, https and mailto.

import { copyButton, el } from "./dom.js";

const kFence = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const kHeading = /^ {0,3}(#{1,6})\s+(.*)$/;
const kRule = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const kQuote = /^ {0,3}> ?/;
const kItem = /^( *)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const kTableRule = /^ {0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)+\|?\s*$/;
const kDeepest = 8;  // nested lists and quotes; deeper ones are text

// Blocks of lines: each is {kind, lines} and more by its kind. All but the last of a growing text
// stay as they are when more text comes.
function blocksOf(text) {
  const lines = text.split("\n");
  const blocks = [];
  let at = 0;
  const take = (kind, end, more = {}) => {
    blocks.push({ kind, lines: lines.slice(at, end), ...more });
    at = end;
  };
  const while_ = (test, from = at) => {
    let end = from;
    while (end < lines.length && test(lines[end], end)) ++end;
    return end;
  };
  const starts = (line, index) =>
    kFence.test(line) || kHeading.test(line) || kRule.test(line) || kQuote.test(line) ||
    kItem.test(line) || kTableRule.test(lines[index + 1] ?? "");
  while (at < lines.length) {
    const line = lines[at];
    const fence = kFence.exec(line);
    if (line.trim() === "") {
      ++at;
    } else if (fence) {
      const closes = (other) => other.trim().startsWith(fence[1]) &&
        [...other.trim()].every((c) => c === fence[1][0]);
      const end = while_((other) => !closes(other), at + 1);
      const code = lines.slice(at + 1, end);
      take("code", Math.min(end + 1, lines.length), { language: fence[2], code });
    } else if (kHeading.test(line)) {
      take("heading", at + 1);
    } else if (kRule.test(line)) {
      take("rule", at + 1);
    } else if (kQuote.test(line)) {
      take("quote", while_((other) => kQuote.test(other)));
    } else if (kItem.test(line)) {
      // To the first line that is neither an item, nor indented, nor blank before one of these.
      const belongs = (_, index) => {
        while (index < lines.length && lines[index].trim() === "") ++index;
        return kItem.test(lines[index] ?? "") || /^(?: {2}|\t)/.test(lines[index] ?? "");
      };
      take("list", while_(belongs));
    } else if (line.includes("|") && kTableRule.test(lines[at + 1] ?? "")) {
      take("table", while_((other) => other.includes("|")));
    } else {
      take("paragraph", while_((other, i) => other.trim() !== "" && !starts(other, i), at + 1));
    }
  }
  return blocks;
}

function link(label, target) {
  let url = null;
  try {
    url = new URL(target);
  } catch {
    return null;
  }
  if (!["http:", "https:", "mailto:"].includes(url.protocol)) return null;
  return el("a", { href: url.href, target: "_blank", rel: "noopener noreferrer" }, ...inline(label));
}

// Text with code, strong, emphasis, strike-through and links, as nodes. Each kind of mark is
// looked for once over the text, so that hostile text costs no more than its length.
function inline(text) {
  const nodes = [];
  const next = new Map();  // where each mark was last found
  let plain = "";
  let at = 0;
  const push = (node) => {
    if (plain) nodes.push(plain);
    plain = "";
    nodes.push(node);
  };
  const find = (mark, from) => {
    if (!(next.get(mark) >= from)) {
      const found = text.indexOf(mark, from);
      next.set(mark, found < 0 ? Infinity : found);
    }
    return next.get(mark) === Infinity ? -1 : next.get(mark);
  };
  const marked = (mark, tag) => {
    if (!text.startsWith(mark, at) || text[at + mark.length] === mark[0]) return false;
    const begin = at + mark.length;
    const end = find(mark, begin + 1);
    // 2 * 3 and snake_case are no marks.
    if (end < 0 || /\s/.test(text[begin]) || /[\s\\]/.test(text[end - 1])) return false;
    if (mark[0] === "_" && /\w/.test((text[at - 1] ?? "") + (text[end + mark.length] ?? ""))) {
      return false;
    }
    push(el(tag, {}, ...inline(text.slice(begin, end))));
    at = end + mark.length;
    return true;
  };
  while (at < text.length) {
    const c = text[at];
    if (c === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
      continue;
    }
    if (c === "`") {
      const mark = /^`+/.exec(text.slice(at, at + 64))[0];
      const end = find(mark, at + mark.length);
      if (end > 0) {
        const code = text.slice(at + mark.length, end);
        push(el("code", {}, code.length > 2 ? code.replace(/^ (.*) $/, "$1") : code));
        at = end + mark.length;
        continue;
      }
      plain += mark;
      at += mark.length;
      continue;
    }
    if (c === "[") {
      const middle = find("](", at);
      const end = middle < 0 ? -1 : find(")", middle);
      const node =
        end > 0 && end - at < 4000 ? link(text.slice(at + 1, middle), text.slice(middle + 2, end)) : null;
      if (node) {
        push(node);
        at = end + 1;
        continue;
      }
    }
    if (marked("**", "strong") || marked("__", "strong") || marked("~~", "del") ||
        marked("*", "em") || marked("_", "em")) {
      continue;
    }
    do {
      plain += c;
      ++at;
    } while (text[at] === c && "*_~".includes(c));
  }
  if (plain) nodes.push(plain);
  return nodes;
}

// Lines of running text; two spaces at a line's end break it.
function prose(lines) {
  const nodes = [];
  lines.forEach((line, index) => {
    if (index > 0) nodes.push(/( {2,}|\\)$/.test(lines[index - 1]) ? el("br") : "\n");
    nodes.push(...inline(line.replace(/( {2,}|\\)$/, "").trimStart()));
  });
  return nodes;
}

function list(lines, depth) {
  const first = kItem.exec(lines[0]);
  const ordered = /\d/.test(first[2]);
  const node = el(ordered ? "ol" : "ul", ordered ? { start: parseInt(first[2], 10) } : {});
  const indent = first[1].length;
  const items = [];
  for (const line of lines) {
    const item = kItem.exec(line);
    if (item && item[1].length < indent + 2) items.push([item[3]]);
    else items.at(-1).push(line.replace(/^( {1,4}|\t)/, ""));
  }
  for (const item of items) {
    const blocks = blocksOf(item.join("\n"));
    const only = blocks[0]?.kind === "paragraph" ? blocks.shift() : null;
    node.append(el("li", {}, ...(only ? prose(only.lines) : []),
                   ...blocks.map((block) => nodeOf(block, depth + 1))));
  }
  return node;
}

function cells(line) {
  return line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1").split(/(?<!\\)\|/)
    .map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function table([head, , ...rows]) {
  const row = (line, tag) => el("tr", {}, ...cells(line).map((cell) => el(tag, {}, ...inline(cell))));
  return el("div", { class: "wide", tabindex: "0" }, el("table", {},
    el("thead", {}, row(head, "th")), el("tbody", {}, ...rows.map((line) => row(line, "td")))));
}

function nodeOf(block, depth) {
  const { kind, lines } = block;
  if (depth > kDeepest) return el("p", {}, lines.join("\n"));
  switch (kind) {
    case "code": {
      const text = block.code.join("\n");
      const bar = el("div", { class: "code-bar" }, el("span", {}, block.language), copyButton(() => text));
      return el("div", { class: "code" }, bar, el("pre", { tabindex: "0" }, el("code", {}, text)));
    }
    case "heading": {
      const [, marks, text] = kHeading.exec(lines[0]);
      return el(`h${Math.min(marks.length + 2, 6)}`, {}, ...inline(text.trimEnd().replace(/ #{1,6}$/, "")));
    }
    case "rule":
      return el("hr");
    case "quote": {
      const inner = lines.map((line) => line.replace(kQuote, "")).join("\n");
      return el("blockquote", {}, ...blocksOf(inner).map((part) => nodeOf(part, depth + 1)));
    }
    case "list":
      return list(lines, depth);
    case "table":
      return table(lines);
    default:
      return el("p", {}, ...prose(lines));
  }
}

const sources = new WeakMap();  // of the nodes that render() made

// Shows `text` in `element`. Called again as the text grows it makes only what has changed anew.
export function render(element, text) {
  const blocks = blocksOf(text);
  blocks.forEach((block, index) => {
    const source = block.lines.join("\n");
    const old = element.children[index];
    if (old && sources.get(old) === source) return;
    const node = nodeOf(block, 0);
    sources.set(node, source);
    if (old) old.replaceWith(node);
    else element.append(node);
  });
  while (element.children.length > blocks.length) element.lastChild.remove();
}
