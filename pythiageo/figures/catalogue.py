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
    # figures 4 and 5 are those that show claims
    of = {"fig-4": _regimes(runs), "fig-5": _regimes(runs)} if claims else {}
    return [replace(figure, lacks=(*figure.lacks, *of.get(figure.id, ()), *differ)) for figure in figures]


def _regimes(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return a sentence where runs of several regimes are shown: claims are asked of each regime by itself."""
    known = list(dict.fromkeys(run.regime for run in runs))
    shown = "task-aligned" if "task-aligned" in known else known[0] if known else ""
    return (f"(b) is of the {shown} runs: regimes are not pooled",) if len(known) > 1 else ()


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
