"use strict";
const $ = (id) => document.getElementById(id);

// --- elements: all text from results goes in as text, never as html --------------------------------------------------

function make(space, tag, attributes, children) {
  const made = document.createElementNS(space, tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.flat(Infinity).filter(Boolean));
  return made;
}
const el = (tag, attributes, ...children) => make("http://www.w3.org/1999/xhtml", tag, attributes, children);
const svg = (tag, attributes, ...children) => make("http://www.w3.org/2000/svg", tag, attributes, children);

// --- words and numbers -----------------------------------------------------------------------------------------------

const decimal = (x) => (x === null || x === undefined ? "–" : x.toFixed(1));
const range = (pair) => (pair[0] === null || pair[1] === null ? "" : `${decimal(pair[0])} – ${decimal(pair[1])}`);
const whole = (n) => n.toLocaleString("en");
const many = (n, word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;
const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean);
const has = (text, wanted) => wanted.every((word) => text.includes(word));
const ranks = (pair) => (pair ? `rank ${pair[0]}${pair[1] > pair[0] ? ` – ${pair[1]}` : ""}` : "");
const unique = (values) => [...new Set(values)];

const breakable = (name) => name.split(/(?<=[_@])/).flatMap((part, i) => (i ? [el("wbr"), part] : [part]));

// Names that are longer than so many letters without their middle, as far as they stay apart.
function distinct(names, most) {
  const cut = (name, keep) => (name.length <= keep ? name
    : `${name.slice(0, Math.floor(keep / 3))}…${name.slice(name.length - (keep - 1 - Math.floor(keep / 3)))}`);
  for (let keep = most; ; keep += 6) {
    const short = names.map((name) => cut(name, keep));
    if (new Set(short).size === new Set(names).size) return short;
  }
}

function si(x) {  // 1234567 -> 1.23 M
  if (!x) return "0 ";
  const power = Math.max(-3, Math.min(5, Math.floor(Math.log10(Math.abs(x)) / 3 + 1e-9)));
  return `${Number((x / 1000 ** power).toPrecision(3))} ${["n", "µ", "m", "", "k", "M", "G", "T", "P"][power + 3]}`;
}
function plain(value) {
  if (value === null || value === "") return "–";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
function flat(value, name = "") {  // nested settings -> [[a.b, value], ...]
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [[name, value]];
  return Object.entries(value).flatMap(([key, inner]) => flat(inner, name ? `${name}.${key}` : key));
}

// --- scales ----------------------------------------------------------------------------------------------------------

function scale(values, log = false) {  // of numbers: where each lies, 0..1, and round numbers to write there
  const known = values.filter((x) => x !== null && x !== undefined && (!log || x > 0));
  let low = Math.min(...known), high = Math.max(...known);
  if (log) [low, high] = [Math.log10(low), Math.log10(high)];
  const pad = (high - low) * 0.06 || (log ? 0.3 : Math.abs(high) * 0.1 || 1);
  [low, high] = [low - pad, high + pad];
  const at = (x) => ((log ? Math.log10(x) : x) - low) / (high - low);
  return { at, ticks: log ? decades(low, high) : round(low, high) };
}
function round(low, high) {
  const raw = (high - low) / 5, ten = 10 ** Math.floor(Math.log10(raw));
  const step = ten * [1, 2, 5, 10].find((n) => n * ten >= raw);
  const first = Math.ceil(low / step);
  const many = Math.floor(high / step) - first + 1;
  return Array.from({ length: many }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}
function decades(low, high) {
  const wanted = high - low > 2.5 ? [1] : high - low > 1 ? [1, 3] : [1, 2, 3, 5, 7];
  const found = [];
  for (let power = Math.floor(low); power <= high; power++)
    for (const n of wanted) if (Math.log10(n) + power >= low && Math.log10(n) + power <= high)
      found.push(Number(`${n}e${power}`));
  return found;
}
const percent = (share) => `${(100 * share).toFixed(3)}%`;
