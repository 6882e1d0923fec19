"""A part of a run as a run folder of its own: small enough to commit, publish or send, and read like any other."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import polars as pl

from pythiageo.errors import UserError, nearest
from pythiageo.locations import check_folder, make_folder
from pythiageo.observations.reader import MANIFEST_NAME, read_manifest, read_observations
from pythiageo.observations.store import replace_file, write_whole

_FOLDERS = r"(^|[\s'\"(=])(?:/[^/\s'\":,;]+)+/|(^|[\s'\"(=])[A-Za-z]:(?:\\+[^\\\s'\":,;]+)*\\+"
"""The folders of an absolute path inside a text."""
_PATH = re.compile(_FOLDERS)


def excerpt(
    run: Path, out: Path, measures: Sequence[str] = (), readouts: Sequence[str] = (), last_step: int | None = None
) -> Path:
    """Write the observations of a run that are asked for, and its manifest, as a run folder; return it.

    Scores have no readout and are kept whatever ``readouts`` says. No folder of the machine is named: the command line
    is left out, and of every absolute path, also in the reasons of rows, the last part is kept. Added: ``excerpt``,
    with the sha256 of the rows of the whole run and what was asked for. No weights, no training state.

    Args:
        run: the run folder.
        out: the folder to write; there must be none.
        measures: names of measures; empty: all.
        readouts: names of readouts; empty: all.
        last_step: the last step to keep; ``None``: all.

    Raises:
        UserError: ``out`` is there or cannot be made, a measure or readout that the run has not, or nothing is left.
        MachineError: a file could not be written.
    """
    check_folder(out)
    table, manifest = read_observations(run), read_manifest(run)
    if out.exists():
        raise UserError(f"{out} is there already: an excerpt is written to a new folder")
    kept = _named(table, "measure", measures)
    kept = _named(kept, "readout", readouts) if readouts else kept
    kept = kept if last_step is None else kept.filter(pl.col("step") <= last_step)
    if not kept.height:
        raise UserError(f"{run}: no observation is left of {table.height:,}")
    steps = set(kept["step"])
    asked = {"measures": list(measures), "readouts": list(readouts), "last_step": last_step}
    manifest["checkpoints"] = [one for one in manifest.get("checkpoints", []) if one.get("step") in steps]
    manifest["provenance"] = _without_command(manifest.get("provenance", {}))
    manifest["earlier_provenance"] = [_without_command(one) for one in manifest.get("earlier_provenance", [])]
    manifest = {key: _without_folders(value) for key, value in manifest.items()}
    texts = [name for name in ("series", "reason") if name in kept.columns]
    shown = kept.with_columns(pl.col(name).str.replace_all(_FOLDERS, "${1}${2}") for name in texts)
    manifest["excerpt"] = {"of_rows": table.height, "of_sha256": sha256(table), **asked}
    make_folder(out)
    write_whole(out, shown)
    replace_file(out / MANIFEST_NAME, (json.dumps(manifest, indent=1) + "\n").encode(), "the table is whole")
    return out


def _without_command(provenance: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in provenance.items() if key != "command"}


def _without_folders(value: Any) -> Any:
    """Return a part of a manifest with every absolute path, of whatever system, cut to its last part, in texts too."""
    if isinstance(value, dict):
        return {key: _without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    if isinstance(value, str):
        if PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute():
            return PureWindowsPath(value).name if "\\" in value else PurePosixPath(value).name
        return _PATH.sub(r"\1\2", value)
    return value


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
