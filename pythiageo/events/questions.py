"""Whether runs that are taken together were asked the same questions, task by task."""

from __future__ import annotations

import polars as pl

from pythiageo.errors import UserError
from pythiageo.events.trajectory import RUN_KEY

UNNAMED = "unnamed"
"""A probe set that nobody named: it cannot be said to be another's."""
_NAMED = 4


def name_probe_sets(observations: pl.DataFrame) -> pl.DataFrame:
    """Return the probe sets of every run, task and level as one text: run, task, level, ``hash``."""
    hashes = pl.col("probe_set").fill_null(UNNAMED).unique().sort().str.join(", ").alias("hash")
    return observations.drop_nulls("task").group_by(*RUN_KEY, "task", "level").agg(hashes).sort("task", "level", "run")


def other_questions(observations: pl.DataFrame) -> str | None:
    """Return in a sentence where runs of one table were asked other questions under one name, ``None``: nowhere."""
    found = name_probe_sets(observations)
    differing = found.filter(
        (pl.len().over("task", "level") > 1)
        & ((pl.col("hash").n_unique().over("task", "level") > 1) | pl.col("hash").str.contains(UNNAMED))
    )
    if not differing.height:
        return None
    names = [f"{task} {level}" for task, level in differing.select("task", "level").unique(maintain_order=True).rows()]
    first = differing.row(0, named=True)
    same = differing.filter((pl.col("task") == first["task"]) & pl.col("level").eq_missing(pl.lit(first["level"])))
    other = next((row for row in same.iter_rows(named=True) if row["hash"] != first["hash"]), same.row(1, named=True))
    more = f", and so in {len(names) - 1} more ({', '.join(names[1:_NAMED])}{' ...' if len(names) > _NAMED else ''})"
    said = f"{names[0]}'s is {first['hash']} in {first['run']} and {other['hash']} in {other['run']}"
    return f"the probe sets differ: {said}" + (more if len(names) > 1 else "")


def check_questions(observations: pl.DataFrame) -> None:
    """Refuse to take runs together that were not asked the same.

    Raises:
        UserError: they were not.
    """
    if differ := other_questions(observations):
        raise UserError(f"{differ}: ask these runs one by one, or measure them on the same probe sets.")
