"""A run's main numbers by step, as small tables with a curve in each row: what a terminal shows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from pythiageo.errors import UserError
from pythiageo.events.run import Run
from pythiageo.figures.selection import Asked, select_rows, spread_steps
from pythiageo.names import COVARIANCE_RANK, RANKME
from pythiageo.observations.layers import FINAL_PLACE
from pythiageo.observations.measures import LANDSCAPE, LINEAR_PROBE, RANK, SCORE, find_declared
from pythiageo.observations.ranges import range_of

BARS = "▁▂▃▄▅▆▇█"
MOST_ROWS = 12
_KINDS = (SCORE, RANK, LINEAR_PROBE, LANDSCAPE)
"""Kinds of which a run's first measure is shown unasked."""
_FIRST = ("accuracy", "log_prob", "perplexity", RANKME, COVARIANCE_RANK, "linear_probe")
_CONTROLS = ("chance_accuracy", "majority_rate", "items_left_out", "tokens_left_out")
"""What stands beside scores and is none."""


@dataclass(frozen=True)
class Row:
    """One curve of a table: its value by step, steps without one left out; ``chance``: of an accuracy."""

    name: str
    values: Mapping[int, float]
    chance: float | None = None


@dataclass(frozen=True)
class Overview:
    """A measure's rows, tasks or layers. ``said``: what was chosen because nobody said otherwise, what has no value."""

    measure: str
    title: str
    head: str
    steps: Sequence[int]
    rows: Sequence[Row]
    said: Sequence[str] = ()

    @property
    def ends(self) -> tuple[float, float] | None:
        """The ends of all curves' scale; ``None`` where each has its own."""
        return (0.0, 1.0) if range_of(self.measure) == (0.0, 1.0) else None


def draw_curve(values: Mapping[int, float], steps: Sequence[int], ends: tuple[float, float] | None = None) -> str:
    """Return a curve as one character a step, a blank where there is no value.

    ``ends``: what the lowest and the highest bar stand for; by default 0 and the highest value, or the lowest and the
    highest where one is below 0.

    >>> draw_curve({0: 0.0, 1: 2.0, 3: 4.0}, [0, 1, 2, 3])
    '▁▅ █'
    """
    known = [values[step] for step in steps if step in values]
    low, high = ends or (min([0.0, *known]) if min(known, default=0.0) >= 0 else min(known), max(known, default=1.0))
    size = (high - low) or 1.0

    def bar(value: float) -> str:
        share = (value - low) / size
        return BARS[min(len(BARS) - 1, max(0, int(share * (len(BARS) - 1) + 0.5)))]

    return "".join(bar(values[step]) if step in values else " " for step in steps)


def main_measures(run: Run) -> list[str]:
    """Return the measures that are shown unasked: the first of each kind that the run has."""
    there = [name for name in run.observations["measure"].unique().sort().to_list() if name not in _CONTROLS]
    kinds = {name: known.kind for name in there if (known := find_declared(name)) is not None}
    ordered = sorted(there, key=lambda name: (name not in _FIRST, _FIRST.index(name) if name in _FIRST else 0, name))
    chosen = [next((name for name in ordered if kinds.get(name) == kind), None) for kind in _KINDS]
    valued = set(run.observations.drop_nulls("value")["measure"])
    found = [name for name in chosen if name in valued and name is not None]
    return found or [name for name in ordered if name in valued][:2]


def look_over(
    run: Run,
    measures: Sequence[str],
    tasks: Sequence[str] | None = None,
    readouts: Sequence[str] | None = None,
    site: str | None = None,
) -> list[Overview]:
    """Return tables of some measures of a run: by task, of measures with layers at the last block, and one by layer.

    A task's row is the mean over its levels, at steps at which every level has a value. The table by layer is of the
    first task.

    Raises:
        UserError: nothing of that name, an ambiguity, or no value at all.
    """
    found: list[Overview] = []
    for measure in measures:
        sites = None if site is None else [site]
        own = run.observations.filter(pl.col("measure") == measure)
        of_scores = readouts if own["readout"].drop_nulls().len() else None
        at_layers = sites is None and own["layer"].drop_nulls().len() > 0
        asked = Asked([measure], tasks=tasks, readouts=of_scores, layers="last" if at_layers else None,
                      sites=sites if own["site"].drop_nulls().len() else None)  # fmt: skip
        chosen = select_rows([run], asked)
        found.append(_by_task(run, measure, chosen.rows, chosen.said))
        first = chosen.rows["task"].drop_nulls().sort().to_list()[:1] or None
        deep = select_rows([run], Asked([measure], tasks=first, readouts=of_scores)).rows if at_layers else chosen.rows
        if at_layers and deep["place"].n_unique() > 1:
            found.append(_by_layer(measure, deep))
    return found


def _by_task(run: Run, measure: str, rows: pl.DataFrame, said: Sequence[str]) -> Overview:
    names = [name for name in rows["task"].unique().sort(nulls_last=True).to_list()]
    levels = sorted(set(rows["level"].drop_nulls()))
    title = measure + (f", mean of {', '.join(levels)}" if len(levels) > 1 else "") + _place(rows)
    notes = list(said)
    if len(names) > MOST_ROWS:
        notes.append(f"tasks: {MOST_ROWS} of {len(names)} (--task)")
    chances = run.distinct.filter(pl.col("measure") == "chance_accuracy") if measure == "accuracy" else rows.clear()
    table = [
        Row(
            "all" if name is None else name,
            _mean_of_levels(rows.filter(pl.col("task").eq_missing(pl.lit(name, dtype=pl.String)))),
            next(reversed(_mean_of_levels(chances.filter(pl.col("task") == name)).values()), None),
        )
        for name in names[:MOST_ROWS]
    ]
    return Overview(measure, title, "task", _steps(rows), table, notes)


def _by_layer(measure: str, rows: pl.DataFrame) -> Overview:
    order = rows.select("place", "layer").unique().sort(pl.col("place") == FINAL_PLACE, "layer")["place"].to_list()
    final = [place for place in order if place == FINAL_PLACE]
    blocks = order[: len(order) - len(final)]
    chosen = [blocks[index] for index in _spread(len(blocks), MOST_ROWS - len(final))]
    shown = [*chosen, *final]
    table = [
        Row("LN" if place == FINAL_PLACE else place.removeprefix("layer_"), _mean_of_levels(part))
        for place in shown
        if (part := rows.filter(pl.col("place") == place)).height
    ]
    notes = [f"blocks: {len(chosen)} of {len(blocks)} (plot has all)"] if len(chosen) < len(blocks) else []
    notes += ["LN: after the final LayerNorm"] if final else []
    task = rows["task"][0]
    title = f"{measure}, by block" + (f", {task}" if task else "")
    return Overview(measure, title, "block", _steps(rows), table, notes)


def _place(rows: pl.DataFrame) -> str:
    """Return at which block, and under which readout, the rows of a table by task were taken."""
    words = []
    if rows["place"].n_unique() == 1 and rows["place"][0] is not None:
        layer = rows["layer"][0]
        words.append("after the final LayerNorm" if rows["place"][0] == FINAL_PLACE else f"block {layer}, the last")
    if rows["readout"].n_unique() == 1 and rows["readout"][0] is not None:
        words.append(str(rows["readout"][0]))
    return "".join(f", {word}" for word in words)


def _steps(rows: pl.DataFrame) -> list[int]:
    return sorted(rows["step"].unique())


def _mean_of_levels(rows: pl.DataFrame) -> dict[int, float]:
    """Return the mean over levels by step. A step at which a level has no value is left out: it would jump there.

    Raises:
        UserError: a level has two values at a step.
    """
    each = rows.select("step", "level", "value").drop_nulls("value")
    if each.select("step", "level").is_duplicated().any():
        raise UserError("several values a task and step: choose a --readout or --site")
    counted = each.group_by("step").agg(pl.col("value").mean(), pl.len()).sort("step")
    whole = counted.filter(pl.col("len") == each["level"].n_unique())
    return dict(zip(whole["step"].to_list(), whole["value"].to_list(), strict=True))


def _spread(count: int, most: int) -> list[int]:
    """Return at most ``most`` of ``count`` places, evenly, first and last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(place * (count - 1) / (most - 1)) for place in range(most)})


def latest_numbers(run: Run) -> tuple[dict[str, float], list[str]]:
    """Return the numbers of a run's last step by ``measure/task``, as ``look_over`` has them, and what is left out.

    Every measure but controls; those with layers at the last block, under the readout that pages show.
    """
    numbers: dict[str, float] = {}
    left_out: list[str] = []
    last = max(run.observations["step"])
    for measure in run.observations["measure"].unique().sort():
        own = run.observations.filter(pl.col("measure") == measure)
        if measure in (*_CONTROLS, "checkpoint") or own["value"].is_null().all():
            continue
        shown = [run.readout] if run.readout and run.readout in own["readout"].to_list() else None
        try:
            table = look_over(run, [measure], readouts=shown)[0]
        except UserError as error:
            left_out.append(f"{measure}: {error}")
            continue
        numbers |= {f"{measure}/{row.name}": row.values[last] for row in table.rows if last in row.values}
    return numbers, left_out


def columns_of(table: Overview, count: int) -> list[int]:
    """Return the steps that are columns, at most ``count``, spread over a logarithmic axis."""
    return list(table.steps) if len(table.steps) <= count else spread_steps(table.steps, count)
