"use strict";
// Light and dark: the system's choice until the reader makes another. Colours are told apart under the common kinds of
// colour blindness (Okabe and Ito), and depth is also an order of lightness.
const palettes = {
  light: { categories: ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1d2126"], final: "#B4430C", grey: "#767676", ink: "#1d2126",
    depth: [[0x9d, 0xbf, 0xdb], [0x5b, 0x98, 0xc6], [0x2b, 0x6e, 0xa6], [0x0b, 0x2f, 0x5e]] },
  dark: { categories: ["#56B4E9", "#E69F00", "#2fc79a", "#e3a0c5", "#f0e442", "#e8743b", "#e8ebee"], final: "#ff9b63", grey: "#98a1aa", ink: "#e8ebee",
    depth: [[0x4a, 0x78, 0xa6], [0x5a, 0x9b, 0xd4], [0x93, 0xc5, 0xec], [0xe6, 0xf3, 0xfd]] },
};
const theme = { chosen: "auto", system: matchMedia("(prefers-color-scheme: dark)"), onPaper: false, changed: () => {} };
const isDark = () => !theme.onPaper && (theme.chosen === "dark" || (theme.chosen === "auto" && theme.system.matches));
const cssColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// "category-3", "depth-0.5", "final", "grey"
function colour(name) {
  const palette = isDark() ? palettes.dark : palettes.light;
  const [kind, number] = name.split(/-(.*)/);
  if (kind === "category") return palette.categories[Number(number) % palette.categories.length];
  if (kind !== "depth") return palette[kind];
  const position = Number(number) * (palette.depth.length - 1);
  const low = Math.min(Math.floor(position), palette.depth.length - 2), share = position - low;
  const mixed = palette.depth[low].map((each, i) => Math.round(each + share * (palette.depth[low + 1][i] - each)));
  return "rgb(" + mixed.join(",") + ")";
}
// cividis: an order of lightness too, the same in both
const heat = [[0, "#00224e"], [0.25, "#434e6c"], [0.5, "#7d7c78"], [0.75, "#bbaf71"], [1, "#fee838"]];

function showTheme() {
  const shown = theme.onPaper ? "light" : theme.chosen;
  if (shown === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = shown;
}

function setTheme(name) {
  theme.chosen = name;
  showTheme();
  try { localStorage.setItem("pythiageo-theme", name); } catch { /* a browser may keep nothing for files */ }
  theme.changed();
}

function startTheme(changed) {
  const select = byId("theme");
  let kept = null;
  try { kept = localStorage.getItem("pythiageo-theme"); } catch { /* as above */ }
  if (kept === "light" || kept === "dark") { select.value = kept; setTheme(kept); }
  theme.changed = changed;
  theme.system.addEventListener("change", () => theme.changed());
  select.addEventListener("change", () => setTheme(select.value));
}
