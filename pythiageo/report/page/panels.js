"use strict";
// Panels: small plots of one figure, drawn when they come into view, zoomed together, toggled by the figure's legend.
//
// A figure is {panels, x, hidden?}; a panel {title, lack?, lines?, cells?, x, y}. x and y are axes: {kind: "step" | "linear" |
// "log" | "names", title, range?, names?, ticks?}. A line is {name, x, y, colour, dash?, mode?, low?, high?, band?, right?, text?}.
const symbols = { square: "square", triangle: "triangle-up", diamond: "diamond", x: "x" };

function loadLibrary() {
  const library = document.createElement("script");
  library.textContent = new TextDecoder().decode(inflate("plotly"));
  document.head.append(library);
}

// Panels in view are drawn within the next frames; then the page says so.
async function settle() {
  for (let frame = 0; frame < 3; frame++) await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  document.documentElement.dataset.drawn = Math.round(performance.now());
}

const margins = { t: 8, b: 40, l: 54, r: 10 };
const titleRoom = 14; // a name and, below it, a unit
const onTwoLines = (text) => text.replace(/ \(([^()]*)\)$/, "<br>($1)");
const fontFamily = '"Source Sans 3", "Segoe UI", "Helvetica Neue", Arial, sans-serif';

// Logarithmic from the first measured step on; step 0 keeps a place of its own, as the axis' zero.
function stepAxis(steps, logarithmic) {
  const last = Math.max(0, ...steps), positive = steps.filter((step) => step > 0);
  const unit = positive.length ? Math.min(...positive) : 1;
  if (!logarithmic) {
    return { place: (x) => x, back: (x) => x, layout: { range: [-last * 0.02, last * 1.03 || 1], tickformat: "~s", nticks: 5 } };
  }
  const place = (step) => Math.log10(1 + step / unit), back = (x) => (10 ** x - 1) * unit;
  const ticks = [0];
  for (let power = 1; power <= last; power *= 10) if (power >= unit) ticks.push(power);
  if (ticks.length < 3 && last > 0) ticks.push(last);
  const every = Math.ceil(ticks.length / 6);
  const kept = ticks.filter((_, index) => index === 0 || (ticks.length - 1 - index) % every === 0);
  const end = place(last) || 1;
  // every checkpoint has a tick: where they are far apart a straight line says nothing of what lies between
  const minor = { tickmode: "array", tickvals: steps.map(place), ticks: "outside", ticklen: 2, tickwidth: 0.5 };
  return { place, back, layout: { range: [-0.03 * end, 1.04 * end], tickangle: 0, tickvals: kept.map(place), ticktext: kept.map(shortStep), minor } };
}

function axisLayout(axis) {
  if (axis.kind === "names") {
    return { tickvals: axis.names.map((_, i) => i), ticktext: axis.names.map((name) => label(name, 30)), range: [-0.5, axis.names.length - 0.5] };
  }
  const range = axis.range || undefined;
  if (axis.ticks) return { range, tickvals: axis.ticks.map((tick) => tick[0]), ticktext: axis.ticks.map((tick) => label(tick[1], 30)) };
  return axis.kind === "log" ? { type: "log", range: range && range.map(Math.log10), dtick: 1 } : { range, nticks: 5 };
}

// room for the longest name, as far as the panel has it
const nameRoom = (axis) => Math.min(190, 26 + (axis.title ? 16 : 0) + 6.1 * Math.max(...axis.names.map((name) => Math.min(30, name.length))));

class Figure {
  constructor(host, legend) {
    this.host = host;
    this.legend = legend;
    this.hidden = new Set();
    this.zoom = null;
    this.panels = [];
    this.observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const panel = this.panels[Number(entry.target.dataset.index)];
        if (panel) { panel.visible = entry.isIntersecting; if (panel.visible && panel.dirty) this.draw(panel); }
      }
    }, { rootMargin: "300px 0px" });
  }

  // Show other panels; those that stay in number keep their places, so that the page does not jump.
  show(figure) {
    this.figure = figure;
    this.arrange();
    const wanted = figure.panels.length;
    while (this.panels.length > wanted) this.remove(this.panels.pop());
    while (this.panels.length < wanted) this.add();
    figure.panels.forEach((spec, index) => {
      const panel = this.panels[index];
      panel.spec = spec;
      panel.dirty = true;
      panel.title.textContent = spec.title;
      panel.save.hidden = Boolean(spec.lack);
      for (const button of panel.save.children) button.setAttribute("aria-label", "Save " + (spec.title || "the panel") + " as " + button.textContent);
      panel.box.setAttribute("aria-label", spec.title + (spec.lack ? ": nothing to draw: " + spec.lack : ""));
      if (panel.visible || spec.lack) this.draw(panel);
    });
    this.showLegend();
  }

  // A row holds whole tasks, so that runs stand below one another.
  arrange() {
    const fit = this.host.clientWidth / 255, group = (this.figure && this.figure.group) || 1;
    this.host.style.gridTemplateColumns = group > 1 && group <= fit ? "repeat(" + Math.floor(fit / group) * group + ", minmax(0, 1fr))" : "";
  }

  add() {
    const box = element("div", null, { class: "panel", role: "group", "data-index": this.panels.length });
    const title = element("h4"), plot = element("div", null, { class: "plot" }), save = element("div", null, { class: "save" });
    const panel = { box, title, plot, save, spec: null, dirty: true, visible: false };
    save.append(...["PNG", "SVG", "CSV"].map((format) => {
      const button = element("button", format, { type: "button" });
      button.addEventListener("click", () => savePanel(this, panel, format));
      return button;
    }));
    box.append(title, save, plot);
    this.host.append(box);
    this.panels.push(panel);
    this.observer.observe(box);
  }

  remove(panel) {
    this.observer.unobserve(panel.box);
    if (panel.drawn) Plotly.purge(panel.plot);
    panel.box.remove();
  }

  showLegend() {
    if (!this.legend) return;
    const entries = new Map();
    for (const panel of this.figure.panels) for (const line of panel.lines || []) {
      if (line.legend !== false && !entries.has(line.legend || line.name)) entries.set(line.legend || line.name, line);
    }
    this.legend.replaceChildren(...[...entries].map(([name, line]) => {
      const button = element("button", null, { type: "button", "aria-pressed": String(!this.hidden.has(name)), title: "show or hide" });
      const mark = element("span", null, { class: "mark " + (line.mode === "markers" ? "dots" : line.dash || "solid"), "aria-hidden": "true" });
      mark.style.borderColor = colour(line.colour);
      button.append(mark, document.createTextNode(name));
      button.addEventListener("click", () => {
        if (!this.hidden.delete(name)) this.hidden.add(name);
        this.show(this.figure);
      });
      return button;
    }));
  }

  draw(panel) {
    panel.dirty = false;
    const { spec, plot } = panel;
    if (spec.lack) {
      if (panel.drawn) { Plotly.purge(plot); panel.drawn = false; }
      plot.replaceChildren(element("p", "nothing to draw: " + spec.lack, { class: "lack" }));
      return;
    }
    if (!panel.drawn) plot.replaceChildren();
    const { traces, layout } = this.build(spec, plot);
    Plotly.react(plot, traces, layout, { displayModeBar: false, responsive: true, doubleClick: "reset" });
    if (!panel.drawn && spec.x.kind === "step") plot.on("plotly_relayout", (change) => this.zoomed(panel, change));
    panel.drawn = true;
  }

  // On paper every panel is drawn, seen or not, in the size that it has there.
  print(printing) {
    if (!this.figure) return;
    this.printing = printing;
    this.arrange();
    for (const panel of this.panels) {
      if (!panel.spec || (!printing && !panel.drawn)) continue;
      this.draw(panel);
      if (!printing && panel.drawn && panel.plot.clientWidth) Plotly.Plots.resize(panel.plot);
    }
  }

  zoomed(panel, change) {
    if (this.zooming || !("xaxis.range[0]" in change)) return;
    this.setZoom([change["xaxis.range[0]"], change["xaxis.range[1]"]], panel);
    if (this.onZoom) this.onZoom(this.zoom);
  }

  async setZoom(range, but = null) {
    this.zoom = range;
    this.zooming = true;
    const others = this.panels.filter((each) => each !== but && each.drawn);
    await Promise.all(others.map((each) => Plotly.relayout(each.plot, { "xaxis.range": range || this.figure.x.layout.range.slice() })));
    this.zooming = false;
  }

  build(spec, plot) {
    const ink = cssColour("--ink"), soft = cssColour("--soft"), font = { family: fontFamily, size: 12, color: soft };
    const axis = { gridcolor: cssColour("--grid"), zeroline: false, linecolor: cssColour("--line"), ticks: "outside", ticklen: 3, tickcolor: cssColour("--line"), automargin: false };
    const onSteps = spec.x.kind === "step";
    const place = onSteps ? this.figure.x.place : (x) => x;
    const xLayout = onSteps ? { ...this.figure.x.layout, ...(this.zoom ? { range: this.zoom.slice() } : {}) } : axisLayout(spec.x);
    const heading = (text, short) => (text ? { text: short ? onTwoLines(label(text)) : label(text), standoff: 4, font: { size: 11, color: soft } } : undefined);
    const room = spec.y.kind === "names" ? nameRoom(spec.y) : margins.l + (heading(spec.y.title, true)?.text.includes("<br>") ? titleRoom : 0);
    const layout = { height: plot.clientHeight || 190, ...(this.printing ? { width: plot.clientWidth } : {}), font, showlegend: false, hovermode: "closest", paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)", margin: { ...margins, l: room, ...(spec.right ? { r: 46 } : {}) }, hoverlabel: { font: { ...font, color: ink }, bgcolor: cssColour("--bg"), bordercolor: cssColour("--line") },
      xaxis: { ...axis, ...xLayout, title: heading(spec.x.title) }, yaxis: { ...axis, ...axisLayout(spec.y), title: heading(spec.y.title, true) }, shapes: [] };
    if (spec.right) layout.yaxis2 = { ...axis, ...axisLayout(spec.right), overlaying: "y", side: "right", showgrid: false, title: heading(spec.right.title, true) };
    if (spec.shade) layout.shapes.push({ type: "rect", xref: "x", yref: "paper", x0: place(spec.shade[0]), x1: place(spec.shade[1]), y0: 0, y1: 1, line: { width: 0 }, fillcolor: colour("grey"), opacity: 0.15, layer: "below" });
    if (spec.level !== undefined && spec.level !== null) layout.shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: spec.level, y1: spec.level, line: { color: soft, width: 1, dash: "dot" } });
    const traces = (spec.lines || []).filter((line) => !this.hidden.has(line.legend || line.name)).flatMap((line) => this.line(line, place, onSteps, spec));
    if (spec.cells) traces.push(...this.cells(spec, place, onSteps, font));
    return { traces, layout };
  }

  line(line, place, onSteps, spec) {
    const count = (spec.lines || []).reduce((sum, each) => sum + each.x.length, 0);
    const hue = colour(line.colour), marked = line.dash === "dot" || count > 400 ? "lines" : "lines+markers";
    const trace = { type: "scatter", mode: line.mode || marked, name: label(line.name), x: Array.from(line.x, place), y: line.y, customdata: line.text ? line.text.map((each) => label(each, 90)) : Array.from(line.x, (x, i) => [x, plusMinus(line, i)]),
      yaxis: line.right ? "y2" : "y", line: { color: hue, width: 1.7, dash: line.dash || "solid" }, marker: { size: line.mode === "markers" ? 7 : 4.5, color: hue, symbol: symbols[line.symbol] || "circle" },
      connectgaps: false, cliponaxis: true, hovertemplate: (line.text ? "%{customdata}<br>%{y:.5~g}" : (onSteps ? "step %{customdata[0]:,}<br>" : "") + "%{y:.5~g}%{customdata[1]}") + "<extra>%{fullData.name}</extra>" };
    if (line.low && line.band) {
      const inside = line.low.flatMap((low, i) => (low === null || line.high[i] === null ? [] : [i]));
      const around = { type: "scatter", mode: "lines", name: trace.name, hoverinfo: "skip", fill: "toself", fillcolor: hue, opacity: 0.2, line: { width: 0 }, showlegend: false,
        x: [...inside, ...[...inside].reverse()].map((i) => place(line.x[i])), y: [...inside.map((i) => line.high[i]), ...inside.reverse().map((i) => line.low[i])] };
      return [around, trace];
    }
    if (line.low) {
      trace.error_y = { type: "data", symmetric: false, color: hue, thickness: 1.2, width: 3,
        array: line.high.map((high, i) => (high === null ? 0 : high - line.y[i])), arrayminus: line.low.map((low, i) => (low === null ? 0 : line.y[i] - low)) };
    }
    return [trace];
  }

  cells(spec, place, onSteps, font) {
    const { x, y, z, text, title } = spec.cells;
    const own = text && text.map((row, j) => row.map((cell, i) => (z[j][i] === null ? "" : label(cell))));
    const map = { type: "heatmap", x: Array.from(x, place), y: y.map((_, i) => i), z, customdata: y.map((name) => Array.from(x, (each) => [each, label(name)])),
      colorscale: heat, hoverongaps: false, zmin: spec.cells.low, zmax: spec.cells.high, text: own, texttemplate: text ? "%{text}" : undefined,
      textfont: { family: fontFamily, size: 10 }, colorbar: { thickness: 8, len: 1, tickfont: { size: 10, color: font.color }, outlinewidth: 0, nticks: 4, title: spec.cells.scale ? { text: onTwoLines(label(spec.cells.scale)), side: "right", font: { size: 10, color: font.color } } : undefined },
      hovertemplate: (onSteps ? "step %{customdata[0]:,}<br>" : "%{customdata[0]}<br>") + "%{customdata[1]}: %{z:.5~g}<extra>" + label(title || "") + "</extra>" };
    if (!text) return [map];
    // the text of an empty cell stands on the ground, in its ink
    const empty = z.flatMap((row, j) => row.flatMap((value, i) => (value === null ? [[place(x[i]), j, label(text[j][i])]] : [])));
    return [map, { type: "scatter", mode: "text", x: empty.map((e) => e[0]), y: empty.map((e) => e[1]), text: empty.map((e) => e[2]), hoverinfo: "skip", textfont: { family: fontFamily, size: 10, color: font.color } }];
  }
}
