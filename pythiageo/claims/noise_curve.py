"""What a specification curve shows where there is nothing: the share of specifications that noise supports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from pythiageo.claims.every import holding_shares, specification_curve
from pythiageo.claims.noise import REVERTING, WALK, Design, OneRun, noise_table
from pythiageo.claims.result import Specification
from pythiageo.events.trajectory import RUN_KEY, depth_of
from pythiageo.observations.measures import score_measures

NOISE_TABLES = 10
NOISE_SHARES: dict[str, pl.DataType] = {
    "name": pl.String(), "specifications": pl.Int64(), "share_supported": pl.Float64(), "any_supported": pl.Float64(),
}  # fmt: skip
"""Columns: ``share_supported``, the mean over tables of the share of specifications that support the claim, and
``any_supported``, the share of tables in which one of them does."""


def noise_shares(
    asked: Design, base: Specification, families: Sequence[str] | None = None, tables: int = NOISE_TABLES
) -> pl.DataFrame:
    """Return the shares of a specification curve in tables of noise of one design (columns: ``NOISE_SHARES``).

    Random walks and mean-reverting noise in turn. Measures and readouts are alike there, so one stands for all.
    """
    found = []
    for number in range(tables):
        rng = np.random.default_rng([base.seed, number])
        table = noise_table((WALK, REVERTING)[number % 2], asked, rng)
        found.append(holding_shares(specification_curve(table, base, families)))
    share = pl.col("share_supported")
    shares = (
        pl.concat(found)
        .group_by("name", maintain_order=True)
        .agg(pl.col("specifications").max(), share.mean(), (share > 0).mean().alias("any_supported"))
    )
    return shares.select(pl.col(name).cast(kind) for name, kind in NOISE_SHARES.items())


def design_of(observations: pl.DataFrame, specification: Specification) -> Design:
    """Return the design of a table: its runs with their checkpoints and blocks, its tasks and levels."""
    runs = []
    for key, part in sorted(observations.partition_by(RUN_KEY, as_dict=True).items(), key=str):
        steps = tuple(part["step"].unique().sort().to_list())
        who: dict[str, Any] = dict(zip(RUN_KEY, key, strict=True))
        runs.append(OneRun(**who, steps=steps, layers=depth_of(part) or 1))
    scores = observations.filter(pl.col("measure").is_in(score_measures()) & pl.col("task").is_not_null())
    tasks = tuple(observations["task"].drop_nulls().unique().sort().to_list())
    levels = tuple(scores["level"].unique().sort().to_list()) or (None,)
    return Design(tuple(runs), tasks, levels, specification.measure, specification.readout)


def beside_noise(
    curve: pl.DataFrame, observations: pl.DataFrame, base: Specification, families: Sequence[str] | None = None
) -> pl.DataFrame:
    """Return ``holding_shares`` of a curve with a column ``share_supported_noise``.

    It is the mean share of specifications that support the claim in ``NOISE_TABLES`` tables of noise of the same runs,
    tasks, levels and checkpoints.
    """
    noise = noise_shares(design_of(observations, base), base, families)
    renamed = noise.select("name", pl.col("share_supported").alias("share_supported_noise"))
    return holding_shares(curve).join(renamed, on="name", how="left", maintain_order="left")
