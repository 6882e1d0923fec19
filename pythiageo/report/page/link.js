"use strict";
// The page's address keeps what was chosen, by name: #task=MOD&measure=rankme. A link to a section is left alone.
const kept = ["task", "run", "measure", "readout", "layers", "scale", "at", "score", "from", "to"];
// names in the table, not those for people: a link outlives wording
const nameOfOption = (option) => (["measure", "readout"].includes(option.parentNode.id) ? option.value : option.textContent);
const textOf = (select) => (select.selectedIndex < 0 ? "" : nameOfOption(select.options[select.selectedIndex]));
const defaults = new Map();

function currentChoice() {
  const choice = new Map();
  for (const id of kept) {
    const control = byId(id);
    if (control) choice.set(id, control.tagName === "SELECT" ? textOf(control) : control.value);
  }
  if (explorer.at === "step" && byId("step")) choice.set("step", String(stepsShown(chosenRuns())[Number(chosen("step"))]));
  return choice;
}

// Only what differs from how the page opens stands in the address.
function keepChoice() {
  const found = new URLSearchParams();
  for (const [id, value] of currentChoice()) if (value !== (defaults.get(id) || "")) found.set(id, value);
  const hash = "#" + (found.toString() || "choice=first");
  byId("link").href = hash;
  history.replaceState(null, "", hash);
}

// Take the choice from the address; what this page does not have is passed over.
function takeChoice() {
  if (!location.hash.includes("=")) return false;
  const found = new URLSearchParams(location.hash.slice(1));
  for (const id of kept) {
    const control = byId(id);
    if (!control) continue;
    if (id === "readout") readoutOptions("readout", chosen("measure"));
    for (const wanted of [defaults.get(id), found.get(id)]) {
      if (control.tagName !== "SELECT") control.value = wanted || "";
      else for (const option of control.options) if (nameOfOption(option) === wanted) control.value = option.value;
    }
  }
  if (byId("at")) explorer.at = chosen("at");
  if (found.has("step")) byId("step").value = Math.max(0, stepsShown(chosenRuns()).indexOf(Number(found.get("step"))));
  return true;
}

function startLink(changed) {
  for (const [id, value] of currentChoice()) defaults.set(id, value);
  takeChoice();
  byId("controls").addEventListener("change", keepChoice);
  for (const id of ["at", "step", "score"]) if (byId(id)) byId(id).addEventListener("change", keepChoice);
  byId("reset").addEventListener("click", keepChoice);
  window.addEventListener("hashchange", () => { if (takeChoice()) changed(); });
}
