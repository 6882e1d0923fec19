"""Hierarchy: which measure moves before, with, after an acquisition, or without any relation to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from pythiageo.claims.evidence import Evidence, edge_note
from pythiageo.claims.precursor import RELATIONS, Pairing, pairings, rate_test
from pythiageo.claims.register import EVENT, PLACE, declare
from pythiageo.claims.result import ClaimResult, Specification, judge, leave_undecided, single_ones
from pythiageo.errors import UserError
from pythiageo.events.trajectory import RUN_KEY

CLAIM = "the measure moves before a task is acquired, more often than before another task is"
RULE = (
    "supported: the rate's 95% interval lies above the rate at which other tasks' measures lead the same acquisitions "
    "and the permutation of task labels gives p <= 0.05; contradicted: below it, and the same from below; else not "
    "decidable; a transition that was not seen by the end leads nothing"
)
CASE_COLUMNS: dict[str, pl.DataType] = {
    "run": pl.String(), "series": pl.String(), "regime": pl.String(), "size": pl.String(), "seed": pl.Int64(),
    "level": pl.String(), "task": pl.String(), "class": pl.String(), "measure": pl.String(), "relation": pl.String(),
    "lead_steps": pl.Float64(), "lead_checkpoints": pl.Float64(), "peak_r": pl.Float64(),
}  # fmt: skip
RATE_COLUMNS: dict[str, pl.DataType] = {
    "measure": pl.String(), "class": pl.String(), "size": pl.String(), "n": pl.Int64(), "models": pl.Int64(),
    "tasks": pl.Int64(),
    **{name.replace(" ", "_"): pl.Int64() for name in RELATIONS},
    "rate": pl.Float64(), "low": pl.Float64(), "high": pl.Float64(), "null_rate": pl.Float64(),
    "null_pairs": pl.Int64(), "p": pl.Float64(), "p_below": pl.Float64(), "median_lead_steps": pl.Float64(),
    "median_lead_checkpoints": pl.Float64(),
}  # fmt: skip


def _answer_in_curve(evidence: Evidence, asked: Specification) -> ClaimResult:
    return hierarchy(evidence, asked, [asked.measure], parts=False)


@declare("hierarchy", 6, (*EVENT, *PLACE, "rule"), _answer_in_curve)
def hierarchy(
    evidence: Evidence, specification: Specification, measures: Sequence[str] | None = None, parts: bool = True
) -> ClaimResult:
    """Return for every measure (all there are, if ``None``), class and size how often it leads, is synchronous, lags
    or shows no relation.

    ``table``: rates with their null (``RATE_COLUMNS``; ``all`` stands for every class or size). ``cases``: one row an
    event and measure (``CASE_COLUMNS``). Only acquisitions that were found are events. The verdict is on the
    specification's measure over all classes and sizes; without ``parts`` the table has that row of each measure
    alone. Medians are over the cases with a lead or lag.
    """
    found: dict[str, list[Pairing]] = {}
    for measure in evidence.measures if measures is None else measures:
        try:
            found[measure] = _trained(pairings(evidence, specification, measure), specification)
        except UserError:  # this measure was not taken at this site or readout; the others were
            continue
    cases = _cases([each for some in found.values() for each in some], specification)
    table = _rates(found, specification, cases, parts)
    own = table.filter(
        (pl.col("measure") == specification.measure) & (pl.col("class") == "all") & (pl.col("size") == "all")
    )
    if not own.height or not own["n"][0]:
        what = f"a transition of {specification.measure} at {specification.site}"
        reason = f"no acquisition of a trained task with {what} was found"
        return leave_undecided("hierarchy", CLAIM, RULE, reason, specification, table)
    row = own.row(0, named=True)
    interval = (row["low"], row["high"]) if row["low"] is not None else None
    notes = []
    if row["models"] == 1:
        notes.append("one model: its tasks are not independent of one another")
    if interval is None:
        notes.append("fewer than two tasks")
    if row["null_rate"] is not None and row["null_rate"] >= 0.9:
        notes.append(f"it leads other tasks' acquisitions too ({row['null_rate']:.0%}), so leading says little")
    if specification.rule != "v1":
        notes += edge_note(evidence.moves(specification), specification)
    return ClaimResult(
        "hierarchy", CLAIM, table, judge(interval, row["null_rate"], row["p"], row["p_below"]), RULE, row["rate"],
        interval, row["null_rate"], row["p"], row["n"], "; ".join(notes) or None, specification, cases,
        single_ones(model=row["models"], task=row["tasks"]),
    )  # fmt: skip


def _trained(found: list[Pairing], specification: Specification) -> list[Pairing]:
    if specification.trained is None:
        return found
    result = []
    for each in found:
        kept = [index for index, task in enumerate(each.tasks) if task in specification.trained]
        square = np.ix_(kept, kept)
        arrays = [part[square] for part in (each.relation, each.lead_steps, each.lead_checkpoints, each.peak)]
        arrays += [each.moved[kept], each.acquired[kept], each.not_before[kept]]
        result.append(Pairing(each.run, each.level, each.measure, tuple(each.tasks[i] for i in kept), *arrays))
    return result


def _cases(found: list[Pairing], specification: Specification) -> pl.DataFrame:
    rows = []
    for each in found:
        for index, task in enumerate(each.tasks):
            code = int(each.relation[index, index])
            if code < 0:
                continue
            amounts = [_number(part[index, index]) for part in (each.lead_steps, each.lead_checkpoints, each.peak)]
            rows.append(
                [*each.run, each.level, task, specification.task_class(task), each.measure, RELATIONS[code], *amounts]
            )
    return pl.DataFrame(rows, schema=CASE_COLUMNS, orient="row").sort("measure", *RUN_KEY, "task", "level")


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _rates(
    found: dict[str, list[Pairing]], specification: Specification, cases: pl.DataFrame, parts: bool
) -> pl.DataFrame:
    rows = []
    for measure, some in found.items():
        own = cases.filter(pl.col("measure") == measure)
        sizes = ["all", *(own["size"].unique().sort().to_list() if parts else [])]
        for size in sizes:
            blocks = [each for each in some if size in ("all", each.run[RUN_KEY.index("size")])]
            of_size = own if size == "all" else own.filter(pl.col("size") == size)
            for task_class in ["all", *(of_size["class"].unique().sort().to_list() if parts else [])]:
                part = of_size if task_class == "all" else of_size.filter(pl.col("class") == task_class)
                test = rate_test(blocks, specification, set(part["task"]))
                low, high = test.interval or (None, None)
                counts = [part.filter(pl.col("relation") == name).height for name in RELATIONS]
                rows.append(
                    [measure, task_class, size, part.height, test.models, test.tasks, *counts, test.rate, low, high,
                     test.null, test.null_pairs, test.p, test.p_below, part["lead_steps"].median(),
                     part["lead_checkpoints"].median()]
                )  # fmt: skip
    return pl.DataFrame(rows, schema=RATE_COLUMNS, orient="row")
