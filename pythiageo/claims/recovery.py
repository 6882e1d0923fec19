"""Recovery: how much of its fall a layer regains, and whether the last layer stays low while the middle rises."""

from __future__ import annotations

import numpy as np
import polars as pl

from pythiageo.claims.evidence import Evidence, counted_events, edge_note
from pythiageo.claims.register import LAYERS, declare
from pythiageo.claims.result import ClaimResult, Specification, judge, leave_undecided, single_ones
from pythiageo.errors import count_noun
from pythiageo.events.find import FOUND
from pythiageo.events.trajectory import RUN_KEY
from pythiageo.stats.resampling import cluster_interval

LEAST_FALL = 0.05
"""A block that falls by less than this share of its first value has no recovery: it would be divided by noise."""
CLAIM = "at the end the last block stays compressed while the middle ones have recovered"
RULE = (
    "estimate: mean over models of the mean over tasks of recovery(middle blocks) - recovery(last block) at the last "
    f"checkpoint, of blocks that fell by {LEAST_FALL:.0%} of their first value or more; supported: its 95% t interval "
    "over models lies above 0; contradicted: below; else not decidable; three models at least"
)


@declare("recovery", 3, ("protocol", *LAYERS))
def recovery(evidence: Evidence, specification: Specification) -> ClaimResult:
    """Return every block's value and recovery at the floor, at acquisition and at the end.

    recovery(t) = (value(t) - floor) / (first value - floor), the floor the block's own minimum: 0 at it, 1 where all of
    the fall is regained. ``acquisition`` is the task's first acquired level. The middle are the blocks from a third to
    two thirds of the way from first to last, the last left out. ``floor_of_last`` is the step at which the last block
    has its minimum. A row a run, task, block and moment; ``recovery`` is null for a fall of less than ``LEAST_FALL``.
    """
    every = evidence.layers(specification, "transition").filter(pl.col("site").str.ends_with(".hook_resid_post"))
    falls = counted_events(every, specification)
    if not falls.height:
        return leave_undecided("recovery", CLAIM, RULE, "no block has a floor", specification)
    key = [*RUN_KEY, "task", "level"]
    floors = falls.select(*key, "layer", pl.col("value").alias("floor"), "first_value")
    last = falls.filter(pl.col("layer") == pl.col("layer").max().over(RUN_KEY))
    ends = evidence.observations.group_by(RUN_KEY, maintain_order=True).agg(pl.col("step").max())
    acquired = (
        evidence.acquisitions(specification)
        .filter(pl.col("status") == FOUND)
        .group_by(*RUN_KEY, "task", maintain_order=True)
        .agg(pl.col("step").min())
    )
    tasks = floors.select(key).unique()
    moments = pl.concat(
        [
            last.select(*key, "step", pl.lit("floor_of_last").alias("moment")),
            tasks.join(acquired, on=[*RUN_KEY, "task"], nulls_equal=True).select(
                *key, "step", pl.lit("acquisition").alias("moment")
            ),
            tasks.join(ends, on=RUN_KEY, nulls_equal=True).select(*key, "step", pl.lit("end").alias("moment")),
        ]
    )
    depth = pl.col("layer").max().over(RUN_KEY)
    values = evidence.values(specification).select(*key, "layer", "step", "value")
    fall = pl.col("first_value") - pl.col("floor")
    deep = fall >= LEAST_FALL * pl.col("first_value").abs()
    shallow = floors.filter(~deep).height
    table = (
        moments.join(values, on=[*key, "step"], nulls_equal=True)
        .join(floors, on=[*key, "layer"], how="left", nulls_equal=True)
        .with_columns(
            pl.when(deep).then((pl.col("value") - pl.col("floor")) / fall).alias("recovery"),
            pl.when(depth > 0).then(pl.col("layer") / depth).otherwise(1.0).alias("relative_layer"),
        )
        .sort(*key, "moment", "layer")
    )
    middle = pl.col("relative_layer").is_between(1 / 3 - 1e-9, 2 / 3 + 1e-9)
    by_case = (
        table.filter(pl.col("moment") == "end")
        .group_by(key, maintain_order=True)
        .agg(
            pl.col("recovery").filter(middle).mean().alias("middle"),
            pl.col("recovery").filter(pl.col("relative_layer") == 1).mean().alias("last"),
        )
        .with_columns((pl.col("middle") - pl.col("last")).alias("gap"))
        .drop_nulls("gap")
    )
    if not by_case.height:
        return leave_undecided(
            "recovery", CLAIM, RULE, "no run with a middle block has recoveries", specification, table
        )
    means = by_case.group_by(RUN_KEY, maintain_order=True).agg(pl.col("gap").mean())["gap"].to_numpy()
    interval = cluster_interval(means)
    notes = [] if interval else [f"{count_noun(means.size, 'model')}; tasks of one model are not independent cases"]
    if shallow:
        notes.append(f"{shallow} of {floors.height} falls are of less than {LEAST_FALL:.0%} and have no recovery")
    note = "; ".join([*notes, *edge_note(every, specification)]) or None
    return ClaimResult(
        "recovery", CLAIM, table, judge(interval, 0.0), RULE, float(np.mean(means)), interval, 0.0, None,
        by_case.height, note, specification, by_case.sort(key), single_ones(model=means.size),
    )  # fmt: skip
