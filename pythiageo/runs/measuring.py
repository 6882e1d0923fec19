"""One checkpoint, all its observations: the one code path for a live model and for a saved one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.geometry.measure import Measure, UndefinedMeasureError, get_measures
from pythiageo.geometry.readout import Readout, get_readouts, select
from pythiageo.geometry.spectrum import spectrum
from pythiageo.observations import Observation
from pythiageo.probes.scoring import MEASURES, NonfiniteLogitsError, score
from pythiageo.runs.config import MeasureConfig
from pythiageo.runs.probing import SCORE, Prepared
from pythiageo.runs.reading import Reading


@dataclass(frozen=True)
class Instruments:
    """The measures and readouts of a run."""

    measures: list[Measure]
    readouts: list[Readout]

    @classmethod
    def of(cls, config: MeasureConfig) -> Instruments:
        """Look the names of a config up."""
        return cls(get_measures(list(config.geometry)), get_readouts(list(config.readouts)))


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
    reading: Reading,
    probes: list[Prepared],
    instruments: Instruments,
    origin: Origin,
    nonfinite: str | None = None,
    tell: Callable[[float], None] = lambda _: None,
) -> list[Observation]:
    """Return every observation of one checkpoint.

    ``nonfinite`` says why the weights cannot be measured; then no forward pass is made, and every observation that
    would have been has the status ``nonfinite`` and that reason. ``tell`` is told which share of the probes is done.
    """
    rows: list[Observation] = []
    for number, prepared in enumerate(probes):
        tell(number / len(probes))
        if prepared.probe.purpose == SCORE:
            rows += _scores(reading, prepared, origin, nonfinite)
        else:
            rows += _geometry(reading, prepared, instruments, origin, nonfinite)
    return rows


def columns_of(prepared: Prepared) -> dict[str, Any]:
    """Return the columns that all rows of a probe set share."""
    probe_set = prepared.probe.probe_set
    return {"task": probe_set.task, "level": probe_set.level, "probe_set": probe_set.sha}


def _scores(reading: Reading, prepared: Prepared, origin: Origin, nonfinite: str | None) -> Iterator[Observation]:
    columns = columns_of(prepared)
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
            right = reading.predictions(prepared.encoded)
            options = reading.options(prepared)
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
    reading: Reading,
    prepared: Prepared,
    instruments: Instruments,
    origin: Origin,
    nonfinite: str | None,
) -> Iterator[Observation]:
    found: Iterable[tuple[str, Tensor | None]] = reading.states(prepared)
    if nonfinite:
        found = [(site, None) for site in reading.sites]
    for site, states in found:
        columns = {**columns_of(prepared), "layer": reading.sites[site], "site": site}
        for readout in instruments.readouts:
            if states is None:
                for measure in instruments.measures:
                    yield origin.failed(measure.name, "nonfinite", str(nonfinite), readout=readout.name, **columns)
                continue
            matrix = select(states, prepared.layout, readout.positions)
            yield from _numbers(matrix, readout, instruments.measures, origin, columns)


def _numbers(
    matrix: Float[Tensor, "row d_model"],
    readout: Readout,
    measures: list[Measure],
    origin: Origin,
    columns: dict[str, Any],
) -> Iterator[Observation]:
    columns = {**columns, "readout": readout.name, "n": len(matrix)}
    if not bool(torch.isfinite(matrix).all()):
        for measure in measures:
            yield origin.failed(measure.name, "nonfinite", "states hold NaN or infinity", **columns)
        return
    values = spectrum(matrix, readout.centred)
    for measure in measures:
        try:
            yield origin.row(measure=measure.name, value=measure.function(values), **columns)
        except UndefinedMeasureError as error:
            yield origin.failed(measure.name, "undefined", str(error), **columns)
