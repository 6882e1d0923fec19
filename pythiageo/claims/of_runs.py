"""Claims about runs that were read: under the readout that they show, and the tasks that they were trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from pythiageo.claims.every import ask_each, trained_tasks
from pythiageo.claims.every import specification_curve as every_specification
from pythiageo.claims.result import ClaimResult, Specification
from pythiageo.events.run import Run
from pythiageo.names import READOUT


def ask(runs: Sequence[Run]) -> list[ClaimResult]:
    """Return every claim about the runs together, under the specification that the page shows.

    A claim that these runs cannot be asked (no rank measure, no such readout) is not decidable, with that as reason.
    """
    return ask_each(pl.concat([run.distinct for run in runs]), specification_of(runs))


def specification_of(runs: Sequence[Run]) -> Specification:
    """Return the readout that the runs show, and the tasks that all runs on tasks were trained on."""
    readout = next((run.readout for run in runs if run.readout), READOUT)
    trained = {trained_tasks(run.manifest) for run in runs if run.regime == "task-aligned"}
    return Specification(readout=readout, trained=trained.pop() if len(trained) == 1 else None)


def ask_under_every_specification(
    runs: Sequence[Run], progress: Callable[[str, int], None] | None = None
) -> pl.DataFrame:
    """Return every claim under every specification; minutes for a run with ten readouts.

    ``progress`` is called with each claim's name and its count of specifications before it is asked.
    """
    table = pl.concat([run.distinct for run in runs])
    return every_specification(table, specification_of(runs), progress=progress)
