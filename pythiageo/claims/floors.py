"""Collapse floors: how much the floor of a task varies with the size of the model, at matched cadence."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy import stats  # type: ignore[import-untyped]

from pythiageo.claims.evidence import Evidence, counted_events, edge_note
from pythiageo.claims.register import PLACE, declare
from pythiageo.claims.result import (
    ALPHA,
    CONTRADICTED,
    NOT_DECIDABLE,
    SUPPORTED,
    ClaimResult,
    Specification,
    leave_undecided,
    single_ones,
)
from pythiageo.errors import count_noun
from pythiageo.events.trajectory import RUN_KEY
from pythiageo.stats.resampling import percentile_interval
from pythiageo.study.protocols import AT_EDGE, get_protocol

CLAIM = "the collapse floor of a task is the same at every size"
SAME = 0.2
"""A coefficient of variation below this counts as the same: the study calls 0.08 to 0.18 invariant, 0.42 not."""
RULE = (
    "estimate: median over tasks of the floor's coefficient of variation over sizes (population std over mean), "
    f"floors at the steps that all runs have; supported: its 95% bootstrap interval over tasks lies below {SAME} and "
    f"the sign test of so many tasks below it gives p <= 0.05; contradicted: the same above; "
    "else not decidable; three sizes at least"
)
MIN_SIZES = 3


@declare("floors", 2, ("protocol", *PLACE))
def floors(evidence: Evidence, specification: Specification) -> ClaimResult:
    """Return the floor of every task at every size (mean over seeds), and its variation.

    ``table``: a row a task: ``sizes``, ``mean``, ``std``, ``cv``, ``seed_cv`` (mean over sizes of the variation over
    seeds, null without seeds), ``shared_checkpoints``. ``cases``: a row a run and task, the floor at all the run's own
    checkpoints beside that at the shared ones, and ``status``: that of its transition, or ``at-edge`` where the shared
    checkpoints are lowest at their first or last one. Where the protocol counts no minimum at an edge, only those found
    count. The null is ``SAME``.
    """
    protocol = get_protocol(specification.protocol)
    low, high = protocol.floor_window
    curves = evidence.curves(specification).filter(pl.col("value").is_not_null() & pl.col("step").is_between(low, high))
    runs = curves.select(RUN_KEY).unique().height
    if not runs:
        return leave_undecided("floors", CLAIM, RULE, f"no value of the measure in steps {low}-{high}", specification)
    shared = curves.group_by("task", "step", maintain_order=True).agg(pl.struct(RUN_KEY).n_unique().alias("runs"))
    shared = shared.join(
        curves.group_by("task", maintain_order=True).agg(pl.struct(RUN_KEY).n_unique().alias("all_runs")), on="task"
    ).filter(pl.col("runs") == pl.col("all_runs"))
    matched = curves.join(shared.select("task", "step"), on=["task", "step"], how="semi")
    own = curves.group_by(*RUN_KEY, "task", maintain_order=True).agg(
        pl.col("value").min().alias("own_floor"), pl.len().alias("checkpoints")
    )
    level = (
        matched.sort("step")
        .group_by(*RUN_KEY, "task", maintain_order=True)
        .agg(
            pl.col("value").min().alias("floor"),
            pl.col("step").get(pl.col("value").arg_min()).alias("step"),
            pl.len().alias("shared_checkpoints"),
            pl.col("value").arg_min().is_between(0, pl.len() - 1, closed="none").not_().alias("outermost"),
        )
    )
    of = evidence.moves(specification).select(*RUN_KEY, "task", "status").unique([*RUN_KEY, "task"])
    status = pl.when("outermost").then(pl.lit(AT_EDGE)).otherwise("status").alias("status")
    level = level.join(of, on=[*RUN_KEY, "task"], how="left", nulls_equal=True).with_columns(status).drop("outermost")
    cases = own.join(level, on=[*RUN_KEY, "task"], how="left", nulls_equal=True).sort("task", *RUN_KEY)
    if not protocol.edge_counts:
        level = counted_events(level, specification)
    by_size = level.group_by("task", "size", maintain_order=True).agg(
        pl.col("floor").mean(),
        (pl.col("floor").std(ddof=1) / pl.col("floor").mean()).alias("seed_cv"),
        pl.col("shared_checkpoints").min(),
    )
    table = (
        by_size.group_by("task", maintain_order=True)
        .agg(
            pl.len().cast(pl.Int64).alias("sizes"),
            pl.col("floor").mean().alias("mean"),
            pl.col("floor").std(ddof=0).alias("std"),
            pl.col("seed_cv").mean(),
            pl.col("shared_checkpoints").min(),
        )
        .with_columns((pl.col("std") / pl.col("mean")).alias("cv"))
        .sort("task")
    )
    told = table.filter((pl.col("sizes") >= MIN_SIZES) & (pl.col("shared_checkpoints") >= MIN_SIZES))
    if not told.height:
        sizes = cases["size"].n_unique()
        reason = f"{count_noun(sizes, 'size')} with floors at shared checkpoints; {MIN_SIZES} are needed"
        return leave_undecided("floors", CLAIM, RULE, reason, specification, table)
    cvs = told["cv"].to_numpy()
    interval = None
    if cvs.size > 1:
        rng = np.random.default_rng(specification.seed)
        drawn = rng.integers(0, cvs.size, (specification.resamples, cvs.size))
        interval = percentile_interval(np.median(cvs[drawn], axis=1))
    below, above = (int((sign * cvs < sign * SAME).sum()) for sign in (1, -1))
    # a bootstrap of the median of a few tasks is too narrow by itself: it has the few values that they have
    p, p_above = (float(stats.binomtest(count, cvs.size, alternative="greater").pvalue) for count in (below, above))
    verdict = NOT_DECIDABLE
    if interval is not None and interval[1] < SAME and p <= ALPHA:
        verdict = SUPPORTED
    elif interval is not None and interval[0] > SAME and p_above <= ALPHA:
        verdict = CONTRADICTED
    seeds = told["seed_cv"].drop_nulls()
    note = (
        f"between seeds of one size it varies by {float(np.median(seeds.to_numpy())):.2g}"
        if seeds.len()
        else "one seed a size"
    )
    note = "; ".join([note, *edge_note(cases, specification)])
    return ClaimResult(
        "floors", CLAIM, table, verdict, RULE, float(np.median(cvs)), interval, SAME, p, told.height, note,
        specification, cases, single_ones(task=told.height),
    )  # fmt: skip
