"use strict";
// Lays the report's panels out to the width of the page. All text in the data is already escaped for labels.
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const task = document.getElementById("task");
  const scale = document.getElementById("scale");
  const font = { family: '"Source Sans 3", "Segoe UI", "Helvetica Neue", Arial, sans-serif', size: 12, color: "#3a424a" };
  const rowHeight = 170, rowGap = 62, top = 28, bottom = 48, left = 58, right = 8;

  // Logarithmic from the first measured step on; step 0 keeps a place of its own, as the axis' zero.
  const logOf = (step, unit) => Math.log10(1 + step / unit);
  const short = (step) => (step >= 1e6 ? step / 1e6 + "M" : step >= 1e3 ? step / 1e3 + "K" : String(step));

  // Where a task has a panel a run, a row holds whole tasks, so that runs stand below one another.
  function columnsFor(width, panels) {
    const fit = Math.max(1, Math.min(panels.length, width > 900 ? 4 : width > 520 ? 2 : 1));
    const group = panels.filter((panel) => panel.task === panels[0].task).length;
    return group < fit ? fit - (fit % group) : fit;
  }

  function stepAxis(panels) {
    let last = 0, unit = Infinity;
    for (const panel of panels) for (const line of panel.lines) for (const x of line.x) {
      last = Math.max(last, x);
      if (x > 0) unit = Math.min(unit, x);
    }
    if (!Number.isFinite(unit)) unit = 1;
    if (scale.value === "linear") {
      return { place: (x) => x, axis: { range: [-last * 0.02, last * 1.03 || 1], tickformat: "~s", nticks: 5 } };
    }
    const place = (step) => logOf(step, unit);
    const ticks = [0];
    for (let power = 1; power <= last; power *= 10) if (power >= unit) ticks.push(power);
    if (ticks.length < 3 && last > 0) ticks.push(last);
    const end = place(last) || 1;
    const range = [-0.03 * end, 1.04 * end];
    return { place, axis: { range, tickvals: ticks.map(place), ticktext: ticks.map(short) } };
  }

  const layerAxis = { place: (x) => x, axis: { range: [-0.08, 1.2], tickvals: [0, 0.5, 1, 1.12], ticktext: ["0", "½", "1", "LN"] } };

  function build(figure, width) {
    const chosen = Number(task.value);
    const kept = figure.panels.filter((panel) => chosen < 0 || panel.task === null || panel.task === chosen);
    const columns = columnsFor(width, kept);
    const rows = Math.ceil(kept.length / columns);
    const height = top + bottom + rows * rowHeight + (rows - 1) * rowGap;
    const inner = height - top - bottom;
    const gap = columns > 1 ? 52 / (width - left - right) : 0;
    const span = (1 - gap * (columns - 1)) / columns;
    const { place, axis: xAxis } = figure.x === "step" ? stepAxis(kept) : layerAxis;
    const layout = { height, width, font, annotations: [], showlegend: false, hovermode: "closest", paper_bgcolor: "#fff",
      plot_bgcolor: "#fff", margin: { t: top, b: bottom, l: left, r: right }, hoverlabel: { font } };
    const traces = [];
    kept.forEach((panel, index) => {
      const name = index === 0 ? "" : String(index + 1);
      const column = index % columns, row = Math.floor(index / columns);
      const x0 = column * (span + gap), y1 = 1 - row * (rowHeight + rowGap) / inner;
      const lowest = index + columns >= kept.length;
      const axis = { gridcolor: "#eceff2", zeroline: false, linecolor: "#b9c1c9", ticks: "outside", ticklen: 3, tickcolor: "#b9c1c9" };
      layout["xaxis" + name] = { ...axis, ...xAxis, domain: [x0, x0 + span], anchor: "y" + name,
        title: lowest ? { text: figure.x === "step" ? "training step" : "relative depth of the block", standoff: 6 } : undefined };
      layout["yaxis" + name] = { ...axis, domain: [y1 - rowHeight / inner, y1], anchor: "x" + name, nticks: 5,
        range: panel.range || undefined };
      layout.annotations.push({ text: "<b>" + panel.title + "</b>", x: x0, y: y1, xref: "paper", yref: "paper", xanchor: "left",
        yanchor: "bottom", showarrow: false, font: { size: 12.5, color: "#1d2126" } });
      for (const line of panel.lines) {
        const onSteps = figure.x === "step";
        traces.push({ type: "scatter", mode: line.dash === "dot" ? "lines" : "lines+markers", name: line.name,
          x: line.x.map(place), y: line.y, customdata: line.x,
          xaxis: "x" + name, yaxis: "y" + name, line: { color: line.colour, width: 1.8, dash: line.dash },
          marker: { size: 4.5, color: line.colour }, connectgaps: false, cliponaxis: false,
          hovertemplate: (onSteps ? "step %{customdata:,}<br>" : "") + "%{y:.4g}<extra>%{fullData.name}</extra>" });
      }
    });
    return { traces, layout };
  }

  function draw() {
    for (const figure of data.figures) {
      const place = document.getElementById("plot-" + figure.id);
      const { traces, layout } = build(figure, place.clientWidth || 600);
      Plotly.react(place, traces, layout, { displayModeBar: false, responsive: false });
    }
  }

  document.getElementById("controls").hidden = false;
  task.addEventListener("change", draw);
  scale.addEventListener("change", draw);
  let known = 0, waiting = 0;
  const redraw = () => {
    const width = document.body.clientWidth;
    if (width !== known) { known = width; draw(); }
  };
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(redraw, 120); });
  window.addEventListener("beforeprint", draw);
  redraw();
})();
