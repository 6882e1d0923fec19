"""Measures of kept spectra: the rows that the run would have, had it taken them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
import torch

from pythiageo.derive.kept_rows import KeptRun
from pythiageo.errors import UserError
from pythiageo.geometry.kept_spectrum import KeptSpectrum
from pythiageo.geometry.measure import NEEDS, Measure, get_measures, load_measures
from pythiageo.geometry.rounding import Directions, unit_of
from pythiageo.locations import check_folder, make_folder
from pythiageo.measurement.geometry import BLURRED
from pythiageo.no_value import NoValueError
from pythiageo.observations import Observation, read_whole_manifest, table_of
from pythiageo.observations.excerpt import sha256
from pythiageo.observations.manifest import write_manifest
from pythiageo.observations.schema import SORT_KEY
from pythiageo.observations.sidecars import SPECTRA, SpectrumRow
from pythiageo.observations.store import write_whole

OF_SPECTRA = ("spectrum", "every value")
"""What a measure needs that can be taken of kept spectra."""


class Derivable(NamedTuple):
    """A measure, and whether it can be taken of what runs keep; ``why``: what it lacks."""

    name: str
    formula: str
    derivable: bool
    why: str | None


def find_derivable() -> list[Derivable]:
    """Return every geometry measure, and whether ``derive_measures`` can take it."""
    found = []
    for measure in load_measures().values():
        of_spectra = measure.needs in OF_SPECTRA
        why = None if of_spectra else f"needs {NEEDS[measure.needs]}"
        if measure.needs == "layers":
            why = "needs two sites: pythiageo similarity RUN --between layers"
        found.append(Derivable(measure.name, measure.formula, of_spectra, why))
    return found


def derive_measures(run: str | Path, measures: Sequence[str]) -> pl.DataFrame:
    """Return observations of a run's kept spectra, as the run would have made them.

    Every number, status and reason is that of a run that had been asked for the measure: spectra are bit for bit those
    that its measures used. There are no standard errors and no ranks at fewer rows, which need the states. A measure
    that needs every value has none where no measure of the run did and the spectrum was squared: the reason says so.

    Args:
        run: a run folder that keeps spectra (``measures.spectra``).
        measures: names of measures of a spectrum; installed packages' too, and ``alpha_req_12_100`` for any range.

    Raises:
        UserError: no run, one that keeps no spectra, no such measure, or one that spectra do not tell.
    """
    chosen = get_measures(list(measures))
    known = {one.name: one for one in find_derivable()}
    for measure in chosen:
        if measure.name in known and (why := known[measure.name].why) is not None:
            derivable = ", ".join(one.name for one in known.values() if one.derivable)
            raise UserError(f"{measure.name} {why}, and singular values are kept: of these can be derived {derivable}")
    kept = KeptRun(Path(run), SPECTRA)
    frames = []
    for step, entry in kept.entries.items():
        origin = kept.origin(step)
        rows = [row for spectrum in kept.store.spectra(entry) for row in _rows(origin, spectrum, chosen)]
        frames += [table_of(step, rows)] if rows else []
    if not frames:
        raise UserError(f"{kept.path}: the spectra that it keeps are of no readout")
    return pl.concat(frames).sort(SORT_KEY, nulls_last=False, maintain_order=True)


def write_derived(run: Path, derived: pl.DataFrame, out: Path) -> int:
    """Write a run's observations and what was derived beside them as a run folder; return how many rows are new.

    Rows that the run has itself stand, as they may have a standard error. The manifest says which measures are derived.

    Raises:
        UserError: ``out`` is there, or cannot be made.
        MachineError: a file could not be written.
    """
    check_folder(out)
    if out.exists():
        raise UserError(f"{out} is there already: what is derived is written to a new folder")
    table, manifest = KeptRun(run, SPECTRA).table, read_whole_manifest(run)
    new = derived.join(table, on=SORT_KEY, how="anti", nulls_equal=True)
    said = manifest.as_json()
    said["checkpoints"] = [{k: v for k, v in one.items() if k != "kept"} for one in said["checkpoints"]]
    said["derived"] = {"measures": sorted(set(derived["measure"])), "of_rows": table.height, "of_sha256": sha256(table)}
    make_folder(out)
    write_whole(out, pl.concat([table, new]))
    write_manifest(out, type(manifest).model_validate(said), "the table is whole")
    return new.height


def _rows(origin: Observation, spectrum: SpectrumRow, measures: Sequence[Measure]) -> Iterator[Observation]:
    place = {name: getattr(spectrum, name) for name in ("task", "level", "probe_set", "layer", "site", "readout")}
    empty = origin._replace(**place)
    if spectrum.status != "ok":
        yield from (
            empty._replace(measure=measure.name, status=spectrum.status, reason=spectrum.reason) for measure in measures
        )
        return
    kept = _spectrum(spectrum)
    for measure in measures:
        row = empty._replace(measure=measure.name)
        if kept.unit > unit_of(torch.float32) and measure.small_values:
            yield row._replace(status="imprecise", reason=BLURRED)
            continue
        row = row._replace(n=kept.rows)
        said = [spectrum.left_out, spectrum.dominated if measure.kind == "rank" else None]
        try:
            value = _take(measure, kept)
            yield row._replace(value=value, status="ok", reason="; ".join(part for part in said if part) or None)
        except NoValueError as error:
            yield row._replace(status=error.no_value.status, reason=error.no_value.reason)


def _take(measure: Measure, kept: KeptSpectrum) -> float:
    if measure.needs == "every value" and not kept.every_value:
        raise NoValueError(
            "its spectrum was kept as a distribution, and this measure needs every value: ask for one that does in the "
            "run, such as alpha_req"
        )
    return measure.take(kept.view()).value


def _spectrum(row: SpectrumRow) -> KeptSpectrum:
    assert row.sigma is not None
    directions = None
    if row.finer is not None and row.noise is not None and row.columns is not None:
        directions = Directions(*(torch.tensor(values) for values in (row.finer, row.noise, row.columns)))
    return KeptSpectrum(
        sigma=torch.tensor(row.sigma),
        rows=int(row.n or 0),
        columns=int(row.width or 0),
        method=str(row.method),
        every_value=bool(row.every_value),
        largest=float(row.largest or 0),
        unit=float(row.unit or 0),
        spectral=float(row.spectral or 0),
        described=str(row.described),
        directions=directions,
    )
