"""One checkpoint, all its observations: the one code path for a live model and for a saved one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pythiageo.config.tables import LinearProbeConfig, MeasureConfig
from pythiageo.geometry.bootstrap import Bootstrap
from pythiageo.geometry.measure import Estimate, Measure, UndefinedMeasureError, get_measures
from pythiageo.geometry.readout import Readout, get_readouts
from pythiageo.geometry.view import SiteStates, View
from pythiageo.measurement.forward import Reading
from pythiageo.measurement.linear_probe import Decoder
from pythiageo.measurement.probe_sets import SCORE, Prepared
from pythiageo.measurement.rows import Origin
from pythiageo.observations import Observation
from pythiageo.probes.scoring import MEASURES, NonfiniteLogitsError, score

BLURRED = "rounding of bfloat16 states makes small singular values of its own: take float32 (docs/geometry.md)"


@dataclass(frozen=True)
class GeometryPlan:
    """The measures and readouts of a run, and the number of bootstrap resamples (0: none)."""

    measures: list[Measure]
    readouts: list[Readout]
    resamples: int = 0
    rounded: bool = False
    """Whether states were computed in a type of few digits."""
    linear_probe: LinearProbeConfig | None = None

    @classmethod
    def of(cls, config: MeasureConfig, dtype: str = "float32") -> GeometryPlan:
        """Look the names of a config up; ``dtype`` is that of the forward pass."""
        measures, readouts = get_measures(list(config.geometry)), get_readouts(list(config.readouts))
        return cls(measures, readouts, config.bootstrap, dtype != "float32", config.linear_probe)

    def blurs(self, measure: Measure) -> bool:
        """Whether rounding of the states would make this measure another number."""
        return self.rounded and measure.small_values

    def bootstrap(self, prepared: Prepared) -> Bootstrap | None:
        """Return the resamples of a probe set, if any are wanted."""
        if not self.resamples:
            return None
        return Bootstrap(prepared.layout, prepared.probe.probe_set.sha, self.resamples)


def observe(
    reading: Reading,
    probes: list[Prepared],
    instruments: GeometryPlan,
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
    instruments: GeometryPlan,
    origin: Origin,
    nonfinite: str | None,
) -> Iterator[Observation]:
    found: Iterable[tuple[str, Tensor | None]] = reading.states(prepared)
    if nonfinite:
        found = [(site, None) for site in reading.sites]
    bootstrap = instruments.bootstrap(prepared)
    every_value = any(measure.needs == "every value" for measure in instruments.measures)
    below: SiteStates | None = None
    decoder = None
    if instruments.linear_probe:
        decoder = Decoder(instruments.linear_probe, reading, prepared, origin, columns_of(prepared), nonfinite)
        yield from decoder.baselines()
    for site, states in found:
        first = site == next(iter(reading.sites))
        measures = [measure for measure in instruments.measures if not (first and measure.needs == "layers")]
        columns = {**columns_of(prepared), "layer": reading.sites[site], "site": site}
        if decoder:
            yield from decoder.rows(states, layer=reading.sites[site], site=site)
        if states is None:
            for readout in instruments.readouts:
                for measure in measures:
                    yield origin.failed(measure.name, "nonfinite", str(nonfinite), readout=readout.name, **columns)
            continue
        here = SiteStates(states, prepared.layout, every_value, below)
        for readout in instruments.readouts:
            for measure in measures:
                if instruments.blurs(measure):
                    yield origin.failed(measure.name, "imprecise", BLURRED, readout=readout.name, **columns)
            sharp = [measure for measure in measures if not instruments.blurs(measure)]
            yield from _numbers(here.read(readout), readout, sharp, bootstrap, origin, columns)
        below = here.alone()


def _numbers(
    view: View,
    readout: Readout,
    measures: list[Measure],
    bootstrap: Bootstrap | None,
    origin: Origin,
    columns: dict[str, Any],
) -> Iterator[Observation]:
    columns = {**columns, "readout": readout.name, "n": len(view.rows.matrix)}
    taken: dict[Measure, Estimate] = {}
    for measure in measures:
        if not (view.rows.finite if measure.needs != "layers" else view.finite):
            yield origin.failed(measure.name, "nonfinite", "states hold NaN or infinity", **columns)
            continue
        try:
            taken[measure] = measure.take(view)
        except UndefinedMeasureError as error:
            yield origin.failed(measure.name, "undefined", str(error), **columns)
    if bootstrap is not None:
        stderrs = bootstrap.stderrs(view, readout.positions, [measure for measure in taken if measure.resamples])
        taken = {
            measure: Estimate(taken[measure].value, stderrs.get(measure.name, taken[measure].stderr))
            for measure in taken
        }
    for measure, estimate in taken.items():
        yield origin.row(measure=measure.name, value=estimate.value, stderr=estimate.stderr, **columns)
