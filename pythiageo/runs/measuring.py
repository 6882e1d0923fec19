"""One checkpoint, all its observations: the one code path for a live model and for a saved one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from pythiageo.geometry.bootstrap import Bootstrap
from pythiageo.geometry.measure import Estimate, Measure, UndefinedMeasureError, get_measures
from pythiageo.geometry.reading import Reading, SiteStates
from pythiageo.geometry.readout import Readout, get_readouts
from pythiageo.observations import Observation
from pythiageo.probes.scoring import MEASURES, NonfiniteLogitsError, score
from pythiageo.runs.config import MeasureConfig
from pythiageo.runs.probing import SCORE, Prepared, Reader, read_options, read_predictions, read_states


@dataclass(frozen=True)
class Instruments:
    """The measures and readouts of a run, and the number of bootstrap resamples (0: none)."""

    measures: list[Measure]
    readouts: list[Readout]
    resamples: int = 0

    @classmethod
    def of(cls, config: MeasureConfig) -> Instruments:
        """Look the names of a config up."""
        return cls(get_measures(list(config.geometry)), get_readouts(list(config.readouts)), config.bootstrap)

    def bootstrap(self, prepared: Prepared) -> Bootstrap | None:
        """Return the resamples of a probe set, if any are wanted."""
        if not self.resamples:
            return None
        return Bootstrap(prepared.layout, prepared.probe.probe_set.sha, self.resamples)


@dataclass(frozen=True)
class Origin:
    """The columns that all rows of a checkpoint share."""

    run: str
    series: str
    regime: str
    size: str
    seed: int | None
    step: int
    tokens: int | None
    weight_sha: str | None

    def row(self, **columns: Any) -> Observation:
        """Return an observation; what is not given is null."""
        empty = dict.fromkeys(Observation._fields)
        return Observation(**{**empty, **vars(self), "status": "ok", **columns})

    def failed(self, measure: str, status: str, reason: str, **columns: Any) -> Observation:
        """Return an observation without a value."""
        return self.row(measure=measure, status=status, reason=reason, **columns)


def observe(
    reader: Reader,
    probes: list[Prepared],
    instruments: Instruments,
    origin: Origin,
    batch_tokens: int,
    nonfinite: str | None = None,
) -> list[Observation]:
    """Return every observation of one checkpoint.

    ``nonfinite`` says why the weights cannot be measured; then no forward pass is made, and every observation that
    would have been has the status ``nonfinite`` and that reason.
    """
    rows: list[Observation] = []
    for prepared in probes:
        if prepared.probe.purpose == SCORE:
            rows += _scores(reader, prepared, origin, batch_tokens, nonfinite)
        else:
            rows += _geometry(reader, prepared, instruments, origin, batch_tokens, nonfinite)
    return rows


def _columns(prepared: Prepared) -> dict[str, Any]:
    probe_set = prepared.probe.probe_set
    return {"task": probe_set.task, "level": probe_set.level, "probe_set": probe_set.sha}


def _scores(
    reader: Reader, prepared: Prepared, origin: Origin, batch_tokens: int, nonfinite: str | None
) -> Iterator[Observation]:
    columns = _columns(prepared)
    probe_set = prepared.probe.probe_set
    n = len(probe_set.examples)
    # the control stands beside the rate at every step, so that the table alone can be judged
    controls = {"chance_accuracy": probe_set.chance, "majority_rate": probe_set.majority_rate}
    for measure, value in controls.items():
        if value is not None:
            yield origin.row(measure=measure, value=value, n=n, **columns)
    reason = nonfinite
    if not nonfinite:
        try:
            right = read_predictions(reader, prepared.encoded, batch_tokens)
            options = read_options(reader, prepared, batch_tokens)
        except NonfiniteLogitsError as error:
            reason = str(error)
    if reason:
        measures = MEASURES[probe_set.rule]
        yield from (origin.failed(name, "nonfinite", reason, **columns) for name in measures)
        return
    for result in score(probe_set.rule, right, options):
        if not math.isfinite(result.value):
            yield origin.failed(result.measure, "nonfinite", "the value is beyond float64", **columns)
            continue
        yield origin.row(measure=result.measure, value=result.value, stderr=result.stderr, n=result.n, **columns)


def _geometry(
    reader: Reader,
    prepared: Prepared,
    instruments: Instruments,
    origin: Origin,
    batch_tokens: int,
    nonfinite: str | None,
) -> Iterator[Observation]:
    sites = reader.sites()
    states = {} if nonfinite else read_states(reader, prepared, list(sites), batch_tokens)
    bootstrap = instruments.bootstrap(prepared)
    every_value = any(measure.needs == "every value" for measure in instruments.measures)
    below: SiteStates | None = None
    for site, layer in sites.items():
        first = site == next(iter(sites))
        measures = [measure for measure in instruments.measures if not (first and measure.needs == "layers")]
        columns = {**_columns(prepared), "layer": layer, "site": site}
        if nonfinite:
            for readout in instruments.readouts:
                for measure in measures:
                    yield origin.failed(measure.name, "nonfinite", nonfinite, readout=readout.name, **columns)
            continue
        here = SiteStates(states[site], prepared.layout, every_value, below)
        for readout in instruments.readouts:
            yield from _numbers(here.read(readout), readout, measures, bootstrap, origin, columns)
        below = here.alone()


def _numbers(
    reading: Reading,
    readout: Readout,
    measures: list[Measure],
    bootstrap: Bootstrap | None,
    origin: Origin,
    columns: dict[str, Any],
) -> Iterator[Observation]:
    columns = {**columns, "readout": readout.name, "n": len(reading.rows.matrix)}
    taken: dict[Measure, Estimate] = {}
    for measure in measures:
        if not (reading.rows.finite if measure.needs != "layers" else reading.finite):
            yield origin.failed(measure.name, "nonfinite", "states hold NaN or infinity", **columns)
            continue
        try:
            taken[measure] = measure.take(reading)
        except UndefinedMeasureError as error:
            yield origin.failed(measure.name, "undefined", str(error), **columns)
    if bootstrap is not None:
        stderrs = bootstrap.stderrs(reading, readout.positions, list(taken))
        taken = {measure: Estimate(taken[measure].value, stderrs[measure.name]) for measure in taken}
    for measure, estimate in taken.items():
        yield origin.row(measure=measure.name, value=estimate.value, stderr=estimate.stderr, **columns)
