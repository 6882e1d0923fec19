"""Claims about runs that were read: the runs of a regime together, under their readout and what they were trained on.

The command, the page, the figures and whoever writes a notebook ask here, and so are told the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from pythiageo.claims.every import ask_each, leave_all_undecided, trained_tasks
from pythiageo.claims.every import specification_curve as every_specification
from pythiageo.claims.result import ClaimResult, Specification
from pythiageo.errors import UserError
from pythiageo.events.run import Run, common_place
from pythiageo.names import AT_ROWS, READOUT
from pythiageo.observations.measures import rank_measures


@dataclass(frozen=True)
class Question:
    """Runs of one regime that are asked together: their observations, and what they are asked with."""

    regime: str
    observations: pl.DataFrame
    specification: Specification


def runs_by_regime(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of each regime, regimes in the order of their first run. They are never pooled."""
    result: dict[str, list[Run]] = {}
    for run in runs:
        result.setdefault(run.regime, []).append(run)
    return result


def question_of(
    runs: Sequence[Run],
    base: Specification | None = None,
    readout: str | None = None,
    trained: tuple[str, ...] | None = None,
) -> Question:
    """Return the question to the runs of one regime, under ``base`` with their readout and tasks.

    ``base`` of ``None`` asks of whichever rank the runs have (``common_place``). ``readout`` and ``trained`` replace
    what the runs show and what their manifests say they were trained on. Ranks grow with their rows, and tasks have
    different numbers of them: where the runs have the ranks of the readout that they show at one number of rows, too,
    these are asked, and the readout says so (``at_equal_rows``).

    Raises:
        UserError: runs that were trained on different tasks, and ``trained`` does not say which count.
    """
    shown = readout or at_equal_rows(runs, next((run.readout for run in runs if run.readout), READOUT))
    tasks = [trained or trained_tasks(run.manifest) for run in runs]
    for run, named in zip(runs, tasks, strict=True):
        if _as_set(named) != _as_set(tasks[0]):
            where = run.path or run.label
            raise UserError(
                f"{where} was trained on other tasks than the runs before it; name them with --trained, or ask one by "
                "one."
            )
    if base is None:
        place = common_place(runs, readout=readout)
        base = Specification(measure=place.measure, site=place.site)
    asked = replace(base, readout=shown, trained=tasks[0])
    return Question(runs[0].regime, pl.concat([run.distinct for run in runs]), asked)


def at_equal_rows(runs: Sequence[Run], readout: str) -> str:
    """Return the name of a readout's ranks at the largest number of rows at which no run lacks one, or the readout.

    A task with fewer rows has no rank there: it is not left out for that, then, but all are asked at what they have.
    """
    found: set[int] | None = None
    for run in runs:
        ranks = run.distinct.filter(pl.col("measure").is_in(rank_measures()) & pl.col("value").is_not_null())
        counts = dict(ranks.group_by("readout").len().iter_rows())
        if readout not in counts:
            continue
        begins = readout + AT_ROWS
        same = {name for name, count in counts.items() if count == counts[readout] and str(name).startswith(begins)}
        numbers = [name.removeprefix(begins) for name in same]
        rows = {int(number) for number in numbers if number.isdecimal() and len(number) < 9}
        found = rows if found is None else found & rows
    return f"{readout}{AT_ROWS}{max(found)}" if found else readout


def _as_set(tasks: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if tasks is None else frozenset(tasks)


def ask(runs: Sequence[Run]) -> dict[str, list[ClaimResult]]:
    """Return every claim about the runs of each regime, as ``pythiageo claims`` answers it without options.

    A claim that these runs cannot be asked (no rank measure, trained on different tasks) is not decidable, with that as
    reason.
    """
    answers = {}
    for regime, some in runs_by_regime(runs).items():
        try:
            question = question_of(some)
        except UserError as error:
            answers[regime] = leave_all_undecided(str(error), Specification())
            continue
        answers[regime] = ask_each(question.observations, question.specification)
    return answers


def claims_of_figures(answers: Mapping[str, Sequence[ClaimResult]]) -> Sequence[ClaimResult]:
    """Return the answers that the study's figures show: of task-aligned runs, or of the first regime there is."""
    return answers.get("task-aligned", next(iter(answers.values()), []))


def ask_under_every_specification(
    runs: Sequence[Run], progress: Callable[[str, int], None] | None = None
) -> pl.DataFrame:
    """Return every claim under every specification; minutes for a run with ten readouts.

    Where there are several regimes, a claim's name says of which. ``progress`` is called with each claim's name and its
    count of specifications before it is asked.

    Raises:
        UserError: runs of a regime that were trained on different tasks.
    """
    by_regime = runs_by_regime(runs)
    curves = []
    for regime, some in by_regime.items():
        question = question_of(some)
        curve = every_specification(question.observations, question.specification, progress=progress)
        if len(by_regime) > 1:
            curve = curve.with_columns(pl.format("{}, {}", "name", pl.lit(regime)).alias("name"))
        curves.append(curve)
    return pl.concat(curves)
