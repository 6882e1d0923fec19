"use strict";
// A panel as a file of its own: a picture with its legend, or the numbers that it shows.
const slug = (text) => String(text).replace(/[^A-Za-z0-9.]+/g, "-").replace(/^-|-$/g, "").slice(0, 80) || "panel";

function savePanel(figure, panel, format) {
  const name = slug([figure.host.id.replace("panels-", ""), panel.spec.title, panel.spec.y.title].filter(Boolean).join(" "));
  if (format === "CSV") return saveText(name + ".csv", panelTable(panel.spec));
  const { traces, layout } = figure.build(panel.spec, panel.plot);
  // a picture leaves the page, its ground and the legend above the panels: it takes them along
  const ground = { paper_bgcolor: cssColour("--bg"), plot_bgcolor: cssColour("--bg") };
  const size = { width: 720, height: panel.spec.cells ? Math.max(440, panel.plot.clientHeight) : 440 };
  const named = { showlegend: traces.filter((trace) => trace.showlegend !== false).length > 1, legend: { orientation: "h", yanchor: "bottom", y: 1.02, x: 0 } };
  const margin = { ...layout.margin, t: 30, b: 56, l: Math.max(64, layout.margin.l) };
  return Plotly.downloadImage({ data: traces, layout: { ...layout, ...ground, ...size, ...named, margin } }, { format: format.toLowerCase(), filename: name, ...size, scale: format === "PNG" ? 3 : 1 });
}

// A spreadsheet takes a text that begins so for a formula; numbers are written as they are.
function csvCell(value) {
  if (value === null || value === undefined || (typeof value === "number" && Number.isNaN(value))) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? "'" + value : String(value);
  return /[",\n\r]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
}

function panelTable(spec) {
  const x = spec.x.kind === "step" ? "step" : spec.x.title || "x", y = spec.y.title || "value";
  const at = (place) => (spec.x.kind === "names" ? spec.x.names[Math.round(place)] : place);
  const rows = [["line", x, y, "low", "high"]];
  for (const line of spec.lines || []) Array.from(line.x).forEach((place, i) => {
    const error = line.errors ? line.errors[i] : NaN, value = line.y[i];
    const ends = line.low ? [line.low[i], line.high[i]] : Number.isNaN(error) ? [null, null] : [value - error, value + error];
    rows.push([line.name, at(place), value, ...ends]);
  });
  if (spec.cells) spec.cells.y.forEach((name, j) => Array.from(spec.cells.x).forEach((place, i) => rows.push([name, at(place), spec.cells.z[j][i], null, null])));
  return rows.map((row) => row.map(csvCell).join(",") + "\r\n").join("");
}

function saveText(name, text) {
  const link = element("a", null, { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
