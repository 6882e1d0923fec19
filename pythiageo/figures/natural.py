"""Figures 6 and 8: the runs beside the paper's Pythia."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from pythiageo.events.run import Run
from pythiageo.figures.spec import Axis, Line, Panel, PaperFigure, leave_empty, select_naturalistic
from pythiageo.figures.values import (
    DIAGNOSTIC_SETS,
    NO_NATURAL,
    NO_RANK,
    SPECTRA,
    last_block,
    spectrum_name,
    tasks,
    values,
)
from pythiageo.observations.measures import axis_title

COLLAPSE_UNTIL = 512
_MARKS = ("circle", "diamond", "square", "triangle", "x")


def collapse(runs: Sequence[Run]) -> PaperFigure:
    """Figure 6: (a) the rank of every probe set by step, to 512 shaded; (b) its last value by set and run."""
    shown = select_naturalistic(runs)
    measure = next(iter(SPECTRA))
    panels = [_curves(run, measure, shade=(0, COLLAPSE_UNTIL)) for run in shown]
    last = [(run, last_block(run, measure).drop_nulls("value")) for run in shown]
    names = sorted({task for _, rows in last for task in rows["task"]})
    lines = []
    for number, (run, rows) in enumerate(last):
        ends = rows.group_by("task").agg(pl.col("value").sort_by("step").last(), pl.col("step").max()).sort("task")
        if ends.height:
            places = [names.index(task) for task in ends["task"]]
            text = [f"{task}, step {step:,}" for task, step in ends.select("task", "step").rows()]
            # colours are the probe sets' in (a): here runs are told apart by their marks
            mark = _MARKS[number % len(_MARKS)]
            lines.append(Line(run.label, places, values(ends), "ink", mode="markers", text=text, symbol=mark))
    title = "(b) at the last checkpoint"
    if lines:
        y = Axis("linear", axis_title(measure), (0.0, 1.06 * max(v for line in lines for v in line.y if v is not None)))
        panels.append(Panel(title, Axis("names", names=tuple(names)), y, tuple(lines)))
    else:
        panels.append(leave_empty(title, NO_RANK if shown else NO_NATURAL))
    return PaperFigure(
        "fig-6",
        "Figure 6. Pythia: collapse and order",
        f"(a) {spectrum_name(measure)} at the last block by step, a line a probe set, steps 0–512 shaded; "
        "(b) the same at each run's last checkpoint. Drawn are the naturalistic runs; the paper has Pythia 410M, and "
        "160M in (b).",
        tuple(panels),
        _lacks(shown),
    )


def curves(runs: Sequence[Run]) -> PaperFigure:
    """Figure 8: the rank of every probe set by step, a panel a run and spectrum."""
    shown = select_naturalistic(runs)
    panels = [_curves(run, measure) for run in shown for measure in SPECTRA] or [leave_empty("Curves", NO_NATURAL)]
    caption = "Rank at the last block by step, a line a probe set; both spectra, each under its own name."
    return PaperFigure("fig-8", "Figure 8. Pythia curves", caption, tuple(panels), _lacks(shown))


def _curves(run: Run, measure: str, shade: tuple[float, float] | None = None) -> Panel:
    title = f"{'(a) ' if shade else ''}{run.label}, {spectrum_name(measure)}"
    rows = last_block(run, measure)
    names = tasks([run])
    lines = []
    for number, task in enumerate(names):
        own = rows.filter(pl.col("task") == task)
        if own["value"].count():
            dash = "solid" if number < 7 else "dash"
            lines.append(Line(task, own["step"].to_list(), values(own), f"category-{number}", dash))
    if not lines:
        return leave_empty(title, NO_RANK)
    top = max(value for line in lines for value in line.y if value is not None)
    return Panel(
        title,
        Axis("step", "training step"),
        Axis("linear", axis_title(measure), (0.0, top * 1.06)),
        tuple(lines),
        shade=shade,
    )


def _lacks(runs: Sequence[Run]) -> tuple[str, ...]:
    if not runs:
        return (NO_NATURAL,)
    lacks = []
    pythia = [run for run in runs if "pythia-160m" in run.size or "pythia-410m" in run.size]
    if not pythia:
        lacks.append("no run of Pythia 160M or 410M; drawn: " + ", ".join(f"{run.label} ({run.size})" for run in runs))
    for run in runs:
        sets = len(tasks([run]))
        if sets < DIAGNOSTIC_SETS:
            lacks.append(f"{run.label} has {sets} probe sets with a rank, the paper {DIAGNOSTIC_SETS}")
    return tuple(lacks)
