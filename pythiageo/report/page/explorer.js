"use strict";
// The explorer: what the controls choose becomes panels of curves, heat maps, layer profiles, scores and runs side by side.
const explorer = { figures: {}, at: "floor" };
const chosen = (id) => byId(id).value;
const chosenTask = () => Number(chosen("task"));
const chosenRuns = () => data.runs.map((_, index) => index).filter((index) => chosen("run") === "-1" || Number(chosen("run")) === index);
const panelTitle = (task, run) => (data.runs.length > 1 ? taskName(task) + " · " + data.runs[run].label : taskName(task));
const layered = () => data.columns.map((each, index) => [each, index]).filter(([each]) => each.layered);
const anyValue = (lines) => lines.some((line) => line.values.some((value) => !Number.isNaN(value)));

function options(id, entries, keep) {
  const select = byId(id), before = select.value;
  select.replaceChildren(...entries.map(([value, text]) => element("option", text, { value, title: value })));
  if (keep && entries.some(([value]) => String(value) === before)) select.value = before;
}

function stepsShown(runs) {
  const steps = new Set();
  for (const run of runs) for (const step of data.runs[run].steps) steps.add(step);
  return [...steps].sort((a, b) => a - b);
}

const stepAxisShown = () => stepAxis(stepsShown(chosenRuns()), chosen("scale") === "log");
const tasksShown = (lines) => {
  const found = [...new Set(lines.map((line) => line.task))];
  const wanted = data.tasks[chosenTask()];
  return chosenTask() < 0 ? found : found.filter((task) => task === wanted);
};

// Why there is nothing to draw, in the table's own words.
function lackOf(column, run, task) {
  const said = column && column.why.find(([number, name]) => number === run && name === task);
  return said ? said[2] : "this run has no such observation" + (column ? ": " + titled(column.measure) + (column.readout ? ", " + titled(column.readout) : "") : "");
}

// A few layers are told apart at a glance; all of them are one choice away.
function layersKept(run) {
  const depth = depthOf(run), choice = chosen("layers");
  if (choice === "all" || depth === null) return () => true;
  if (choice === "ln") return (line) => line.site === "ln_final.hook_out";
  if (choice !== "few") return (line) => isBlock(line) && line.layer === Number(choice);
  const kept = new Set(depth <= 6 ? [...Array(depth).keys()] : [0, 1, 2, 3, 4].map((each) => Math.round((each * (depth - 1)) / 4)));
  return (line) => line.site === "ln_final.hook_out" || line.layer === null || kept.has(line.layer);
}

function layerColour(line) {
  if (line.site === "ln_final.hook_out") return "final";
  const depth = depthOf(line.run);
  return "depth-" + (depth > 1 ? line.layer / (depth - 1) : 1);
}

// Runs of different depth share a shade where they are equally deep, so the legend says of how many blocks each is one.
const depthNote = (line) => (isBlock(line) && new Set(chosenRuns().map(depthOf)).size > 1 ? " of " + depthOf(line.run) : "");
const siteNote = (line) => (!line.site || line.site === "ln_final.hook_out" || line.site.endsWith(".hook_resid_post") ? "" : " " + line.site.replace(/^blocks\.\d+\./, ""));
const nameOf = (line) => (line.layer === null ? line.level || line.site || "whole" : blockOf(line) + (line.levelled && line.level ? " " + line.level : "")) + siteNote(line);
const curve = (line, hue, name, dash) => ({ name, x: data.runs[line.run].steps, y: line.values, colour: hue, dash, errors: line.errors });

// The smallest and the greatest value of lines.
function extentOf(lines) {
  let low = Infinity, high = -Infinity;
  for (const line of lines) for (const value of line.values) if (!Number.isNaN(value)) { low = Math.min(low, value); high = Math.max(high, value); }
  return [low, high];
}

// One range for all panels of a task, so that runs can be compared by eye.
function commonRange(lines, fromZero) {
  const [low, high] = extentOf(lines);
  if (low > high) return undefined;
  if (fromZero && low >= 0) return [0, high * 1.06 || 1];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.06 || 1;
  return [low - room, high + room];
}

function byTaskAndRun(column, lines, make) {
  const panels = [], measured = chosenRuns().filter((run) => lines.some((line) => line.run === run));
  for (const task of tasksShown(lines)) {
    const here = lines.filter((line) => line.task === task);
    const range = commonRange(here, true);
    for (const run of measured) {
      const own = here.filter((line) => line.run === run);
      const title = panelTitle(task, run);
      if (!anyValue(own)) panels.push({ title, lack: lackOf(column, run, task), x: { kind: "step" }, y: { kind: "linear" } });
      else panels.push(...make(own, run, task, title, range));
    }
  }
  // a run without any of it says so once, not in a panel a task
  for (const run of chosenRuns()) {
    if (!measured.includes(run)) panels.push({ title: data.runs[run].label, lack: lackOf(column, run, undefined), x: { kind: "step" }, y: { kind: "linear" } });
  }
  return panels;
}

function curves(column, lines) {
  return byTaskAndRun(column, lines, (own, run, task, title, range) => [layerCurves(column, own, run, title, range)]);
}

function layerCurves(column, own, run, title, range) {
  const kept = own.filter(layersKept(run));
  const drawn = kept.map((line) => ({ ...curve(line, layerColour(line), nameOf(line), line.site === "ln_final.hook_out" ? "dash" : "solid"), legend: nameOf(line) + depthNote(line) }));
  const lack = anyValue(kept) ? undefined : "this run has no such layer";
  return { title, lack, lines: drawn, x: { kind: "step", title: "training step" }, y: { kind: "linear", title: axisTitle(column.measure), range } };
}

// The readout of the same positions with sinks and without, where the page has both: [with, without].
const butSinks = "-but-sinks";
function sinkPair(measure, readout) {
  const [positions, ...rest] = (readout || "").split("/"), plain = positions.replace(butSinks, "");
  const pair = [plain, plain + butSinks].map((each) => columnOf(measure, [each, ...rest].join("/")));
  return pair.includes(-1) ? null : pair;
}

function sinkPanels(pair) {
  const column = data.columns[pair[0]], [whole, spared] = pair.map(linesOf);
  return byTaskAndRun(column, whole, (own, run, task, title) => {
    const others = spared.filter((line) => line.run === run && line.task === task);
    const range = commonRange([...own, ...others].filter(layersKept(run)), true);
    return [[own, "with sinks"], [others, "without sinks"]].map(([some, said], which) => {
      const panel = layerCurves(column, some, run, title + ", " + said, range);
      return anyValue(some) ? panel : { ...panel, lack: lackOf(data.columns[pair[which]], run, task) };
    });
  });
}

function heatMaps(column, lines) {
  return byTaskAndRun(column, lines, (own, run, task, title) => {
    const ordered = [...own.filter(isBlock).sort((a, b) => a.layer - b.layer), ...own.filter((line) => !isBlock(line))];
    const names = ordered.map((line) => (isBlock(line) ? String(line.layer) + (line.levelled && line.level ? " " + line.level : "") + siteNote(line) : line.site === "ln_final.hook_out" ? "LN" : nameOf(line)));
    const z = ordered.map((line) => Array.from(line.values, (value) => (Number.isNaN(value) ? null : value)));
    const every = Math.ceil(names.length / 9);
    const axis = { kind: "names", names: names.map((name, i) => (i % every === 0 || name === "LN" ? name : "")), title: "block" };
    const [low, high] = extentOf(lines.filter((line) => line.task === task));
    return [{ title, cells: { x: data.runs[run].steps, y: ordered.map(nameOf), z, title, low, high, scale: axisTitle(column.measure) }, x: { kind: "step", title: "training step" }, y: axis }];
  });
}

// The step of a profile: the floor of this very measure and readout where one was found, else what the reader chose.
function profileStep(column, run, task) {
  const steps = data.runs[run].steps;
  if (explorer.at === "floor") return data.floors[[column.measure, column.readout, run, task].join("|")];
  if (explorer.at === "first") return steps[0];
  if (explorer.at === "last") return steps[steps.length - 1];
  return stepsShown(chosenRuns())[Number(chosen("step"))];
}

function profiles(column, lines) {
  return tasksShown(lines).map((task) => {
    const drawn = [];
    for (const run of chosenRuns()) {
      const step = profileStep(column, run, task), at = data.runs[run].steps.indexOf(step);
      if (at < 0) continue;
      const own = lines.filter((line) => line.run === run && line.task === task && !Number.isNaN(line.values[at]));
      const name = (data.runs.length > 1 ? data.runs[run].label + ", " : "") + "step " + step.toLocaleString("en");
      const legend = data.runs[run].label, depth = Math.max((depthOf(run) || 1) - 1, 1);
      const blocks = own.filter((line) => isBlock(line) && !siteNote(line)).sort((a, b) => a.layer - b.layer);
      const final = own.filter((line) => line.site === "ln_final.hook_out");
      const marks = (which, x) => ({ name, legend, x, y: which.map((line) => line.values[at]), colour: "category-" + run, text: which.map((line) => nameOf(line) + plusMinus(line, at)) });
      if (blocks.length) drawn.push(marks(blocks, blocks.map((line) => line.layer / depth)));
      if (final.length) drawn.push({ ...marks(final, [1.12]), mode: "markers", symbol: "diamond" });
    }
    const floorless = data.ranks.includes(column.measure) ? "no floor was found in the runs' checkpoints (see the tables of floors)" : "a floor is defined for rank measures; choose a step";
    const lack = drawn.length ? undefined : explorer.at === "floor" ? floorless : "there is no value at this step";
    const high = Math.max(0, ...drawn.flatMap((line) => Array.from(line.y)));
    return { title: taskName(task), lack, lines: drawn, x: { kind: "linear", title: "relative depth (◆ final LayerNorm)", range: [-0.06, 1.2] }, y: { kind: "linear", title: axisTitle(column.measure), range: high > 0 ? [0, high * 1.06] : undefined } };
  });
}

function sideBySide(column, lines) {
  return tasksShown(lines).map((task) => {
    const own = lines.filter((line) => line.task === task && isBlock(line) && !siteNote(line) && line.layer === depthOf(line.run) - 1 && anyValue([line]));
    const drawn = own.map((line) => curve(line, "category-" + line.run, data.runs[line.run].label));
    return { title: taskName(task), lack: drawn.length ? undefined : "no run has a value at its last block", lines: drawn, x: { kind: "step", title: "training step" }, y: { kind: "linear", title: axisTitle(column.measure), range: commonRange(own, true) } };
  });
}

function scores(index) {
  const column = data.columns[index], lines = linesOf(index);
  const guesses = [];
  if (column.measure === "accuracy") for (const name of ["chance_accuracy", "majority_rate"]) {
    const at = columnOf(name, null);
    if (at >= 0) guesses.push(...linesOf(at));
  }
  const levels = [...new Set(lines.map((line) => line.level))].sort();
  const hue = (line) => "category-" + levels.indexOf(line.level);
  return byTaskAndRun(column, lines, (own, run, task, title, range) => {
    const drawn = own.map((line) => curve(line, hue(line), nameOf(line)));
    for (const line of own) {
      const same = guesses.filter((each) => each.run === run && each.task === task && each.level === line.level);
      if (!same.length) continue;
      const values = line.values.map((_, i) => same.reduce((high, each) => (Number.isNaN(each.values[i]) ? high : Number.isNaN(high) ? each.values[i] : Math.max(high, each.values[i])), NaN));
      drawn.push({ ...curve({ ...line, values, errors: null }, hue(line), (line.level || "") + " chance", "dot"), legend: "chance, in the level's colour" });
    }
    const axis = { kind: "linear", title: axisTitle(column.measure), range: column.measure.startsWith("accuracy") || column.measure === "linear_probe" ? [-0.03, 1.03] : range };
    return [{ title, lines: drawn, x: { kind: "step", title: "training step" }, y: axis }];
  });
}
