"use strict";
// What the page holds: its data, and columns of numbers that are unpacked when they are first asked for.
// Every text in it may come from a stranger: it becomes page text by textContent, and label text by label().
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

function inflate(id) {
  const text = atob(byId(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return inflated(bytes);
}

// Five planes of bytes: the decimals m * 10**e, m of 24 bits and e of 16 (packing.py). Dividing by a power of ten that
// is exact gives the number nearest to the decimal, as reading its text would.
function decimals(planes) {
  const count = planes.length / 5, values = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const m = ((planes[i] | (planes[count + i] << 8) | (planes[2 * count + i] << 16)) << 8) >> 8;
    const e = ((planes[3 * count + i] | (planes[4 * count + i] << 8)) << 16) >> 16;
    values[i] = m === -8388608 ? NaN : e < 0 && e >= -22 ? m / 10 ** -e : Number(m + "e" + e);
  }
  return values;
}

const unpacked = new Map();
// A column's lines, each with its run, its place and its values by checkpoint of its run.
function linesOf(index) {
  if (!unpacked.has(index)) {
    const column = data.columns[index];
    const places = typeof column.lines === "number" ? data.columns[column.lines].lines : column.lines;
    const values = decimals(inflate("column-" + index));
    const levels = new Set(places.map((place) => place[2]));
    let at = 0, half = values.length / 2;
    unpacked.set(index, places.map(([run, task, level, layer, site]) => {
      const steps = data.runs[run].steps.length;
      at += steps;
      const errors = column.errors ? values.subarray(half + at - steps, half + at) : null;
      return { run, task, level, layer, site, levelled: levels.size > 1, values: values.subarray(at - steps, at), errors };
    }));
  }
  return unpacked.get(index);
}

const columnOf = (measure, readout) => data.columns.findIndex((each) => each.measure === measure && each.readout === readout);
const blockOf = (line) => line.site === "ln_final.hook_out" ? "final LayerNorm" : "block " + line.layer;
const isBlock = (line) => line.layer !== null && line.site !== "ln_final.hook_out";
const depthOf = (run) => data.runs[run].depth;
const taskName = (task) => task === null ? "no task" : task;
// names for people; what nobody named stands as it is
const titled = (name) => data.names[name] || name;
const axisTitle = (measure) => data.titles[measure] || titled(measure);
// a number to five significant digits, as the page holds it; and for people, as its tables round it (words.py)
const shown = (value) => Number.isNaN(value) ? "–" : String(Number(value.toPrecision(5)));
const rounded = (value) => {
  if (Number.isNaN(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) >= 0.1 ? value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 }) : String(Number(value.toPrecision(2)));
};
// what a value's standard error adds to it, in words
const plusMinus = (line, at, write = shown) => (line.errors && !Number.isNaN(line.errors[at]) ? " ± " + write(line.errors[at]) : "");
const shortStep = (step) => (step >= 1e6 ? step / 1e6 + "M" : step >= 1e3 ? step / 1e3 + "K" : String(step));

function label(text, length = 60) {
  const flat = String(text).replace(/\s+/g, " ").trim();
  const cut = flat.length <= length ? flat : flat.slice(0, length - 1) + "…";
  return cut.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== null && text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
