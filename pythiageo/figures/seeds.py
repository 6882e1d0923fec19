"""Runs that differ in their seed alone, drawn as one: the mean of the seeds, and the lowest and highest of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from pythiageo.errors import UserError, count_noun
from pythiageo.events.questions import check_questions
from pythiageo.events.run import Run
from pythiageo.events.settings import differing_settings

INCOMPLETE = "not every seed"
"""Status of a place at which a seed has no value: a mean of fewer seeds would jump where one comes or goes."""
_PLACE = ["measure", "task", "level", "readout", "site_kind", "place", "layer", "depth", "step"]


def pool_seeds(table: pl.DataFrame, runs: Sequence[Run]) -> pl.DataFrame:
    """Return the rows of runs of one regime and size as those of one run: mean, ``low`` and ``high``.

    Raises:
        UserError: runs of one regime and size with the same seed or none, with other settings, or that were asked other
            questions; or no two runs of one regime and size.
    """
    there = set(table["run"])
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.label in there:
            groups.setdefault((run.regime, run.size), []).append(run)
    if all(len(members) < 2 for members in groups.values()):
        here = ", ".join(f"{run.label} ({run.size}, {run.regime})" for run in runs)
        raise UserError(f"--seeds band: expected runs of one size and regime that differ in seed; here: {here}")
    several = len({size for _, size in groups}) < len(groups)
    names: dict[str, str] = {}
    counts: dict[str, int] = {}
    for (regime, size), members in groups.items():
        _check(members)
        seeds = count_noun(len(members), "seed") if len(members) > 1 else f"seed {_seed(members[0])}"
        name = f"{size}, {regime} ({seeds})" if several else f"{size} ({seeds})"
        names |= {run.label: name for run in members}
        counts[name] = len(members)
    value, every = pl.col("value"), pl.col("value").count() == pl.col("run").replace_strict(counts).first()
    whole = [pl.when(every).then(each) for each in (value.mean(), value.min(), value.max())]
    return (
        table.with_columns(pl.col("run").replace_strict(names))
        .group_by("run", *_PLACE, maintain_order=True)
        .agg(
            *(each.alias(name) for each, name in zip(whole, ("value", "low", "high"), strict=True)),
            pl.when(every).then(pl.lit("ok")).otherwise(pl.lit(INCOMPLETE)).alias("status"),
        )
    )


def _seed(run: Run) -> Any:
    return run.distinct["seed"][0]


def _check(members: Sequence[Run]) -> None:
    """Refuse runs that differ in more than their seed, as far as tables and manifests say."""
    known: dict[Any, Run] = {}
    first = members[0]
    if len(members) < 2:
        return
    for run in members:
        seed = _seed(run)
        if seed is None or seed in known:
            other = f" as {known[seed].label} has" if seed in known else ""
            raise UserError(
                f"--seeds band: {run.label} has {'no seed' if seed is None else f'seed {seed}'}{other}; "
                "expected runs that differ in seed alone"
            )
        known[seed] = run
        for key, (ours, theirs) in differing_settings([first, run]).items():
            raise UserError(
                f"--seeds band: {key} is {ours} in {first.label} and {theirs} in {run.label}; "
                "expected runs that differ in seed alone"
            )
    check_questions(pl.concat([run.distinct for run in members]))
