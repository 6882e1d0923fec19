"""Layer profiles: a rank measure from the first block to the final LayerNorm at one checkpoint."""

from __future__ import annotations

import polars as pl

from pythiageo.errors import UserError
from pythiageo.events.trajectory import RUN_KEY, select_rows
from pythiageo.names import FINAL_NORM, READOUT
from pythiageo.observations.measures import rank_measures


def layer_profile(
    observations: pl.DataFrame,
    step: int,
    task: str,
    readout: str = READOUT,
    measure: str = "covariance_effective_rank",
) -> pl.DataFrame:
    """Return a measure by layer at one checkpoint, for every run that has the step.

    One row a site, blocks in order, then the final LayerNorm: the run's columns, ``step``, ``task``,
    ``level``, ``layer``, ``site``, ``relative_layer`` (layer over the index of the run's last block, 0 to
    1; 1 for a model of one block), ``readout``, ``measure``, ``value``, ``status``, ``reason``.

    Raises:
        UserError: no geometry, or an unknown step, task, readout or measure.
    """
    geometry = observations.filter(pl.col("measure").is_in(rank_measures()) & pl.col("site").is_not_null())
    if not geometry.height:
        raise UserError("these observations hold no rank measure, so there is no layer profile.")
    for column, name in (("task", task), ("readout", readout), ("measure", measure)):
        geometry = select_rows(geometry, column, name)
    last = pl.col("layer").max().over(RUN_KEY)
    relative = pl.when(last == 0).then(1.0).otherwise(pl.col("layer") / last)
    rows = geometry.with_columns(relative.alias("relative_layer")).filter(pl.col("step") == step)
    if not rows.height:
        steps = geometry["step"].unique().sort().to_list()
        close = min(steps, key=lambda each: abs(each - step))
        raise UserError(f"no checkpoint at step {step} has {measure} of task {task}; the nearest step is {close}.")
    columns = [*RUN_KEY, "step", "task", "level", "layer", "site", "relative_layer"]
    return (
        rows.with_columns((pl.col("site") == FINAL_NORM).alias("after"))
        .sort(*RUN_KEY, "after", "layer", "site")
        .select(*columns, "readout", "measure", "value", "status", "reason")
    )
