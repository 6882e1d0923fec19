"""Draw one panel on matplotlib's axes: lines, bands, maps, and axes of steps, names and numbers."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_hex
from matplotlib.markers import TICKDOWN
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from pythiageo.figures.spec import Axis, Line, Panel

CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1d2126")
"""Okabe and Ito's colours, as on the page."""
_FINAL, _GREY, _INK = "#B4430C", "#767676", "#1d2126"
_DEPTH = ("#9DBFDB", "#5B98C6", "#2B6EA6", "#0B2F5E")
MAP_COLOURS = "cividis"
_DASHES = {"solid": "-", "dash": "--", "dot": ":"}
_SYMBOLS = {"circle": "o", "diamond": "D", "square": "s", "triangle": "^", "x": "x"}
_MANY = 400
"""Points of a panel from which on they are not marked one by one."""


def draw_panel(
    axes: Axes,
    panel: Panel,
    steps: Sequence[float],
    size: tuple[float, float],
    scale: Normalize,
    same_x: bool,
    same_y: bool,
) -> None:
    """Draw a panel of a size in inches.

    ``steps``: those of all panels, so that their step axes are one; ``scale``: of all maps, so that a colour is one
    value. ``same_x``, ``same_y``: whether the panel below, or
    the one on the left, has this very axis, so that its names need not stand here too.
    """
    # names come from others: shortened, and drawn as they are
    width, height = size
    axes.set_title(_wrapped(panel.title, width - 0.45), loc="left", fontsize=8)
    right = axes.twinx() if panel.right else None
    if panel.shade:
        axes.axvspan(*panel.shade, color=_GREY, alpha=0.15, linewidth=0)
    if panel.level is not None:
        axes.axhline(panel.level, color="#55606b", linewidth=0.8, linestyle=":" if panel.cells is None else "-")
    _cells(axes, panel, scale)
    many = sum(len(line.x) for line in panel.lines) > _MANY
    for line in panel.lines:
        _line(right if line.right and right is not None else axes, line, many, panel.x.kind == "step")
    _axis(axes, "x", panel.x, steps, width)
    _axis(axes, "y", panel.y, (), height)
    if right is not None and panel.right:
        _axis(right, "y", panel.right, (), height)
        right.grid(visible=False)
    elif panel.cells is None:
        axes.spines.right.set_visible(False)
    if same_x:
        axes.tick_params(axis="x", labelbottom=False)
    if same_y:
        axes.tick_params(axis="y", labelleft=False)


def _line(axes: Axes, line: Line, many: bool, on_steps: bool) -> None:
    y = [math.nan if value is None else value for value in line.y]
    colour = colour_of(line.colour)
    style = "none" if line.mode == "markers" else _DASHES[line.dash]
    marker = _SYMBOLS[line.symbol] if line.mode == "markers" else "none" if many or line.dash == "dot" else "."
    looks: Any = {"color": colour, "markersize": 3.5 if line.mode == "markers" else 3, "linewidth": 1.1}
    # the axis is not logarithmic between 0 and the first step after it: no slope is to be read there
    apart = on_steps and style != "none" and len(line.x) > 1 and line.x[0] == 0
    if apart:
        axes.plot(line.x[:2], y[:2], linestyle=":", marker="none", **looks)
        axes.plot(line.x[:1], y[:1], linestyle="none", marker="." if marker == "none" else marker, **looks)
    start = 1 if apart else 0
    name = line.name if line.legend is None else line.legend
    made = axes.plot(line.x[start:], y[start:], linestyle=style, marker=marker, label=name or "_", **looks)
    made[0].by_depth = line.colour.startswith("depth")  # type: ignore[attr-defined]
    if line.low is None or line.high is None:
        return
    ends = [
        (x, low, high)
        for x, low, high in zip(line.x, line.low, line.high, strict=True)
        if low is not None and high is not None
    ]
    places, lows, highs = ([end[part] for end in ends] for part in range(3))
    if line.band:
        axes.fill_between(places, lows, highs, color=colour, alpha=0.18, linewidth=0)
    else:
        axes.vlines(places, lows, highs, color=colour, linewidth=0.8)


def _wrapped(text: str, inches: float) -> str:
    """Return a text of size 8 in lines that are no longer than that."""
    return "\n".join(textwrap.wrap(text, max(12, int(inches * 16))))


def _cells(axes: Axes, panel: Panel, scale: Normalize) -> None:
    cells = panel.cells
    if cells is None:
        return
    grid = [[math.nan if value is None else value for value in row] for row in cells.z]
    axes.grid(visible=False)
    axes.imshow(grid, aspect="auto", origin="lower", cmap=MAP_COLOURS, norm=scale, interpolation="nearest")
    for row, texts in enumerate(cells.text):
        for column, text in enumerate(texts):
            dark = not math.isnan(grid[row][column]) and scale(grid[row][column]) <= 0.5
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if dark else "black")


def _axis(axes: Axes, which: str, axis: Axis, steps: Sequence[float], inches: float) -> None:
    is_x, width = which == "x", inches
    (axes.set_xlabel if is_x else axes.set_ylabel)(_wrapped(axis.title, inches - (0.45 if is_x else 0.5)))
    scale, limits = (axes.set_xscale, axes.set_xlim) if is_x else (axes.set_yscale, axes.set_ylim)
    if axis.kind == "names":
        ticks = axes.set_xticks if is_x else axes.set_yticks
        names = [name if len(name) <= 22 else name[:21] + "…" for name in axis.names]
        ticks(range(len(names)), names)
        limits(-0.5, len(names) - 0.5)
        if is_x and sum(map(len, names)) > 14 * width:
            axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    elif axis.kind == "step":
        _step_axis(axes, steps, width)
    elif axis.kind == "log":
        scale("log")
        which_axis = axes.xaxis if is_x else axes.yaxis
        which_axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        which_axis.set_major_formatter(lambda value, _: short_step(value))
        which_axis.set_minor_formatter(NullFormatter())
    elif axis.ticks:
        (axes.set_xticks if is_x else axes.set_yticks)(*zip(*axis.ticks, strict=True))
    else:
        (axes.xaxis if is_x else axes.yaxis).set_major_locator(MaxNLocator(5))
    if axis.range:
        limits(*axis.range)


def _step_axis(axes: Axes, steps: Sequence[float], width: float) -> None:
    """Make x logarithmic from the first step after 0 on; 0 has a place of its own, and every checkpoint a tick."""
    unit = min((step for step in steps if step > 0), default=1)
    last = max([unit, *steps])
    axes.set_xscale("symlog", linthresh=unit, linscale=0.5)
    powers = [10**power for power in range(math.ceil(math.log10(unit)), math.floor(math.log10(last)) + 1)]
    kept = [0, *powers[:: max(1, math.ceil(len(powers) / max(2, 2.2 * width)))]]
    axes.set_xticks(kept if len(kept) > 2 else sorted({0, *powers, last}), minor=False)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda value, _: short_step(value))
    # one artist: as minor ticks, 200 checkpoints in 8 panels take ten seconds
    axes.plot(
        steps, [0.0] * len(steps), transform=axes.get_xaxis_transform(), linestyle="none", marker=TICKDOWN,
        markersize=2, markeredgewidth=0.35, color=_INK, clip_on=False, label="_checkpoints",
    )  # fmt: skip
    low = -0.3 * unit if 0 in steps else unit * 0.85
    axes.set_xlim(low, last * 1.25)


def short_step(step: float) -> str:
    """Return a step as a tick says it: 100, 1K, 143K, 1.5M."""
    if step >= 1e6:
        return f"{step / 1e6:g}M"
    return f"{step / 1e3:g}K" if step >= 1e3 else f"{step:g}"


def depth_colours() -> LinearSegmentedColormap:
    """Return the colours of depth, light to dark, as on the page."""
    return LinearSegmentedColormap.from_list("depth", _DEPTH)


def colour_of(name: str) -> str:
    """Return the colour that a line's word stands for on white."""
    kind, _, number = name.partition("-")
    if kind == "category":
        return CATEGORIES[int(number) % len(CATEGORIES)]
    if kind == "depth":
        return to_hex(depth_colours()(float(number)))
    return {"final": _FINAL, "grey": _GREY, "ink": _INK}[kind]
