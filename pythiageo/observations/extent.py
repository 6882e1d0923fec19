"""How much a run may hold for its events to be read: a page or a comparison of more would not end."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pythiageo.errors import UserError
from pythiageo.observations.reader import read_columns, read_observations

STEPS, TASKS = 50_000, 2_000
"""Checkpoints, and tasks at their levels. Each costs a page some 30 microseconds, and some 4 milliseconds."""


def read_bounded(run_folder: Path) -> pl.DataFrame:
    """Return the observations of a run that is small enough for reports, comparisons and claims.

    Raises:
        UserError: as ``read_observations``; more than ``STEPS`` checkpoints or ``TASKS`` tasks at their levels.
    """
    asked = read_columns(run_folder, ["step", "task", "level"])
    steps, tasks = asked["step"].n_unique(), asked.select("task", "level").unique().height
    for count, most, what, way in (
        (steps, STEPS, "checkpoints", "--last-step N"),
        (tasks, TASKS, "tasks at their levels", "--tasks A,B"),
    ):
        if count > most:
            raise UserError(
                f"{run_folder} holds {count:,} {what}, and {most:,} are the most that are looked at together: take a "
                f"part with pythiageo runs excerpt {run_folder} --out PART {way}"
            )
    return read_observations(run_folder)
