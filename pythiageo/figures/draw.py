"""Draw panels with matplotlib, for print: sizes in inches, fonts embedded, and no title: that stands in the caption."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Protocol

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from pythiageo.figures.axes import MAP_COLOURS, depth_colours, draw_panel
from pythiageo.figures.spec import ColourBar, Panel

WIDTHS = {"column": 3.25, "text": 5.5}
"""Widths in inches by name: a column of a two-column paper (ICML), and the text of a paper in one (NeurIPS, ICLR)."""
_DPI = 300
_SLANTED = 0.5
"""Inches that names under a panel take, more than numbers do."""
_ROW = 0.17
"""Inches of a row of a map."""
_STYLE: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.grid": True,
    "grid.color": "#e6e9ec",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "pythiageo",
    "pdf.fonttype": 42,
    "text.usetex": False,
    "text.parse_math": False,
}
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": "pythiageo"},
    "svg": {"Date": None, "Creator": "pythiageo"},
    "pdf": {"CreationDate": None, "Creator": "pythiageo", "Producer": "pythiageo"},
}
"""No dates: equal runs give equal files."""
FORMATS = tuple(_METADATA)


class Drawable(Protocol):
    """What has panels: a plot, a figure of the paper."""

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The panels, row by row."""

    @property
    def bar(self) -> ColourBar | None:
        """What the colours of depth stand for, if no legend says so."""


def draw(figure: Drawable, formats: Sequence[str], width: float = WIDTHS["text"]) -> dict[str, bytes]:
    """Return the figure's file in each of the formats, ``width`` inches wide.

    A panel with nothing to draw is left out: the caption has to say so.
    """
    panels = [panel for panel in figure.panels if not panel.lack]
    bar = figure.bar
    with matplotlib.rc_context(_STYLE):
        columns = _columns(panels, width)
        rows = math.ceil(len(panels) / columns)
        heights = [_height(panels[row * columns : (row + 1) * columns], width / columns) for row in range(rows)]
        drawn = Figure(figsize=(width, sum(heights)), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(drawn)
        grid = drawn.subplots(rows, columns, squeeze=False, gridspec_kw={"height_ratios": heights})
        places = [axes for row in grid for axes in row]
        steps = sorted({x for panel in panels if panel.x.kind == "step" for line in panel.lines for x in line.x})
        scale = _scale(panels)
        for number, panel in enumerate(panels):
            beside, below = number % columns > 0, number + columns < len(panels)
            shared = panel.y.range is not None or panel.y.kind == "names"
            same_y = beside and shared and panel.y == panels[number - 1].y
            same_x = below and panel.x == panels[number + columns].x and panel.x.kind in ("step", "linear")
            # beside a panel with names below it the axes are as low as its own
            size = (
                width / columns,
                heights[number // columns] - _SLANTED * any(each.x.kind == "names" for each in panels),
            )
            draw_panel(places[number], panel, steps, size, scale, same_x, same_y)
        for axes in places[len(panels) :]:
            axes.set_axis_off()
        _name_axes(drawn, places[: len(panels)], panels, columns, sum(heights))
        if bar is not None:
            _bar(drawn, places[: len(panels)], bar)
        titles = [panel.cells.title for panel in panels if panel.cells]
        if titles:
            maps = ScalarMappable(scale, MAP_COLOURS)
            drawn.colorbar(maps, ax=places[: len(panels)], label=titles[0], pad=0.02, aspect=40, fraction=0.04)
        legend = _legend(drawn, skip=bar is not None)
        drawn.set_size_inches(width, sum(heights) + legend)
        files = {}
        for name in formats:
            buffer = BytesIO()
            drawn.savefig(buffer, format=name, dpi=_DPI, metadata=_METADATA[name])
            files[name] = buffer.getvalue()
    return files


def _columns(panels: Sequence[Panel], width: float) -> int:
    """Return how many panels stand in a row: maps have names beside them, and need all of it."""
    if any(panel.cells for panel in panels):
        wide = max(len(panel.x.names) for panel in panels) * 0.42
        return max(1, min(len(panels), int((width - 1.4) / wide)))
    most = max(1, int(width / 1.6))
    return 2 if len(panels) == 4 and most >= 2 else min(most, max(len(panels), 1))


def _height(row: Sequence[Panel], width: float) -> float:
    """Return the inches of a row of panels."""
    tallest = max(0.62 * width, 1.5)
    names = [0.9 + _ROW * len(panel.cells.y) for panel in row if panel.cells]
    slanted = any(panel.x.kind == "names" and not panel.cells for panel in row)
    return max([min(tallest, 2.6) + _SLANTED * slanted, *names])


def _name_axes(drawn: Figure, places: Sequence[Axes], panels: Sequence[Panel], columns: int, height: float) -> None:
    """Name an axis that all panels have once, beside all of them; else each at its own, unless a neighbour has it."""
    if len({panel.x.title for panel in panels}) == 1:
        drawn.supxlabel(panels[0].x.title, fontsize=8)
        for axes in places:
            axes.set_xlabel("")
    if len({panel.y.title for panel in panels}) == 1 and len(panels) > 1:
        drawn.supylabel("\n".join(textwrap.wrap(panels[0].y.title, max(20, int(height * 15)))), fontsize=8)
        for axes in places:
            axes.set_ylabel("")
    for number, panel in enumerate(panels):
        if number % columns and panel.y == panels[number - 1].y and panel.right is None:
            places[number].set_ylabel("")


def _scale(panels: Sequence[Panel]) -> Normalize:
    """Return one scale of colours for the maps of a figure."""
    known = [value for panel in panels if panel.cells for row in panel.cells.z for value in row if value is not None]
    return Normalize(min(known, default=0.0), max(known, default=1.0))


def _bar(drawn: Figure, places: Sequence[Axes], bar: ColourBar) -> None:
    last = len(bar.names) - 1
    scale = ScalarMappable(Normalize(0, last), depth_colours())
    made = drawn.colorbar(scale, ax=list(places), pad=0.02, aspect=30, fraction=0.05)
    shown = sorted({round(place * last / 5) for place in range(6)})
    made.set_ticks(shown, labels=[bar.names[place] for place in shown])
    made.set_label(bar.title)
    made.outline.set_visible(False)


def _legend(drawn: Figure, skip: bool) -> float:
    """Put one legend of all panels above them, in as many columns as fit; return its height in inches.

    ``skip``: lines by depth have a colour bar instead.
    """
    entries: dict[str, Any] = {}
    for axes in drawn.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            if not (skip and getattr(handle, "by_depth", False)):
                entries.setdefault(name, handle)
    if not entries:
        return 0.0
    shown = [name if len(name) <= 48 else name[:47] + "…" for name in entries]
    renderer = drawn.canvas.get_renderer()  # type: ignore[attr-defined]
    for columns in range(min(8, len(shown)), 0, -1):
        legend = drawn.legend(
            list(entries.values()), shown, loc="outside upper center", ncols=columns, fontsize=7, frameon=False,
            handlelength=1.6, columnspacing=1.2, handletextpad=0.5,
        )  # fmt: skip
        size = legend.get_window_extent(renderer)
        if size.width <= drawn.get_figwidth() * drawn.dpi or columns == 1:
            return size.height / drawn.dpi
        legend.remove()
    return 0.0
