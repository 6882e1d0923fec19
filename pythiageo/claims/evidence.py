"""Evidence: an observation table with the events that claims ask of it, each made once."""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any

import numpy as np
import polars as pl

from pythiageo.claims.result import Specification
from pythiageo.events.find import events, timeline_rows
from pythiageo.events.questions import check_questions
from pythiageo.events.trajectory import RUN_KEY, at_site, select_rows, without_duplicates
from pythiageo.events.transitions import transitions
from pythiageo.observations.measures import score_measures, unmoving_measures
from pythiageo.study.protocols import AT_EDGE, FOUND, NOT_REACHED, get_protocol


class Evidence:
    """Observations of one or more runs. Every claim takes one; asking the same thing again costs nothing.

    Raises:
        UserError: runs that were not asked the same questions, or a step with two weight fingerprints.
    """

    def __init__(self, observations: pl.DataFrame) -> None:
        check_questions(observations)
        self.observations = without_duplicates(observations)
        self._acquired = cache(self._acquisitions)
        self._moved = cache(self._transitions)
        self._chosen = cache(self._select)
        self.memory: dict[tuple[Any, ...], Any] = {}

    @cached_property
    def timelines(self) -> dict[tuple[Any, ...], np.ndarray]:
        """Steps of every run's distinct checkpoints, ascending."""
        parts = self.observations.select(*RUN_KEY, "step").unique().sort("step").partition_by(RUN_KEY, as_dict=True)
        return {key: part["step"].to_numpy() for key, part in parts.items()}

    @cached_property
    def measures(self) -> list[str]:
        """Names of the measures that are no scores."""
        found = (
            self.observations.filter(pl.col("task").is_not_null() & pl.col("readout").is_not_null())["measure"]
            .unique()
            .sort()
            .to_list()
        )
        return [name for name in found if name not in unmoving_measures() and not name.startswith("linear_probe")]

    def acquisitions(self, specification: Specification) -> pl.DataFrame:
        """Return the acquisition of every run, task and level under the specification's protocol and event."""
        return self._acquired(specification.protocol, specification.event)

    def layers(self, specification: Specification, event: str) -> pl.DataFrame:
        """Return ``event`` (``transition``, ``half_collapse``) of the measure and readout at every site."""
        return self._moved(specification.protocol).filter(
            (pl.col("event") == event)
            & (pl.col("measure") == specification.measure)
            & pl.col("readout").eq_missing(specification.readout)
        )

    def moves(self, specification: Specification, measure: str | None = None) -> pl.DataFrame:
        """Return the transition of one measure at the specification's site and readout, one row a run and task.

        A measure of the loss has no site, and a readout that names its parameters: the whole model's is taken.
        """
        name = measure or specification.measure
        of = self._moved(specification.protocol).filter((pl.col("event") == "transition") & (pl.col("measure") == name))
        return _one_place(of, specification)

    def curves(self, specification: Specification, measure: str | None = None) -> pl.DataFrame:
        """Return the values of one measure at the specification's site and readout, one row a run, task and step."""
        return self._chosen(measure or specification.measure, specification.readout, specification.site)

    def values(self, specification: Specification) -> pl.DataFrame:
        """Return the values of the specification's measure and readout at every block, whatever the site."""
        return self.observations.filter(
            (pl.col("measure") == specification.measure)
            & pl.col("readout").eq_missing(specification.readout)
            & pl.col("layer").is_not_null()
            & pl.col("site").str.ends_with(".hook_resid_post")
        )

    def _acquisitions(self, protocol: str, event: str) -> pl.DataFrame:
        scores = self.observations.filter(pl.col("measure").is_in(score_measures()))
        # a run's checkpoints are the whole table's: one without scores is a gap
        everywhere = pl.concat([scores, timeline_rows(self.observations)])
        found = events(everywhere, protocol).filter(pl.col("event") == event)
        return found.filter(pl.col("task").is_not_null())

    def _transitions(self, protocol: str) -> pl.DataFrame:
        return transitions(self.observations, protocol)

    def _select(self, measure: str, readout: str, site: str) -> pl.DataFrame:
        specification = Specification(readout=readout, site=site)
        return _one_place(self.observations.filter(pl.col("measure") == measure), specification)


def _one_place(rows: pl.DataFrame, specification: Specification) -> pl.DataFrame:
    layered = rows.filter(pl.col("site").is_not_null())
    if layered.height:
        return select_rows(at_site(layered, specification.site), "readout", specification.readout)
    return rows.filter(pl.col("layer").is_null())


def counted_events(found: pl.DataFrame, specification: Specification) -> pl.DataFrame:
    """Return the events that are some to a claim: those found, and those ``at-edge`` where the protocol counts them."""
    return found.filter(pl.col("status").is_in(_counted(specification)))


def edge_note(found: pl.DataFrame, specification: Specification) -> list[str]:
    """Return what a reader should know of the events at the edge of the protocol's window: a sentence, or none."""
    edge, whole = (found.filter(pl.col("status").is_in(words)).height for words in ([AT_EDGE], [AT_EDGE, FOUND]))
    if not edge:
        return []
    protocol = get_protocol(specification.protocol)
    told = f"count, as {protocol.name} has it" if protocol.edge_counts else "are left out"
    return [f"{edge} of {whole} extremes lie at the edge of the window of {protocol.name} and {told}"]


def steps_by_task(
    found: pl.DataFrame, specification: Specification
) -> dict[tuple[Any, ...], dict[tuple[str, str | None], int]]:
    """Return ``run -> (task, level) -> step`` of the events that count."""
    return _by_task(counted_events(found, specification))


def _by_task(rows: pl.DataFrame) -> dict[tuple[Any, ...], dict[tuple[str, str | None], int]]:
    result: dict[tuple[Any, ...], dict[tuple[str, str | None], int]] = {}
    for *run, task, level, step in rows.select(*RUN_KEY, "task", "level", "step").iter_rows():
        result.setdefault(tuple(run), {})[(task, level)] = step
    return result


def earliest_by_task(
    found: pl.DataFrame, specification: Specification, timelines: dict[tuple[Any, ...], np.ndarray]
) -> dict[tuple[Any, ...], dict[tuple[str, str | None], int]]:
    """Return ``run -> (task, level) -> step`` before which a transition that does not count was certainly not.

    The run's last checkpoint, where a measure was then still on its way; the step at the edge of the window, where the
    protocol does not count it.
    """
    ends = {run: int(steps[-1]) for run, steps in timelines.items()}
    result = _by_task(found.filter(pl.col("status") == NOT_REACHED))
    for run, tasks in result.items():
        tasks.update(dict.fromkeys(tasks, ends[run]))
    edge = _by_task(found.filter((pl.col("status") == AT_EDGE) & ~pl.col("status").is_in(_counted(specification))))
    for run, tasks in edge.items():
        result.setdefault(run, {}).update(tasks)
    return result


def _counted(specification: Specification) -> list[str]:
    return get_protocol(specification.protocol).counted
