"""What a checkpoint keeps beside its rows: spectra as the measures used them, and sketches of the states."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pythiageo.geometry.dominance import find_dominance
from pythiageo.geometry.kept_spectrum import KeptSpectrum
from pythiageo.geometry.readout import BUT_SINKS, PER_EXAMPLE, SPARED, Readout, examples_of, find_places
from pythiageo.geometry.rounding import Rounding
from pythiageo.geometry.sketch import Sketch, choose_rows
from pythiageo.geometry.view import SiteStates
from pythiageo.measurement.failures import FAILED, Failures
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.measurement.probe_sets import Prepared
from pythiageo.measurement.result import Origin
from pythiageo.no_value import NoValue, NoValueError
from pythiageo.observations.sidecars import SKETCHES, SPECTRA, Kept, SketchRow, SpectrumRow

NONFINITE = NoValue("nonfinite", "states hold NaN or infinity")


class Keeper:
    """Takes what ``plan`` keeps of one checkpoint, from several threads, while it is measured.

    Keeping changes no number of the run: spectra are those that its measures used, and where none did they are taken.
    """

    def __init__(self, plan: GeometryPlan, origin: Origin, failures: Failures) -> None:
        self._plan = plan
        self._failures = failures
        self._of_all: dict[str, Any] = {"step": origin.step, "weight_sha": origin.weight_sha}
        self._spectra: list[SpectrumRow] = []
        self._sketches: list[SketchRow] = []

    @property
    def kept(self) -> Kept:
        """What was kept; the order is any."""
        plan = self._plan
        return Kept(self._spectra if plan.spectra else None, self._sketches if plan.sketch else None)

    def keep_spectrum(self, here: SiteStates, readout: Readout, columns: dict[str, Any]) -> None:
        """Keep the spectrum of a readout, if spectra are kept; call it before the site lets go of its matrices."""
        if not self._plan.spectra:
            return
        try:
            found: dict[str, Any] | NoValue = _spectrum(here, readout)
        except Exception as error:
            found = self._explain(SPECTRA, error)
        self._add_spectrum(found, readout.name, columns)

    def keep_sketches(self, here: SiteStates, prepared: Prepared, columns: dict[str, Any]) -> None:
        """Keep the sketches of a site, if any are kept."""
        for positions in self._plan.sketch_positions if self._plan.sketch else ():
            try:
                found: dict[str, Any] | NoValue = _sketch(here, prepared, positions, self._plan.sketch)
            except Exception as error:
                found = self._explain(SKETCHES, error)
            self._add_sketch(found, positions, columns)

    def keep_no_value(self, no_value: NoValue, columns: dict[str, Any]) -> None:
        """Say why nothing of a site is kept that could not be read."""
        for readout in self._plan.readouts if self._plan.spectra else ():
            self._add_spectrum(no_value, readout.name, columns)
        for positions in self._plan.sketch_positions if self._plan.sketch else ():
            self._add_sketch(no_value, positions, columns)

    def _add_spectrum(self, found: dict[str, Any] | NoValue, readout: str, columns: dict[str, Any]) -> None:
        self._spectra.append(SpectrumRow(**self._of_all, **columns, readout=readout, **_said(found)))

    def _add_sketch(self, found: dict[str, Any] | NoValue, positions: str, columns: dict[str, Any]) -> None:
        self._sketches.append(SketchRow(**self._of_all, **columns, positions=positions, **_said(found)))

    def _explain(self, what: str, error: Exception) -> NoValue:
        if isinstance(error, NoValueError):
            return error.no_value
        no_value = NoValue(FAILED, self._failures.reason(error))
        self._failures.note_lost(what, no_value.reason)
        return no_value


def _said(found: dict[str, Any] | NoValue) -> dict[str, Any]:
    return found._asdict() if isinstance(found, NoValue) else {"status": "ok", "reason": None, **found}


def _spectrum(here: SiteStates, readout: Readout) -> dict[str, Any]:
    view = here.read(readout)
    left_out = here.describe_left_out(readout) if readout.spares_sinks else None
    if not len(view.rows.matrix):
        raise NoValueError(f"no position is left: {left_out}")
    if not view.rows.finite:
        raise NoValueError(NONFINITE.reason, NONFINITE.status)
    kept = KeptSpectrum.of(view)
    lists = {} if kept.directions is None else dict(zip(("finer", "noise", "columns"), kept.directions, strict=True))
    return {
        **{name: getattr(kept, name) for name in _PLAIN},
        **{name: values.numpy() for name, values in {"sigma": kept.sigma, **lists}.items()},
        "n": kept.rows,
        "width": kept.columns,
        "left_out": left_out,
        "dominated": "; ".join(find_dominance(here, readout)) or None,
    }


_PLAIN = ("method", "every_value", "largest", "unit", "spectral", "described")


def _sketch(here: SiteStates, prepared: Prepared, positions: str, most: int) -> dict[str, Any]:
    rows = here.rows(positions)
    if not len(rows.matrix):
        raise NoValueError(f"no position is left of {len(here.states):,}")
    if not rows.finite:
        raise NoValueError(NONFINITE.reason, NONFINITE.status)
    sinks = rows.without.all.cpu() if positions in SPARED and rows.without is not None else None
    items = hashlib.sha256(json.dumps([(one.prompt, one.answer) for one in prepared.examples]).encode()).hexdigest()
    chosen = choose_rows(len(rows.matrix), most, items)
    matrix = rows.matrix[chosen.to(rows.matrix.device)]
    sketch = Sketch.of(matrix)
    return {
        "items": items,
        "fed": _identify_rows(prepared, positions, sinks, chosen),
        "n": sketch.rows,
        "of": len(rows.matrix),
        "width": sketch.width,
        "unit": rows.rounding.unit,
        "spectral": Rounding(matrix, rows.rounding.unit).spectral,
        "scale": sketch.scale,
        "values": sketch.values,
    }


def _identify_rows(prepared: Prepared, positions: str, sinks: Tensor | None, chosen: Tensor) -> str:
    """Return a hash of what the chosen rows stand for: their examples, or also their places and the tokens fed."""
    layout = prepared.layout
    examples = examples_of(layout, positions, sinks)[chosen]
    digest = hashlib.sha256(examples.numpy().astype(np.int64).tobytes())
    if positions.removesuffix(BUT_SINKS) not in PER_EXAMPLE:
        places = find_places(layout, positions, sinks)
        flat = torch.arange(int(layout.lengths.sum())) if places is None else places
        starts = layout.lengths.cumsum(0) - layout.lengths
        digest.update((flat[chosen] - starts[examples]).numpy().astype(np.int64).tobytes())
    # passages of two tokenizers do not end at the same words
    if positions.removesuffix(BUT_SINKS) not in PER_EXAMPLE or prepared.passages is not None:
        digest.update(json.dumps([list(one.ids) for one in prepared.encoded]).encode())
    return digest.hexdigest()
