"""Other people's results as a run folder: whoever can read them says what is in them, and it is checked and written."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pythiageo import extensions, importers
from pythiageo._version import __version__
from pythiageo.errors import UserError, nearest
from pythiageo.importers import cells
from pythiageo.importers.mapping import Mapping
from pythiageo.names import FINAL_NORM
from pythiageo.observations import SCHEMA_VERSION, Manifest, Observation, ObservationStore
from pythiageo.observations.manifest import write_manifest
from pythiageo.observations.ranges import outside
from pythiageo.observations.schema import COLUMNS, LAYERS, SORT_KEY

_NOT_FINITE = "the source holds no finite number here"


class NobodyReadsError(UserError):
    """A file that is no kind of results to anybody here."""


@dataclass(frozen=True)
class Request:
    """A file or folder of results, and what a person said of it: ``where`` is of a table, ``step_pattern`` of names."""

    source: Path
    mapping: Mapping | None = None
    where: dict[str, str] = field(default_factory=dict)
    step_pattern: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Results:
    """What files of results say of one model.

    ``rows``: the file that each comes from, and the columns of an observation that it says (``step``, ``measure`` and
    ``value``; ``task``, ``level``, ``layer``, ``n`` and others). ``name``: what the run is called unless a person says
    otherwise; also the series and the size, where these are ``None``.
    """

    name: str
    rows: Sequence[tuple[Path, dict[str, Any]]]
    files: Sequence[Path]
    series: str | None = None
    size: str | None = None
    seed: int | None = None
    mapping: Mapping = field(default_factory=lambda: Mapping(columns={}))
    notes: Sequence[str] = ()


def import_results(request: Request, out: Path) -> Path:
    """Write results as a run folder whose manifest names the files and their sha256; return it.

    Every module of ``importers`` with a function ``read_results(request) -> Results | None`` is asked, before them
    every module that an installed package names in the entry points ``pythiageo.importers``.

    Raises:
        NobodyReadsError: nobody can read ``request.source``.
        UserError: ``out`` is there; whoever can read it finds a mistake in it; a row without
            a step or a number, a value that its measure cannot have, one thing measured twice.
    """
    if out.exists():
        raise UserError(f"{out} is there already: an import is written to a new folder")
    for read_results in extensions.load_parts(importers, extensions.IMPORTERS, "read_results"):
        results: Results | None = read_results(request)
        if results is not None:
            return _write(results, request.name, out)
    raise NobodyReadsError(f"{request.source}: expected a table with --map, or the harness's .json files")


@dataclass(frozen=True)
class _Origin:
    """What all rows of an import share."""

    run: str
    series: str
    size: str
    seed: int | None


def _write(results: Results, name: str | None, out: Path) -> Path:
    mapping, title = results.mapping, name or results.name
    # of the characters that a run's name may have
    run = re.sub(r"[^A-Za-z0-9_.-]", "-", title)[:128] or "import"
    origin = _Origin(run, results.series or title, results.size or title, results.seed)
    rows = [_observation(row, mapping, origin, file) for file, row in results.rows]
    if mapping.last_layer_is_final_norm:
        rows = _final_norm(rows)
    if not rows:
        raise UserError(f"{results.files[0]}: there is no number in it")
    remedy = (
        "choose rows with --where, or map the column that tells them apart"
        if mapping.columns
        else f"two of {len(results.files)} files hold it; take one away"
    )
    seen: set[tuple[Any, ...]] = set()
    by_step: dict[int, list[Observation]] = {}
    for row in rows:
        key = tuple(getattr(row, name) for name in SORT_KEY)
        if key in seen:
            parts = (row.task, row.level, row.layer, row.readout, row.measure)
            what = ", ".join(str(part) for part in parts if part is not None)
            raise UserError(f"{results.files[0]}: {what} of step {row.step} is there twice: {remedy}")
        seen.add(key)
        by_step.setdefault(row.step, []).append(row)
    store = ObservationStore(out)
    for step in sorted(by_step):
        store.write(step, by_step[step])
    store.consolidate()
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "name": origin.run,
        "kind": "import",
        "status": "complete",
        "series": origin.series,
        "regime": mapping.regime,
        "size": origin.size,
        "seed": origin.seed,
        "config": mapping.model_dump(mode="json"),
        "provenance": {
            "pythiageo": __version__,
            "sources": [{"name": file.name, "sha256": sha256_of(file)} for file in results.files],
            **({"notes": list(results.notes)} if results.notes else {}),
        },
        "probe_sets": [],
        "checkpoints": [
            {"step": step, "label": f"step{step}", "weight_sha": None, "status": "ok", "reason": None}
            for step in sorted(by_step)
        ],
        "corpus": None,
        "training": None,
    }
    write_manifest(out, Manifest.model_validate(manifest), "the observations are whole")
    return out


def _final_norm(rows: list[Observation]) -> list[Observation]:
    """Return the rows with those of the last layer at the output of the final LayerNorm."""
    last = max((row.layer for row in rows if row.layer is not None), default=None)
    return [row._replace(site=FINAL_NORM) if row.layer is not None and row.layer == last else row for row in rows]


def _observation(row: dict[str, Any], mapping: Mapping, origin: _Origin, source: Path) -> Observation:
    """Return the observation that ``row`` (our columns to what the source holds) says.

    Raises:
        UserError: a step that is no whole number, something else than a number where there must be one, or a value
            that its measure cannot have.
    """
    said: dict[str, Any] = dict(mapping.constants.items())
    said |= {key: value for key, value in row.items() if value is not None}
    for column, names in mapping.rename.items():
        if column in said:
            said[column] = names.get(str(said[column]), str(said[column]))
    if unknown := [column for column in said if column not in COLUMNS]:
        raise UserError(f"{source}: observations have no {unknown[0]!r}{nearest(unknown[0], COLUMNS)}")
    if "measure" not in said:
        raise UserError(f"{source}: a row does not say of which measure it is")
    measure, step = str(said["measure"]), cells.whole(said.get("step"), "step", source, mapping.step_unit)
    factor = mapping.scale.get(measure, 1.0)
    value = math.nan if said.get("value") is None else factor * cells.number(said["value"], "value", source)
    error = factor * cells.number(said["stderr"], "stderr", source) if "stderr" in said else None
    layer, site = _place(said, mapping, source)
    fine = math.isfinite(value)
    _check_range(said, measure, step, value, error, mapping, source)
    a_step = mapping.tokens_per_step_of.get(origin.series, mapping.tokens_per_step)
    tokens = said.get("tokens", None if a_step is None else step * a_step)
    return Observation(
        run=origin.run,
        series=origin.series,
        regime=mapping.regime,
        size=origin.size,
        seed=origin.seed,
        step=step,
        tokens=None if tokens is None else cells.whole(tokens, "tokens", source),
        task=cells.text(said.get("task")),
        level=cells.text(said.get("level")),
        probe_set=cells.text(said.get("probe_set")),
        layer=layer,
        site=site,
        readout=cells.text(said.get("readout")),
        measure=measure,
        value=value if fine else None,
        stderr=error if fine and error is not None and math.isfinite(error) else None,
        n=cells.whole(said["n"], "n", source) if "n" in said else None,
        status="ok" if fine else "undefined",
        reason=None if fine else _NOT_FINITE,
        weight_sha=None,
    )


def _check_range(
    said: dict[str, Any], measure: str, step: int, value: float, error: float | None, mapping: Mapping, source: Path
) -> None:
    """Raise ``UserError`` for a value that its measure cannot have, or a standard error below 0."""
    what = f"{source}: {measure}" + (f" of {said['task']}" if said.get("task") else "") + f" at step {step}"
    if math.isfinite(value) and (expected := outside(measure, value)):
        remedy = f" (the mapping's scale.{measure} = 0.01 turns per cent into shares)" if mapping.columns else ""
        raise UserError(f"{what} is {value:g}; {expected}{remedy if 'per cent' in expected else ''}")
    if error is not None and error < 0:
        raise UserError(f"{what} has a standard error of {error:g}; expected at least 0")


def _place(said: dict[str, Any], mapping: Mapping, source: Path) -> tuple[int | None, str | None]:
    if "layer" not in said:
        return None, cells.text(said.get("site"))
    layer = cells.whole(said["layer"], "layer", source) - int(mapping.first_layer_is_embedding)
    if layer < 0:
        return None, "hook_embed"
    if layer >= LAYERS:
        raise UserError(f"{source}: layer {layer:,} cannot be: expected fewer than {LAYERS:,}")
    return layer, str(said.get("site", f"blocks.{layer}.hook_resid_post"))


def sha256_of(file: Path) -> str:
    """Return the sha256 of a file's content."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def some(names: list[str]) -> str:
    """Return the first of some names, for a sentence."""
    return ", ".join(map(str, names[:8])) + (" ..." if len(names) > 8 else "")
