"""Every figure and table of the paper, in its order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from pythiageo.claims import ClaimResult
from pythiageo.events.questions import other_questions
from pythiageo.events.run import Run
from pythiageo.figures import natural, relations, synthetic, tables
from pythiageo.figures.spec import PaperFigure, PaperTable


def paper_figures(runs: Sequence[Run], claims: Sequence[ClaimResult] = ()) -> list[PaperFigure]:
    """Return the paper's eight figures for these runs, each with what it lacks."""
    figures = [
        synthetic.emergence(runs),
        synthetic.task_floors(runs),
        synthetic.top_down(runs),
        relations.hierarchy(runs, claims),
        relations.prediction(runs, claims),
        natural.collapse(runs),
        synthetic.layers_over_training(runs),
        natural.curves(runs),
    ]
    differ = _differing(runs)
    return [replace(figure, lacks=(*figure.lacks, *differ)) for figure in figures]


def paper_tables(runs: Sequence[Run], claims: Sequence[ClaimResult] = ()) -> list[PaperTable]:
    """Return the paper's tables for these runs, each with what it lacks."""
    found = [
        tables.task_table(runs),
        tables.size_table(runs),
        tables.measure_table(runs),
        tables.natural_sets_table(runs),
        tables.emergence_table(runs, "L2"),
        relations.hierarchy_table(claims),
        tables.training_table(runs),
        tables.emergence_table(runs, None),
        tables.probe_table(runs),
        tables.time_table(runs),
        tables.denoising_table(),
        tables.freezing_table(runs),
    ]
    differ = _differing(runs)
    return [replace(table, lacks=(*table.lacks, *differ)) for table in found]


def _differing(runs: Sequence[Run]) -> list[str]:
    """Return where the runs were asked other questions: every figure and table of them says so."""
    differ = other_questions(pl.concat([run.distinct for run in runs]))
    return [differ] if differ else []
