"""A part of a run as a run folder of its own: small enough to commit, publish or send, and read like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from pythiageo.errors import UserError, nearest
from pythiageo.locations import check_folder, make_folder
from pythiageo.observations.manifest import Manifest, Provenance, read_whole_manifest, write_manifest
from pythiageo.observations.privacy import clean_values, find_places
from pythiageo.observations.reader import read_observations
from pythiageo.observations.store import write_whole

_TEXTS = ("series", "reason")
"""Columns that may hold a text of the machine."""


def excerpt(
    run: Path,
    out: Path,
    measures: Sequence[str] = (),
    readouts: Sequence[str] = (),
    last_step: int | None = None,
    tasks: Sequence[str] = (),
) -> Path:
    """Write the observations of a run that are asked for, and its manifest, as a run folder; return it.

    Scores have no readout and are kept whatever ``readouts`` says. Nothing of the machine is named, in the reasons of
    rows neither (``privacy``): the command line is left out, of a path the last part is kept. Added: ``excerpt``, with
    the sha256 of the rows of the whole run and what was asked for. No weights, no training state.

    Args:
        run: the run folder.
        out: the folder to write; there must be none.
        measures: names of measures; empty: all.
        readouts: names of readouts; empty: all.
        last_step: the last step to keep; ``None``: all.
        tasks: names of tasks; empty: all. What has no task is kept.

    Raises:
        UserError: ``out`` is there or cannot be made; the run has no such measure, readout or task; nothing is left.
        MachineError: a file could not be written.
    """
    check_folder(out)
    table, manifest = read_observations(run), read_whole_manifest(run)
    if out.exists():
        raise UserError(f"{out} is there already: an excerpt is written to a new folder")
    kept = _named(table, "measure", measures)
    kept = _named(kept, "readout", readouts) if readouts else kept
    kept = _named(kept, "task", tasks)
    kept = kept if last_step is None else kept.filter(pl.col("step") <= last_step)
    if not kept.height:
        raise UserError(f"{run}: no observation is left of {table.height:,}")
    steps = set(kept["step"])
    asked = {"measures": list(measures), "readouts": list(readouts), "last_step": last_step}
    asked |= {"tasks": list(tasks)} if tasks else {}
    manifest = manifest.changed(checkpoints=[one for one in manifest.checkpoints if one.step in steps])
    known = find_places(manifest, run)
    manifest = manifest.changed(
        provenance=_without_command(manifest.provenance),
        earlier_provenance=[_without_command(one) for one in manifest.earlier_provenance],
    )
    said = {key: clean_values(value, known) for key, value in manifest.as_json().items()}
    shown = kept.with_columns(_cleaned(kept[name], known) for name in _TEXTS if name in kept.columns)
    said["excerpt"] = {"of_rows": table.height, "of_sha256": sha256(table), **asked}
    make_folder(out)
    write_whole(out, shown)
    write_manifest(out, Manifest.model_validate(said), "the table is whole")
    return out


def _without_command(provenance: Provenance) -> dict[str, Any]:
    return {key: value for key, value in provenance.as_json().items() if key != "command"}


def _cleaned(column: pl.Series, known: Iterable[str]) -> pl.Series:
    texts = column.drop_nulls().unique().to_list()
    return column.replace({text: clean_values(text, known) for text in texts})


def sha256(table: pl.DataFrame) -> str:
    """Return the sha256 of a table's rows as JSON lines, in their order."""
    return hashlib.sha256(table.write_ndjson().encode()).hexdigest()


def _named(table: pl.DataFrame, column: str, names: Sequence[str]) -> pl.DataFrame:
    if not names:
        return table
    known: list[Any] = table[column].drop_nulls().unique().sort().to_list()
    for name in names:
        if name not in known:
            raise UserError(f"no {column} {name!r}{nearest(name, known)}; the run has {', '.join(known)}")
    return table.filter(pl.col(column).is_in(names) | pl.col(column).is_null())
