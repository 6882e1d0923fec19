"""What a figure or table is before anything draws it: the page and the files are drawn from the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from pythiageo.events.run import Run
from pythiageo.study import tasks as study

EASY, HARD = study.EASY["billa-v1"], study.HARD_IN_FIGURES
"""The paper's classes of tasks in its figures: those of version 1."""


@dataclass(frozen=True)
class Axis:
    """``kind``: ``step`` (logarithmic, step 0 kept), ``linear``, ``log`` or ``names`` (places 0, 1, .. have names).

    ``ticks``: places and what stands there, of a linear axis on which round numbers would say something else.
    """

    kind: str
    title: str = ""
    range: tuple[float, float] | None = None
    names: tuple[str, ...] = ()
    ticks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Line:
    """Points in their order. ``colour``: ``category-N``, ``depth-SHARE``, ``final``, ``ink`` or ``grey``; ``mode``:
    None (a line with points) or ``markers``; ``low`` and ``high``: ends of intervals, a ``band`` or a bar a point;
    ``right``: whether it goes by the right axis; ``legend``: the entry that it shares with others, its own name where
    there is none; ``symbol``: ``circle``, ``diamond``, ``square``, ``triangle`` or ``x``."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: str
    dash: str = "solid"
    mode: str | None = None
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    right: bool = False
    text: Sequence[str] | None = None
    legend: str | None = None
    symbol: str = "circle"
    band: bool = False


@dataclass(frozen=True)
class Cells:
    """A map: ``z[row][column]`` over the names ``y`` and the places ``x``, with a text in each cell."""

    x: Sequence[float]
    y: Sequence[str]
    z: Sequence[Sequence[float | None]]
    text: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True)
class Panel:
    """One plot. ``lack``: why there is nothing to draw. ``shade``: a span of x; ``level``: a height marked across."""

    title: str
    x: Axis
    y: Axis
    lines: tuple[Line, ...] = ()
    cells: Cells | None = None
    lack: str | None = None
    right: Axis | None = None
    shade: tuple[float, float] | None = None
    level: float | None = None


@dataclass(frozen=True)
class ColourBar:
    """What the colours of ``depth-SHARE`` stand for where there are too many lines for a legend: names at 0, .., 1."""

    title: str
    names: tuple[str, ...]


RELATIVE_DEPTH = ColourBar("relative depth of the block", ("0", "0.2", "0.4", "0.6", "0.8", "1"))
"""For panels of runs of different depth: one shade, one depth."""


@dataclass(frozen=True)
class Plot:
    """A plot of observations: panels, and as text what stands in no picture.

    ``caption``: what is drawn; ``said``: what was chosen because nobody said otherwise, and what is not drawn;
    ``rows``: the observations in it. In a notebook it shows itself.
    """

    panels: tuple[Panel, ...]
    caption: str
    said: tuple[str, ...]
    rows: pl.DataFrame
    bar: ColourBar | None = None

    @property
    def text(self) -> str:
        """Caption and sentences, a line each."""
        return "\n".join((self.caption, *self.said))

    def as_json(self) -> dict[str, Any]:
        """Return what the page's script draws."""
        return _as_json("plot", self.panels)

    def _repr_png_(self) -> bytes:
        from pythiageo.figures.draw import draw  # noqa: PLC0415 - matplotlib is loaded when something is drawn

        return draw(self, ("png",))["png"]


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper for this data; ``lacks`` says what the paper's has and this one cannot have, and why."""

    id: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    lacks: tuple[str, ...] = ()
    bar: ColourBar | None = None

    @property
    def left_out(self) -> tuple[str, ...]:
        """Why there is nothing in it that could be drawn; none where there is something."""
        reasons = [panel.lack for panel in self.panels if panel.lack]
        return tuple(dict.fromkeys(reasons)) if len(reasons) == len(self.panels) else ()

    @property
    def said(self) -> tuple[str, ...]:
        """What it lacks, panel by panel too."""
        empty = [f"{panel.title}: {panel.lack}" for panel in self.panels if panel.lack]
        return tuple(dict.fromkeys((*self.lacks, *empty)))

    def as_json(self) -> dict[str, Any]:
        """Return what the page's script draws: empty entries left out, all steps of its step axes collected."""
        return _as_json(self.id, self.panels)


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper for this data, cells as text. A table without rows says in ``lacks`` why."""

    id: str
    title: str
    caption: str
    frame: pl.DataFrame = field(default_factory=pl.DataFrame)
    lacks: tuple[str, ...] = ()


def text_frame(head: Sequence[str], rows: Iterable[Sequence[object]]) -> pl.DataFrame:
    """Return a table of text cells."""
    cells = [[("" if cell is None else str(cell)) for cell in row] for row in rows]
    return pl.DataFrame(cells, schema={name: pl.String for name in head}, orient="row")


def leave_empty(panel: str, why: str) -> Panel:
    """Return a panel that says why it is empty."""
    return Panel(panel, Axis("linear"), Axis("linear"), lack=why)


def select_task_aligned(runs: Sequence[Run]) -> list[Run]:
    """Return the task-aligned runs: those that the paper's synthetic figures are about."""
    return [run for run in runs if run.regime == "task-aligned"]


def select_naturalistic(runs: Sequence[Run]) -> list[Run]:
    """Return the naturalistic runs: those beside the paper's Pythia."""
    return [run for run in runs if run.regime != "task-aligned"]


def class_of(task: str | None) -> str:
    """Return ``easy`` or ``hard`` as in version 1, or ``other``."""
    return "easy" if task in EASY else "hard" if task in HARD else "other"


def _as_json(name: str, panels: Sequence[Panel]) -> dict[str, Any]:
    return {
        "id": name,
        "panels": [_dense(asdict(panel)) for panel in panels],
        "steps": sorted({step for panel in panels for step in _steps(panel)}),
    }


def _dense(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _dense(each) for key, each in value.items() if each is not None and each != ()}
    return [_dense(each) for each in value] if isinstance(value, (list, tuple)) else value


def _steps(panel: Panel) -> list[float]:
    if panel.x.kind != "step" or panel.lack:
        return []
    return [x for line in panel.lines for x in line.x] + list(panel.cells.x if panel.cells else ())
