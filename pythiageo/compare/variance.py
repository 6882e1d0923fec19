"""What the ranks of runs vary with: the settings of their training, what they acquired, or the seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from pythiageo.claims import Evidence, Specification
from pythiageo.errors import UserError
from pythiageo.events import Place, Run, get_protocol
from pythiageo.events.run import common_place
from pythiageo.events.settings import differing_settings
from pythiageo.events.trajectory import RUN_KEY
from pythiageo.stats.resampling import percentile_interval, smooth_weights
from pythiageo.stats.variance import crossed_shares, orthonormal_columns, residual_variances

FLOOR, FINAL = "floor", "final rank"
ALL, BETWEEN = "all values", "between runs of one task"
LEAST_FREEDOM = 5
"""Runs that a fit must have beyond its parameters: an interval of fewer is a guess."""
SCHEMA: dict[str, pl.DataType] = {
    **{name: pl.String() for name in ("quantity", "variance", "goes_with")},
    **{name: pl.Float64() for name in ("share", "low", "high", "beyond", "beyond_low", "beyond_high")},
}
_Parts = dict[str, list[np.ndarray]]


@dataclass(frozen=True)
class Variances:
    """What ``divide_variance`` found.

    Attributes:
        table: a row a quantity and what its variance may go with (columns: ``SCHEMA``).
        values: what it is made of, a row a run and task: run, seed, each setting, task, floor, final_rank, and
            the final accuracy of each level.
        place: the rank, readout and site.
        settings: the settings in which the runs differ, each with its values.
        runs, tasks: how many runs, and which tasks, every figure rests on.
        notes: sentences that a reader should know: what was left out, and why.
    """

    table: pl.DataFrame
    values: pl.DataFrame
    place: Place
    settings: dict[str, list[str]]
    runs: int
    tasks: list[str]
    notes: list[str]


@dataclass(frozen=True)
class _Values:
    """Logarithms of floor and final rank, ``(runs, tasks)``, and final accuracies, a ``(runs, levels)`` a task."""

    ranks: dict[str, np.ndarray]
    accuracies: list[np.ndarray]
    levels: list[list[str]]
    tasks: list[str]
    notes: list[str]


def divide_variance(
    runs: Sequence[Run],
    protocol: str = "billa-v4",
    measure: str | None = None,
    readout: str | None = None,
    site: str | None = None,
    resamples: int = 999,
    seed: int = 0,
) -> Variances:
    """Return what the variance of floors and of final ranks goes with: settings, accuracy, task, seed.

    It is that of the natural logarithm of a rank. The floor is the smallest value in the protocol's window, at its edge
    or not; final are rank and accuracies of the last checkpoint. ``all values``: components of a two-way analysis of
    runs and tasks (``stats.variance.crossed_shares``). ``between runs of one task``: 1 - s^2 / s0^2, with s^2 the
    residual variance of a fit in each task (settings by category, accuracy of each level by a line), summed over tasks,
    and s0^2 the variance itself; both are without bias, so that noise has a share of 0 on average, and may have less.
    ``share``: of the predictor by itself; ``beyond``: what the fit of all loses without it. Every figure is of the same
    runs and tasks. Intervals are the middle 95% of a Bayesian bootstrap of whole runs; tasks stay as they are.

    Raises:
        UserError: runs that were not asked the same, without a rank or accuracy, that differ in no setting, twice the
            same training; or fewer finished runs than the fit needs.
    """
    get_protocol(protocol)
    finished = [run for run in runs if run.manifest.status == "complete"]
    notes = [f"{run.label} is left out: its training is not complete" for run in runs if run not in finished]
    if not finished:
        raise UserError("no run here is complete; expected finished trainings")
    settings = differing_settings(finished)
    if not settings:
        raise UserError("these runs differ in no setting of their training, so that none can be asked about")
    _check_different(finished, settings)
    place = common_place(finished, measure, readout, site)
    asked = Specification(protocol, place.measure, place.readout, place.site)
    values = _collect(finished, asked)
    coded = {name: _by_category(each) for name, each in settings.items()}
    together = np.column_stack(list(coded.values()))
    needed = 1 + together.shape[1] + max(each.shape[1] for each in values.accuracies) + LEAST_FREEDOM
    if len(finished) < needed:
        raise UserError(f"{len(finished)} finished runs that differ in {', '.join(settings)}; {needed} are needed")
    notes += values.notes
    if orthonormal_columns(together).shape[1] < 1 + together.shape[1]:
        notes.append("some settings vary together, so that what goes with each of them cannot be told apart")
    combined = _by_category(list(zip(*settings.values(), strict=True)))
    if len(finished) - 1 - combined.shape[1] < max(LEAST_FREEDOM, (1 + combined.shape[1]) / 2):
        combined = np.empty((len(finished), 0))
        notes.append("too few runs share all settings to tell combinations of settings from the seed")
    weights = smooth_weights(len(finished), resamples, np.random.default_rng(seed))
    rows: list[list[object]] = []
    for quantity, ranks in values.ranks.items():
        if np.ptp(ranks, axis=0).max() == 0:
            notes.append(f"the {quantity} does not vary between runs")
            continue
        if len(values.tasks) > 1:
            shares = crossed_shares(ranks, weights)
            names = ("task", "run, whatever the task", "run and task together")
            rows += [[quantity, ALL, name, *_summary(shares[:, at]), *[None] * 3] for at, name in enumerate(names)]
        rows += [
            [quantity, BETWEEN, name, *_summary(alone), *(_summary(beyond) if beyond is not None else [None] * 3)]
            for name, alone, beyond in _shares(ranks, values.accuracies, coded, combined, weights)
        ]
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    shown = {name: sorted({json.dumps(each) for each in found}) for name, found in settings.items()}
    return Variances(table, _long(finished, settings, values), place, shown, len(finished), values.tasks, notes)


def _shares(
    ranks: np.ndarray,
    accuracies: list[np.ndarray],
    coded: dict[str, np.ndarray],
    combined: np.ndarray,
    weights: np.ndarray,
) -> list[tuple[str, np.ndarray, np.ndarray | None]]:
    """Return what varies, its share by itself and beyond the others, each under every set of weights: ``(draws,)``."""
    nothing = np.empty((len(ranks), 0))

    def explained(settings: list[np.ndarray], with_accuracy: bool) -> np.ndarray:
        fixed = np.column_stack(settings) if settings else nothing
        if not with_accuracy:
            return np.asarray(1 - residual_variances(ranks, fixed, weights).sum(axis=1) / whole)
        left = [
            residual_variances(ranks[:, [at]], np.column_stack([fixed, each]), weights)[:, 0]
            for at, each in enumerate(accuracies)
        ]
        return np.asarray(1 - np.sum(left, axis=0) / whole)

    whole = residual_variances(ranks, nothing, weights).sum(axis=1)
    every = explained(list(coded.values()), True)
    found: list[tuple[str, np.ndarray, np.ndarray | None]] = []
    for name, each in coded.items():
        others = [other for key, other in coded.items() if key != name]
        found.append((name, explained([each], False), every - explained(others, True)))
    settings, accuracy = explained(list(coded.values()), False), explained([], True)
    found.append(("all settings", settings, every - accuracy))
    found.append(("final accuracy", accuracy, every - settings))
    found.append(("all settings and final accuracy", every, None))
    if combined.shape[1]:
        of_cells = explained([combined], False)
        found += [("combinations of settings", of_cells, None), ("seed", 1 - of_cells, None)]
    return found


def _summary(draws: np.ndarray) -> list[float | None]:
    """Return the estimate, which is the first draw, and the ends of its interval."""
    return [float(draws[0]), *(percentile_interval(draws[1:]) or (None, None))]


def _by_category(values: Sequence[object]) -> np.ndarray:
    """Return a column of 0 and 1 for every different value but one: ``(runs, values - 1)``."""
    texts = [json.dumps(each) for each in values]
    return np.array([[float(text == name) for name in sorted(set(texts))[1:]] for text in texts])


def _check_different(runs: Sequence[Run], settings: dict[str, list[object]]) -> None:
    """Refuse a training that is there twice: it would count as two that agree."""
    known: dict[str, Run] = {}
    for run, *values in zip(runs, *settings.values(), strict=True):
        key = json.dumps([run.distinct["seed"][0], *values])
        if key in known:
            raise UserError(f"{run.label} and {known[key].label} are one training: expected another seed or setting")
        known[key] = run


def _collect(runs: Sequence[Run], asked: Specification) -> _Values:
    """Return the logarithms of the ranks, and the accuracies, of the tasks that have all of them in every run."""
    evidence = Evidence(pl.concat([run.observations for run in runs]))
    curves = evidence.curves(asked).filter(pl.col("value") > 0)
    low, high = get_protocol(asked.protocol).floor_window
    names = [run.label for run in runs]
    last = evidence.observations.group_by(RUN_KEY).agg(pl.col("step").max().alias("last"))
    curves = curves.join(last, on=RUN_KEY, nulls_equal=True)
    inside = pl.col("step").is_between(low, high)
    of_runs = curves.group_by("run", "task").agg(
        pl.col("value").filter(inside).min().alias(FLOOR),
        pl.col("value").filter(pl.col("step") == pl.col("last")).first().alias(FINAL),
        (pl.col("value").filter(inside).arg_min() == inside.sum() - 1).alias("at_end"),
    )
    scores = evidence.observations.filter((pl.col("measure") == "accuracy") & pl.col("value").is_not_null())
    scores = scores.join(last, on=RUN_KEY, nulls_equal=True).filter(pl.col("step") == pl.col("last"))
    ranks: dict[str, list[list[float]]] = {FLOOR: [], FINAL: []}
    accuracies, levels, tasks, lacking = [], [], [], []
    ends = 0
    for task in curves["task"].unique().sort().to_list():
        part = of_runs.filter(pl.col("task") == task).drop_nulls()
        scored = scores.filter(pl.col("task") == task).pivot("level", index="run", values="value").drop_nulls()
        if set(part["run"]) != set(names) or set(scored["run"]) != set(names):
            lacking.append(task)
            continue
        tasks.append(task)
        order = pl.DataFrame({"run": names})
        part, scored = (order.join(each, on="run", how="left", maintain_order="left") for each in (part, scored))
        ends += int(part["at_end"].sum())
        for quantity, rows in ranks.items():
            rows.append(part[quantity].log().to_list())
        scored = scored.select(sorted(set(scored.columns) - {"run"}))
        levels.append(scored.columns)
        accuracies.append(scored.to_numpy())
    if not tasks:
        raise UserError(f"no task has {asked.measure} and accuracies at the last checkpoint of every run")
    notes = [f"{task} is left out: not every run has its ranks and accuracies" for task in lacking]
    if ends:
        notes.append(
            f"{ends} of {len(tasks) * len(runs)} floors are the last value of the window, perhaps still falling"
        )
    return _Values({name: np.array(rows).T for name, rows in ranks.items()}, accuracies, levels, tasks, notes)


def _long(runs: Sequence[Run], settings: dict[str, list[object]], values: _Values) -> pl.DataFrame:
    """Return the values as a table, a row a run and task."""
    rows = []
    for at, run in enumerate(runs):
        who = {"run": run.label, "seed": run.distinct["seed"][0]}
        who |= {
            name: each[at] if isinstance(each[at], (int, float)) else str(each[at]) for name, each in settings.items()
        }
        for column, task in enumerate(values.tasks):
            ranks = {name.replace(" ", "_"): float(np.exp(each[at, column])) for name, each in values.ranks.items()}
            scored = zip(values.levels[column], values.accuracies[column][at].tolist(), strict=True)
            rows.append({**who, "task": task, **ranks, **{f"accuracy_{level}": score for level, score in scored}})
    return pl.DataFrame(rows, infer_schema_length=None)
