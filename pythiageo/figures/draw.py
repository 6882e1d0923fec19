"""Draw a figure of the paper with matplotlib, for print: white ground, fonts as text, the same marks as the page's."""

from __future__ import annotations

import math
import textwrap
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from pythiageo.figures.spec import Axis, Line, Panel, PaperFigure

CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1d2126")
"""Okabe and Ito's colours, as on the page."""
_FINAL, _GREY = "#B4430C", "#767676"
_DEPTH = ("#9DBFDB", "#5B98C6", "#2B6EA6", "#0B2F5E")
_DASHES = {"solid": "-", "dash": "--", "dot": ":"}
_SYMBOLS = {"circle": "o", "diamond": "D", "x": "x"}
_WIDTH, _HEIGHT = 3.3, 2.5
_COLUMNS = 4
_STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.grid": True,
    "grid.color": "#e6e9ec",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "pythiageo",
    "pdf.fonttype": 42,
    "text.usetex": False,
    "text.parse_math": False,
}
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": "pythiageo"},
    "pdf": {"CreationDate": None, "Creator": "pythiageo", "Producer": "pythiageo"},
    "png": {"Software": "pythiageo"},
}
"""No dates: equal runs give equal files."""


def draw(figure: PaperFigure, formats: tuple[str, ...]) -> dict[str, bytes]:
    """Return the figure's file in each of the formats (``png``, ``svg``, ``pdf``)."""
    with matplotlib.rc_context(_STYLE):
        columns = min(_COLUMNS, len(figure.panels))
        rows = math.ceil(len(figure.panels) / columns)
        heights = [_height(figure, row, columns) for row in range(rows)]
        drawn = Figure(figsize=(_width(figure) * columns, sum(heights) + 0.9), layout="constrained")
        FigureCanvasAgg(drawn)
        grid = drawn.subplots(rows, columns, squeeze=False, gridspec_kw={"height_ratios": heights})
        places = [axes for row in grid for axes in row]
        for axes, panel in zip(places, figure.panels, strict=False):
            _panel(drawn, axes, panel)
        for axes in places[len(figure.panels) :]:
            axes.set_axis_off()
        _legend(drawn, figure)
        drawn.suptitle(figure.title, x=0.01, ha="left", fontweight="bold", fontsize=10)
        _footnote(drawn, figure)
        files = {}
        for name in formats:
            buffer = BytesIO()
            drawn.savefig(buffer, format=name, dpi=160, metadata=_METADATA[name])
            files[name] = buffer.getvalue()
    return files


def _height(figure: PaperFigure, row: int, columns: int) -> float:
    panels = figure.panels[row * columns : (row + 1) * columns]
    return max([_HEIGHT, *(0.8 + 0.19 * len(panel.cells.y) for panel in panels if panel.cells)])


def _width(figure: PaperFigure) -> float:
    return _WIDTH if len(figure.panels) > 1 else 2 * _WIDTH


def _footnote(drawn: Figure, figure: PaperFigure) -> None:
    if figure.lacks:
        wide = int(drawn.get_figwidth() * 18)
        text = "\n".join(textwrap.wrap("Lacks: " + "; ".join(figure.lacks) + ".", wide))
        drawn.supxlabel(text, x=0.01, ha="left", fontsize=7, color="#55606b")


def _panel(drawn: Figure, axes: Axes, panel: Panel) -> None:
    axes.set_title("\n".join(textwrap.wrap(panel.title, 44)), loc="left", fontsize=8)
    if panel.lack:
        axes.set_axis_off()
        said = "\n".join(textwrap.wrap(f"not estimable: {panel.lack}", 44))
        axes.text(0.02, 0.5, said, transform=axes.transAxes, va="center", fontsize=8, color="#55606b")
        return
    right = axes.twinx() if panel.right else None
    if panel.shade:
        axes.axvspan(*panel.shade, color=_GREY, alpha=0.15, linewidth=0)
    if panel.level is not None:
        axes.axhline(panel.level, color="#55606b", linewidth=0.8, linestyle=":" if panel.cells is None else "-")
    _cells(drawn, axes, panel)
    count = sum(len(line.x) for line in panel.lines)
    for line in panel.lines:
        _line(right if line.right and right is not None else axes, line, count > 400)
    _axis(axes, "x", panel.x, [x for line in panel.lines for x in line.x])
    _axis(axes, "y", panel.y, [])
    if right is not None and panel.right:
        _axis(right, "y", panel.right, [])
        right.grid(visible=False)
    elif panel.cells is None:
        axes.spines.right.set_visible(False)


def _line(axes: Axes, line: Line, many: bool) -> None:
    y = [math.nan if value is None else value for value in line.y]
    colour = colour_of(line.colour)
    style = "none" if line.mode == "markers" else _DASHES[line.dash]
    marker = _SYMBOLS[line.symbol] if line.mode == "markers" else "none" if many or line.dash == "dot" else "."
    axes.plot(
        line.x,
        y,
        color=colour,
        linestyle=style,
        marker=marker,
        markersize=4,
        linewidth=1.2,
        label=line.legend or line.name,
    )
    if line.low is not None and line.high is not None:
        ends = [
            (x, low, high)
            for x, low, high in zip(line.x, line.low, line.high, strict=True)
            if low is not None and high is not None
        ]
        axes.vlines(
            [end[0] for end in ends], [end[1] for end in ends], [end[2] for end in ends], color=colour, linewidth=1
        )


def _cells(drawn: Figure, axes: Axes, panel: Panel) -> None:
    cells = panel.cells
    if cells is None:
        return
    grid = [[math.nan if value is None else value for value in row] for row in cells.z]
    known = [value for row in grid for value in row if not math.isnan(value)]
    axes.grid(visible=False)
    if known:
        mesh = axes.imshow(grid, aspect="auto", origin="lower", cmap="cividis", interpolation="nearest")
        drawn.colorbar(mesh, ax=axes, label=cells.title, pad=0.02)
    middle = (min(known) + max(known)) / 2 if known else 0.0
    for row, texts in enumerate(cells.text):
        for column, text in enumerate(texts):
            dark = not math.isnan(grid[row][column]) and grid[row][column] <= middle
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if dark else "black")


def _axis(axes: Axes, which: str, axis: Axis, points: list[float]) -> None:
    is_x = which == "x"
    (axes.set_xlabel if is_x else axes.set_ylabel)(axis.title)
    scale, limits = (axes.set_xscale, axes.set_xlim) if is_x else (axes.set_yscale, axes.set_ylim)
    if axis.kind == "names":
        ticks = axes.set_xticks if is_x else axes.set_yticks
        # names come from others: shortened, and drawn as they are
        ticks(range(len(axis.names)), [name if len(name) <= 22 else name[:21] + "…" for name in axis.names])
        limits(-0.5, len(axis.names) - 0.5)
        if is_x:
            axes.tick_params(axis="x", rotation=30 if len(axis.names) > 2 else 0)
    elif axis.kind == "step":
        unit = min((point for point in points if point > 0), default=1)
        last = max([unit, *points])
        axes.set_xscale("symlog", linthresh=unit, linscale=0.5)
        powers = [10**power for power in range(math.ceil(math.log10(unit)), math.floor(math.log10(last)) + 1)]
        marked = [0, *powers[:: max(1, math.ceil(len(powers) / 5))]]
        axes.set_xticks(marked if len(marked) > 2 else [0, *powers, last], minor=False)
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(lambda value, _: short_step(value))
        limits(-0.3 * unit, last * 1.25)
    elif axis.kind == "log":
        scale("log")
        which_axis = axes.xaxis if is_x else axes.yaxis
        which_axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        which_axis.set_major_formatter(lambda value, _: short_step(value))
        which_axis.set_minor_formatter(NullFormatter())
    if axis.range:
        limits(*axis.range)


def short_step(step: float) -> str:
    """Return a step as a tick says it: 100, 1K, 143K, 1.5M."""
    if step >= 1e6:
        return f"{step / 1e6:g}M"
    return f"{step / 1e3:g}K" if step >= 1e3 else f"{step:g}"


def colour_of(name: str) -> str:
    """Return the colour that a line's word stands for on white."""
    kind, _, number = name.partition("-")
    if kind == "category":
        return CATEGORIES[int(number) % len(CATEGORIES)]
    if kind == "depth":
        return to_hex(LinearSegmentedColormap.from_list("depth", _DEPTH)(float(number)))
    return {"final": _FINAL, "grey": _GREY}[kind]


def _legend(drawn: Figure, figure: PaperFigure) -> None:
    entries: dict[str, Any] = {}
    for axes in drawn.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    if entries:
        shown = [name if len(name) <= 60 else name[:59] + "…" for name in entries]
        drawn.legend(
            list(entries.values()),
            shown,
            loc="outside upper right",
            ncols=min(6, len(shown)),
            fontsize=7,
            frameon=False,
        )
