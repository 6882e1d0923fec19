"""What of the geometry a run measures: measures, readouts, bootstrap resamples, sinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pythiageo.config.tables import LinearProbeConfig, MeasureConfig
from pythiageo.errors import UserError
from pythiageo.geometry.bootstrap import Bootstrap
from pythiageo.geometry.measure import Measure, get_measures
from pythiageo.geometry.measures.alpha_req import MEASURE as ALPHA_REQ
from pythiageo.geometry.measures.alpha_req import RANGE, over_ranks
from pythiageo.geometry.rarefaction import Rarefaction
from pythiageo.geometry.readout import Readout, check_positions, get_readouts
from pythiageo.geometry.rounding import unit_of
from pythiageo.measurement.probe_sets import Prepared
from pythiageo.names import AT_ROWS, BUT_SINKS, split_ranks


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
    rows: int = 0
    draws: int = 20
    """At how many rows ranks are taken, too (0: none), and of how many draws."""
    spectra: bool = False
    """Whether the spectra of all readouts are kept beside the table."""
    sketch: int = 0
    sketch_positions: tuple[str, ...] = ()
    """How many rows of the states are kept as a sketch at most (0: none), and of which positions."""

    @classmethod
    def of(cls, config: MeasureConfig, dtype: str = "float32") -> GeometryPlan:
        """Look the names of a config up; ``dtype`` is that of the forward pass."""
        measures, readouts = _choose_measures(config), get_readouts(list(config.readouts))
        check_positions(config.sketch_positions)
        for measure in measures:
            if measure.needs == "prompts" and not any(readout.of_prompts for readout in readouts):
                raise UserError(
                    f"{measure.name} is taken of the states of one prompt at a time: expected a readout that gives an "
                    f"example several rows, such as all/uncentred, and got {', '.join(config.readouts)}"
                )
        switches = (config.linear_probe, config.sinks, config.rows, config.draws)
        kept = (config.spectra, config.sketch, config.sketch_positions)
        return cls(measures, readouts, config.bootstrap, dtype, *switches, *kept)

    @property
    def positions(self) -> frozenset[str] | None:
        """The positions of whose states anything is read; ``None`` for all, as means, sinks and sketches take."""
        found = {readout.positions.removesuffix(BUT_SINKS) for readout in self.readouts}
        if self.linear_probe is not None:
            found.add("answer")
        return None if self.sinks or self.sketch or found & {"all", "mean"} else frozenset(found)

    def blurs(self, measure: Measure) -> bool:
        """Whether a forward pass in this type would make this measure another number, whatever the states.

        What a network of few digits adds on the way is more than the rounding of its states themselves.
        """
        return self.dtype != "float32" and measure.small_values

    @property
    def unit(self) -> float:
        """How far states of this type are rounded, as a share."""
        return unit_of(getattr(torch, self.dtype))

    def measures_of(self, readout: Readout, measures: Sequence[Measure]) -> list[Measure]:
        """Return those that a readout can be asked for: measures of prompts only where an example has several rows."""
        return [measure for measure in measures if readout.of_prompts or measure.needs != "prompts"]

    def names_of(self, readout: Readout, measure: Measure) -> list[str]:
        """Return the names under which a measure is taken at a readout: at all rows, and of ranks at so many."""
        at_rows = self.rows and measure.kind == "rank"
        return [readout.name, *([f"{readout.name}{AT_ROWS}{self.rows}"] if at_rows else [])]

    def bootstrap(self, prepared: Prepared) -> Bootstrap | None:
        """Return the resamples of a probe set, if any are wanted."""
        if not self.resamples:
            return None
        sha = prepared.probe.probe_set.sha
        return Bootstrap(prepared.layout, sha, self.resamples, _strata(prepared), prepared.owner)

    def rarefaction(self, prepared: Prepared) -> Rarefaction | None:
        """Return the draws of so many rows of a probe set, if any are wanted."""
        if not self.rows:
            return None
        sha = prepared.probe.probe_set.sha
        return Rarefaction(len(prepared.kept), sha, self.rows, self.draws, _strata(prepared))


def _strata(prepared: Prepared) -> list[str]:
    """Return the level of each example that is kept, none where there is one."""
    levels = prepared.probe.probe_set.levels
    return [levels[index] for index in prepared.kept] if levels else []


def _choose_measures(config: MeasureConfig) -> list[Measure]:
    """Return the measures that are named. The ranks of alpha-ReQ's fit are said in its name, or by ``alpha_range``.

    Raises:
        UserError: an unknown name, or a name that says other ranks than ``alpha_range``.
    """
    if config.alpha_range != RANGE:
        for name in config.geometry:
            base, *ranks = split_ranks(name) or (name,)
            if base == ALPHA_REQ.name and ranks and tuple(ranks) != config.alpha_range:
                first, last = config.alpha_range
                raise UserError(
                    f"{name} says its ranks, and --alpha-range (measures.alpha_range) says {first},{last}: expected "
                    f"one of the two, or the same ranks in both"
                )
    # a name that leaves the ranks to alpha_range
    bare = {name for name in config.geometry if split_ranks(name) is None}
    found = [
        over_ranks(*config.alpha_range) if measure is ALPHA_REQ and name in bare else measure
        for name, measure in zip(config.geometry, get_measures(list(config.geometry)), strict=True)
    ]
    return list({measure.name: measure for measure in found}.values())
