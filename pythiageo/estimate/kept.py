"""Bytes on the disk of what a run keeps beside its table."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pythiageo.config.tables import MeasureConfig
from pythiageo.geometry.readout import SPARED, examples_of, get_readouts
from pythiageo.geometry.sketch import count_values
from pythiageo.measurement.probe_sets import GEOMETRY, Prepared
from pythiageo.observations.sidecars import SKETCHES, SPECTRA

_FILE, _ROW = 7_000, 100
"""Bytes of a file without its rows, and of a row's other columns, compressed."""


def count_kept(config: MeasureConfig, prepared: Sequence[Prepared], sites: int, width: int) -> dict[str, int]:
    """Return about how many bytes one checkpoint keeps, by kind: 8 a singular value, 4 a number of a sketch.

    Compression takes about a tenth off, more where prompts are equal. Of sinks that are left out the first positions
    are known. Where a measure asks for limits to each singular value (``Spectrum.resolve``), its readout keeps four
    lists in place of one: not counted.
    """
    found = {SPECTRA: 0, SKETCHES: 0}
    for one in prepared:
        if one.probe.purpose != GEOMETRY or not one.kept:
            continue
        if config.spectra:
            for readout in get_readouts(list(config.readouts)):
                found[SPECTRA] += 8 * min(count_rows(one, readout.positions), width) + _ROW
        if config.sketch:
            for positions in config.sketch_positions:
                rows = min(count_rows(one, positions), config.sketch)
                found[SKETCHES] += 4 * count_values(rows, width) + _ROW
    return {kind: _FILE + sites * count if count else 0 for kind, count in found.items()}


def count_rows(prepared: Prepared, positions: str) -> int:
    """Return how many rows a readout's matrix has; of sinks that are left out the first positions are known."""
    layout = prepared.layout
    firsts = torch.zeros(int(layout.lengths.sum()), dtype=torch.bool)
    firsts[layout.lengths.cumsum(0) - layout.lengths] = True
    return len(examples_of(layout, positions, firsts if positions in SPARED else None))
