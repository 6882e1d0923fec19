"""What a figure or table of the paper is before anything draws it: the page and the files are drawn from the same."""

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
    """``kind``: ``step`` (logarithmic, step 0 kept), ``linear``, ``log`` or ``names`` (places 0, 1, .. have names)."""

    kind: str
    title: str = ""
    range: tuple[float, float] | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """Points in their order. ``colour``: ``category-N``, ``depth-SHARE``, ``final`` or ``grey``; ``mode``: None (a line
    with points) or ``markers``; ``low`` and ``high``: ends of intervals; ``right``: whether it goes by the right axis;
    ``legend``: the entry that it shares with others, its own name where there is none; ``symbol``: ``circle``,
    ``diamond`` or ``x``."""

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
class PaperFigure:
    """A figure of the paper for this data; ``lacks`` says what the paper's has and this one cannot have, and why."""

    id: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    lacks: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return what the page's script draws: empty entries left out, all steps of its step axes collected."""
        panels = [_dense(asdict(panel)) for panel in self.panels]
        return {
            "id": self.id,
            "panels": panels,
            "steps": sorted({step for panel in self.panels for step in _steps(panel)}),
        }


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


def _dense(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _dense(each) for key, each in value.items() if each is not None and each != ()}
    return [_dense(each) for each in value] if isinstance(value, (list, tuple)) else value


def _steps(panel: Panel) -> list[float]:
    if panel.x.kind != "step" or panel.lack:
        return []
    return [x for line in panel.lines for x in line.x] + list(panel.cells.x if panel.cells else ())
