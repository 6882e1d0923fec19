"use strict";
// The page: controls, what is drawn when, and the table of values under the profile.
function readoutOptions(id, measure) {
  const found = data.columns.filter((each) => each.layered && each.measure === measure).map((each) => each.readout);
  options(id, found.map((readout) => [readout === null ? "" : readout, readout ? titled(readout) : "none"]), true);
}

const layeredIndex = () => columnOf(chosen("measure"), chosen("readout") || null);

function define() {
  for (const id of ["measure", "readout"]) if (byId(id)) byId(id).title = chosen(id);
  if (byId("measure")) byId("definition").textContent = data.definitions[chosen("measure")] || "";
  if (byId("score")) byId("score-definition").textContent = data.definitions[data.columns[Number(chosen("score"))].measure] || "";
}

function valuesTable(column, lines) {
  const task = chosenTask() < 0 ? tasksShown(lines)[0] : data.tasks[chosenTask()];
  const runs = chosenRuns(), steps = runs.map((run) => profileStep(column, run, task));
  const names = [], cells = new Map();
  runs.forEach((run, place) => {
    const at = data.runs[run].steps.indexOf(steps[place]);
    const own = lines.filter((line) => line.run === run && line.task === task);
    for (const line of [...own.filter(isBlock), ...own.filter((each) => !isBlock(each))]) {
      if (!cells.has(nameOf(line))) { names.push(nameOf(line)); cells.set(nameOf(line), runs.map(() => ["–", ""])); }
      cells.get(nameOf(line))[place] = at < 0 ? ["–", ""] : [rounded(line.values[at]) + plusMinus(line, at, rounded), shown(line.values[at]) + plusMinus(line, at)];
    }
  });
  const head = element("tr");
  head.append(element("th", "layer", { scope: "col" }), ...runs.map((run, place) => element("th", data.runs[run].label + (steps[place] === undefined ? ", no floor" : ", step " + steps[place].toLocaleString("en")), { scope: "col", class: "n" })));
  const rows = names.map((name) => {
    const row = element("tr");
    row.append(element("td", name), ...cells.get(name).map(([cell, whole]) => element("td", cell, { class: "n", title: whole })));
    return row;
  });
  byId("values-of").textContent = [taskName(task), titled(column.measure), column.readout && titled(column.readout)].filter(Boolean).join(", ");
  byId("values-head").replaceChildren(head);
  byId("values-body").replaceChildren(...rows);
}

const grouped = new Set(["curves", "heat", "scores"]); // figures with a panel a run
const paired = (lines) => 2 * (runsOf(lines) > 1 && runsOf(lines) < 3 ? runsOf(lines) : 1);
const runsOf = (lines) => new Set(lines.map((line) => line.run).filter((run) => chosenRuns().includes(run))).size;
function showGeometry() {
  if (!byId("measure")) return;
  const index = layeredIndex(), column = data.columns[index], lines = linesOf(index);
  const x = stepAxisShown();
  const drawn = { curves: curves(column, lines), heat: heatMaps(column, lines), profiles: profiles(column, lines) };
  if (explorer.figures.beside) drawn.beside = sideBySide(column, lines);
  for (const [name, panels] of Object.entries(drawn)) explorer.figures[name].show({ panels, x, group: grouped.has(name) ? runsOf(lines) : 1 });
  const pair = sinkPair(column.measure, column.readout);
  document.querySelector(".fold.sinks").hidden = !pair;
  explorer.figures.sinks.show({ panels: pair ? sinkPanels(pair) : [], x, group: paired(lines) });
  valuesTable(column, lines);
  byId("step-shown").textContent = explorer.at === "step" ? "step " + profileStep(column, chosenRuns()[0], null).toLocaleString("en") : "";
}

function showScores() {
  if (!byId("score")) return;
  const index = Number(chosen("score"));
  explorer.figures.scores.show({ panels: scores(index), x: stepAxisShown(), group: runsOf(linesOf(index)) });
}

function showAll() {
  define();
  showGeometry();
  showScores();
  for (const [figure, spec] of explorer.paper) figure.show({ panels: spec.panels, x: stepAxis(spec.steps, true) });
}

function zoomTo(range) {
  for (const figure of Object.values(explorer.figures)) if (figure.figure && figure !== explorer.figures.profiles) figure.setZoom(range);
}

function typedZoom() {
  const { place, layout } = stepAxisShown();
  const [low, high] = ["from", "to"].map((id) => (chosen(id) === "" ? null : Number(chosen(id))));
  zoomTo(low === null && high === null ? null : [low === null ? layout.range[0] : place(low), high === null ? layout.range[1] : place(high)]);
}

function zoomShown(range) {
  const { back } = stepAxisShown();
  byId("from").value = range ? Math.max(0, Math.round(back(range[0]))) : "";
  byId("to").value = range ? Math.max(0, Math.round(back(range[1]))) : "";
}

function makeFigures() {
  for (const name of ["curves", "sinks", "heat", "profiles", "beside", "scores"]) {
    const host = byId("panels-" + name);
    if (!host) continue;
    explorer.figures[name] = new Figure(host, byId("legend-" + name));
    if (name !== "profiles") explorer.figures[name].onZoom = (range) => { zoomShown(range); zoomTo(range); };
  }
  explorer.paper = [...data.summaries, ...data.paper].map((spec) => [new Figure(byId("panels-" + spec.id), byId("legend-" + spec.id)), spec]);
}

function listen() {
  const on = (id, name, act) => byId(id) && byId(id).addEventListener(name, act);
  on("measure", "change", () => { readoutOptions("readout", chosen("measure")); showAll(); });
  for (const id of ["readout", "layers"]) on(id, "change", () => { define(); showGeometry(); });
  for (const id of ["task", "run"]) on(id, "change", showAll);
  on("score", "change", () => { define(); showScores(); });
  on("scale", "change", () => { zoomShown(null); for (const figure of Object.values(explorer.figures)) figure.zoom = null; showAll(); });
  for (const id of ["from", "to"]) on(id, "change", typedZoom);
  on("reset", "click", () => { zoomShown(null); zoomTo(null); });
  on("at", "change", () => { explorer.at = chosen("at"); showGeometry(); });
  on("step", "input", () => { explorer.at = "step"; byId("at").value = "step"; showGeometry(); });
  startPrint(everyFigure, () => { byId("choice").textContent = sayChoice(); });
  window.addEventListener("resize", () => { for (const figure of everyFigure()) figure.arrange(); });
  // what is folded has no width before it is opened
  for (const fold of document.querySelectorAll("details.fold")) fold.addEventListener("toggle", () => { for (const figure of everyFigure()) if (fold.contains(figure.host)) figure.arrange(); });
}

const everyFigure = () => [...Object.values(explorer.figures), ...explorer.paper.map((each) => each[0])];

// What the figures show, in words.
function sayChoice() {
  const said = [];
  for (const id of ["task", "run", "measure", "readout", "layers", "score", "at", "scale"]) {
    const select = byId(id);
    if (!select || select.closest("[hidden]") || select.selectedIndex < 0) continue;
    const name = select.closest("label").firstChild.textContent.trim().toLowerCase();
    said.push(name + " " + select.options[select.selectedIndex].textContent + (id === "at" && chosen("at") === "step" ? " (" + byId("step-shown").textContent + ")" : ""));
  }
  const [low, high] = [chosen("from"), chosen("to")];
  if (low || high) said.push("steps " + (low || "0") + " to " + (high || "the last"));
  return "Shown: " + said.join("; ") + ".";
}

async function start() {
  loadLibrary();
  if (byId("measure")) {
    options("measure", [...new Set(layered().map(([each]) => each.measure))].map((name) => [name, titled(name)]));
    readoutOptions("readout", chosen("measure"));
    const deepest = Math.max(0, ...data.runs.map((run) => run.depth || 0));
    const each = [...Array(deepest).keys()].map((layer) => [layer, "block " + layer]);
    options("layers", [["few", deepest > 6 ? "a few" : "all blocks"], ...(deepest > 6 ? [["all", "all"]] : []), ...each, ["ln", "final LayerNorm"]]);
    byId("step").max = stepsShown(data.runs.map((_, index) => index)).length - 1;
    if (!Object.keys(data.floors).length) { explorer.at = "last"; byId("at").value = "last"; }
  }
  if (byId("score")) options("score", data.columns.flatMap((each, index) => (each.layered ? [] : [[index, [titled(each.measure), each.readout && titled(each.readout)].filter(Boolean).join(", ")]])));
  makeFigures();
  // a narrow screen begins with the curves alone
  if (matchMedia("(max-width: 900px)").matches) for (const fold of document.querySelectorAll("#figures .fold")) fold.open = false;
  byId("task").value = String(data.firstTask);
  byId("controls").hidden = false;
  startTheme(showAll);
  startLink(() => { showAll(); typedZoom(); });
  listen();
  showAll();
  if (chosen("from") || chosen("to")) typedZoom();
  await settle();
}
start();
