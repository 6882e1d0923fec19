"""Bytes on the disk of what a run keeps beside its table."""

from __future__ import annotations

from collections.abc import Sequence

from pythiageo.config.tables import MeasureConfig
from pythiageo.geometry.readout import BUT_SINKS, examples_of, get_readouts
from pythiageo.geometry.sketch import count_values
from pythiageo.measurement.probe_sets import GEOMETRY, Prepared
from pythiageo.observations.sidecars import SKETCHES, SPECTRA

_ROW = 60
"""Bytes of a row's other columns, compressed."""


def count_kept(config: MeasureConfig, prepared: Sequence[Prepared], sites: int, width: int) -> dict[str, int]:
    """Return about how many bytes one checkpoint keeps, by kind: 8 a singular value, 4 a number of a sketch.

    Equal rows are counted as if they were different, sinks that are left out as if they were not.
    """
    found = {SPECTRA: 0, SKETCHES: 0}
    for one in prepared:
        if one.probe.purpose != GEOMETRY or not one.kept:
            continue
        if config.spectra:
            for readout in get_readouts(list(config.readouts)):
                found[SPECTRA] += 8 * min(_count_rows(one, readout.positions), width) + _ROW
        if config.sketch:
            for positions in config.sketch_positions:
                rows = min(_count_rows(one, positions), config.sketch)
                found[SKETCHES] += 4 * count_values(rows, width) + _ROW
    return {kind: sites * count for kind, count in found.items()}


def _count_rows(prepared: Prepared, positions: str) -> int:
    return len(examples_of(prepared.layout, positions.removesuffix(BUT_SINKS)))
