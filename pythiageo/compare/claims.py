"""One table of claims: what each run says of each of the study's claims, all asked alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from pythiageo.claims import ClaimResult, Evidence, Specification, ask_each
from pythiageo.claims.of_runs import question_of
from pythiageo.claims.result import describe_verdict
from pythiageo.events import Run

CLAIMS_SCHEMA: dict[str, pl.DataType] = {
    "name": pl.String(),
    "claim": pl.String(),
    "run": pl.String(),
    "regime": pl.String(),
    "verdict": pl.String(),
    "estimate": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "null": pl.Float64(),
    "p": pl.Float64(),
    "n": pl.Int64(),
    "rests_on": pl.String(),
    "reason": pl.String(),
}


def claims_by_run(runs: Sequence[Run], base: Specification | None = None, readout: str | None = None) -> pl.DataFrame:
    """Return every claim asked of every run by itself (columns: ``CLAIMS_SCHEMA``), claims in one order.

    Each run is asked as ``pythiageo claims RUN`` asks it (``question_of``): under the readout that it shows, of the
    tasks that its own manifest says it was trained on. A claim that one run cannot decide (seeds and sizes need
    several) has its reason; ``claims`` asks it of several runs together.
    """
    answers = {}
    for run in runs:
        question = question_of([run], base, readout)
        answers[run] = ask_each(Evidence(question.observations), question.specification)
    return tabulate_answers(answers)


def tabulate_answers(answers: Mapping[Run, Sequence[ClaimResult]]) -> pl.DataFrame:
    """Return the answers of runs that were asked one by one (columns: ``CLAIMS_SCHEMA``), claims in one order."""
    rows = []
    for number, (run, results) in enumerate(answers.items()):
        for order, result in enumerate(results):
            low, high = result.interval or (None, None)
            figures = (result.estimate, low, high, result.null, result.p, result.n, result.rests_on, result.reason)
            rows.append((order, number, result.name, result.claim, run.label, run.regime, result.verdict, *figures))
    return (
        pl.DataFrame(rows, schema={"order": pl.Int64(), "number": pl.Int64(), **CLAIMS_SCHEMA}, orient="row")
        .sort("order", "number")
        .drop("order", "number")
    )


def describe_answer(row: Mapping[str, Any]) -> str:
    """Return a claim's answer as a cell: verdict, with what it rests on, estimate and interval, where there are any."""
    verdict = describe_verdict(row["verdict"], row["rests_on"])
    if row["estimate"] is None:
        return verdict
    interval = "" if row["low"] is None else f" ({row['low']:.2f} to {row['high']:.2f})"
    return f"{verdict}: {row['estimate']:.2f}{interval}"


def side_by_side(claims: pl.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return the runs, and for each claim its name and a cell for each run."""
    runs = claims["run"].unique(maintain_order=True).to_list()
    rows = []
    for group in claims.partition_by("name", maintain_order=True):
        cells = {row["run"]: describe_answer(row) for row in group.iter_rows(named=True)}
        rows.append([group["name"][0], *(cells.get(run, "-") for run in runs)])
    return runs, rows
