"""Other people's results as a run folder: a tidy table by a mapping of its columns."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pythiageo._version import __version__
from pythiageo.config.fields import Regime
from pythiageo.errors import UserError, nearest
from pythiageo.importers import cells
from pythiageo.importers.cells import read_table
from pythiageo.locations import packaged_folder
from pythiageo.names import FINAL_NORM
from pythiageo.observations import SCHEMA_VERSION, Manifest, Observation, ObservationStore
from pythiageo.observations.manifest import write_manifest
from pythiageo.observations.ranges import outside
from pythiageo.observations.schema import LAYERS, SORT_KEY, SOURCE
from pythiageo.untrusted_files import BadFileError, is_plain, read_toml
from pythiageo.validation import describe_problem

Column = Literal[
    "series", "step", "tokens", "task", "level", "layer", "site", "readout", "measure", "value", "stderr", "n"
]
NEEDED = ("step", "measure", "value")
_WHO = {"series", "model", "model_name", "run", "size", "seed"}
"""Columns by which people tell models apart."""
_NOT_FINITE = "the source holds no finite number here"


class Mapping(BaseModel):
    """How a tidy table becomes observations: which column is which of ours, what it does not say, what is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    regime: Regime = "naturalistic"
    columns: dict[Column, str]
    """Our column to theirs."""
    constants: dict[Column, str | int | float] = {}
    """What every row has."""
    where: dict[str, str | int | list[str] | list[int]] = {}
    """Their column to the value, or values, of the rows that are kept."""
    rename: dict[Literal["measure", "task", "level"], dict[str, str]] = {}
    """Their names to ours."""
    scale: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Our measures to what their values are multiplied by: ``accuracy = 0.01`` where theirs are per cent."""
    step_unit: Annotated[int, Field(ge=1)] = 1
    """Steps that one of theirs stands for: 1000 where they count thousands."""
    tokens_per_step: Annotated[int, Field(ge=1)] | None = None
    tokens_per_step_of: dict[str, Annotated[int, Field(ge=1)]] = {}
    """The same of a series that has another batch size, by its name."""
    first_layer_is_embedding: bool = False
    """Their layer 0 is the embedding, and layer k the output of block k - 1."""
    last_layer_is_final_norm: bool = False
    """Their last layer is taken after the final LayerNorm, as the last of transformers' ``hidden_states`` is."""
    size: str | None = None
    seed: Annotated[int, Field(ge=0)] | None = None


def load_mapping(path: Path) -> Mapping:
    """Read a mapping file, a user's own or one that came with pythiageo.

    Raises:
        UserError: no such file, or not a mapping; file, key and what was expected are named.
    """
    shipped = packaged_folder("configs") / path
    file = path if is_plain(path) or not is_plain(shipped) else shipped
    try:
        return Mapping.model_validate(read_toml(file))
    except FileNotFoundError:
        raise UserError(f"{path}: no such mapping file, here or among pythiageo's own") from None
    except BadFileError as error:
        raise UserError(f"{path}: not a TOML mapping: it {error}") from None
    except ValidationError as error:
        raise UserError(f"{path}: {describe_problem(error, Mapping)}") from None


def import_table(source: Path, mapping: Mapping, where: dict[str, str], out: Path, name: str | None = None) -> Path:
    """Write the rows of a tidy CSV or Parquet file as a run folder.

    A value that is no finite number becomes an observation with the status ``undefined``. The probe set of all rows is
    named after the file: series of one file can be compared, and ``compare`` says on what ground. Rows of one series
    are kept;
    ``where`` chooses them, on top of the mapping's own choice.

    Raises:
        UserError: the file cannot be read, lacks a column, has a column of another kind; no row is left, rows of
            several series, or one thing measured twice.
    """
    table = read_table(source)
    for column in (*mapping.columns.values(), *mapping.where, *where):
        if column not in table.columns:
            raise UserError(
                f"{source}: no column {column!r}{nearest(column, table.columns)}; it has {some(table.columns)}"
            )
    missing = [column for column in NEEDED if column not in mapping.columns and column not in mapping.constants]
    if missing:
        raise UserError(f"the mapping says of no column that it is {missing[0]!r}; expected {', '.join(NEEDED)}")
    whole = table.height
    for column, wanted in {**mapping.where, **where}.items():
        values = [str(one) for one in (wanted if isinstance(wanted, list) else [wanted])]
        known = table[column].cast(pl.String).unique().drop_nulls().sort().to_list()
        for value in values:
            if value not in known and not isinstance(mapping.where.get(column), list):
                raise UserError(
                    f"{source}: no row has {column} = {value!r}{nearest(value, known)}; there are {some(known)}"
                )
        table = table.filter(pl.col(column).cast(pl.String).is_in(values))
    if not table.height:
        raise UserError(f"{source}: none of {whole:,} rows is left")
    _check_one_model(table, mapping, source)
    rows = table.select(pl.col(theirs).alias(ours) for ours, theirs in mapping.columns.items()).to_dicts()
    series = sorted({str(row["series"]) for row in rows if row.get("series") is not None})
    if len(series) > 1:
        raise UserError(f"{source}: rows of {len(series)} series ({some(series)}): choose one with --where")
    title = name or (series[0] if series else source.stem)
    origin = Origin(
        title, series[0] if series else title, mapping.size or (series[0] if series else title), mapping.seed
    )
    asked = f"{SOURCE}{_sha256(source)[:12]}"
    observations = [make_observation({**row, "probe_set": asked}, mapping, origin, source) for row in rows]
    if mapping.last_layer_is_final_norm:
        observations = _final_norm(observations)
    return write_run(out, origin, observations, mapping, [source])


def _check_one_model(table: pl.DataFrame, mapping: Mapping, source: Path) -> None:
    """Raise ``UserError`` where a column that nothing is made of tells several models, or seeds, apart."""
    for column in table.columns:
        if column.lower() in _WHO and column not in mapping.columns.values():
            values = table[column].cast(pl.String).unique().drop_nulls().sort().to_list()
            if len(values) > 1:
                raise UserError(
                    f"{source}: rows of {len(values)} {column}s ({some(values)}): one run is of one model: choose one "
                    f"with --where {column}={values[0]}"
                )


def _final_norm(rows: list[Observation]) -> list[Observation]:
    """Return the rows with those of the last layer at the output of the final LayerNorm."""
    last = max((row.layer for row in rows if row.layer is not None), default=None)
    return [row._replace(site=FINAL_NORM) if row.layer is not None and row.layer == last else row for row in rows]


class Origin:
    """What all rows of an import share; ``run`` is made of the characters that a run's name may have."""

    def __init__(self, run: str, series: str, size: str, seed: int | None) -> None:
        self.run = re.sub(r"[^A-Za-z0-9_.-]", "-", run)[:128] or "import"
        self.series, self.size, self.seed = series, size, seed


def make_observation(row: dict[str, Any], mapping: Mapping, origin: Origin, source: Path) -> Observation:
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


def write_run(
    out: Path, origin: Origin, rows: list[Observation], mapping: Mapping, sources: list[Path], notes: Sequence[str] = ()
) -> Path:
    """Write observations as a run folder whose manifest names the sources and their sha256, and has ``notes``.

    Raises:
        UserError: ``out`` is there, no row, or one thing measured twice.
    """
    if out.exists():
        raise UserError(f"{out} is there already: an import is written to a new folder")
    if not rows:
        raise UserError(f"{sources[0]}: there is no number in it")
    remedy = (
        "choose rows with --where, or map the column that tells them apart"
        if mapping.columns
        else f"two of {len(sources)} files hold it; take one away"
    )
    seen: set[tuple[Any, ...]] = set()
    by_step: dict[int, list[Observation]] = {}
    for row in rows:
        key = tuple(getattr(row, name) for name in SORT_KEY)
        if key in seen:
            parts = (row.task, row.level, row.layer, row.readout, row.measure)
            what = ", ".join(str(part) for part in parts if part is not None)
            raise UserError(f"{sources[0]}: {what} of step {row.step} is there twice: {remedy}")
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
            "sources": [{"name": file.name, "sha256": _sha256(file)} for file in sources],
            **({"notes": list(notes)} if notes else {}),
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


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def some(names: list[str]) -> str:
    """Return the first of some names, for a sentence."""
    return ", ".join(map(str, names[:8])) + (" ..." if len(names) > 8 else "")
