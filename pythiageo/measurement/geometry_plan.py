"""What of the geometry a run measures: measures, readouts, bootstrap resamples, sinks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pythiageo.config.tables import LinearProbeConfig, MeasureConfig
from pythiageo.geometry.bootstrap import Bootstrap
from pythiageo.geometry.measure import Measure, get_measures
from pythiageo.geometry.readout import Readout, get_readouts
from pythiageo.geometry.rounding import unit_of
from pythiageo.measurement.probe_sets import Prepared


@dataclass(frozen=True)
class GeometryPlan:
    """The measures and readouts of a run, and the number of bootstrap resamples (0: none)."""

    measures: list[Measure]
    readouts: list[Readout]
    resamples: int = 0
    dtype: str = "float32"
    """The type that states were computed in."""
    linear_probe: LinearProbeConfig | None = None
    sinks: bool = False
    """Whether the measures of sinks are taken."""

    @classmethod
    def of(cls, config: MeasureConfig, dtype: str = "float32") -> GeometryPlan:
        """Look the names of a config up; ``dtype`` is that of the forward pass."""
        measures, readouts = get_measures(list(config.geometry)), get_readouts(list(config.readouts))
        return cls(measures, readouts, config.bootstrap, dtype, config.linear_probe, config.sinks)

    def blurs(self, measure: Measure) -> bool:
        """Whether a forward pass in this type would make this measure another number, whatever the states.

        What a network of few digits adds on the way is more than the rounding of its states themselves.
        """
        return self.dtype != "float32" and measure.small_values

    @property
    def unit(self) -> float:
        """How far states of this type are rounded, as a share."""
        return unit_of(getattr(torch, self.dtype))

    def bootstrap(self, prepared: Prepared) -> Bootstrap | None:
        """Return the resamples of a probe set, if any are wanted."""
        if not self.resamples:
            return None
        probe_set = prepared.probe.probe_set
        strata = [probe_set.levels[index] for index in prepared.kept] if probe_set.levels else []
        return Bootstrap(prepared.layout, probe_set.sha, self.resamples, strata)
