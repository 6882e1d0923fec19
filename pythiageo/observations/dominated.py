"""Ranks whose rows say that sinks or one direction make them, counted for people."""

from __future__ import annotations

import polars as pl

from pythiageo.names import DOMINATED
from pythiageo.observations.measures import rank_measures

MAKERS = ("sinks", "one direction")
"""What may dominate a matrix, as the reason of a row has it after ``DOMINATED``."""


def count_dominated(observations: pl.DataFrame) -> pl.DataFrame:
    """Return, for each readout and maker, how many ranks with a value it dominates and where.

    Columns: ``readout``, ``by``, ``dominated``, ``of``, ``first_step``, ``last_step``, ``sites``.
    """
    ranks = observations.filter(pl.col("measure").is_in(rank_measures()) & pl.col("value").is_not_null())
    reason = pl.col("reason").fill_null("")
    parts = []
    for maker in MAKERS:
        said = reason.str.contains(f"{DOMINATED} {maker}", literal=True)
        counted = ranks.group_by("readout").agg(
            pl.lit(maker).alias("by"),
            said.sum().alias("dominated"),
            pl.len().alias("of"),
            pl.col("step").filter(said).min().alias("first_step"),
            pl.col("step").filter(said).max().alias("last_step"),
            pl.col("site").filter(said).n_unique().alias("sites"),
        )
        parts.append(counted.filter(pl.col("dominated") > 0))
    return pl.concat(parts).sort("readout", "by", nulls_last=True)
