"""Read a run folder, made here or by a stranger: its manifest, its observations checked by the schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pythiageo.errors import UserError, first_line, nearest
from pythiageo.observations.schema import COLUMNS, SCHEMA_VERSION, SORT_KEY, STATUSES
from pythiageo.observations.store import PARTS_FOLDER, SCHEMA_KEY, TABLE_NAME, part_files

MANIFEST_NAME = "manifest.json"
_MANIFEST_LIMIT = 64 * 2**20
"""A manifest of more bytes than this is not one."""


def read_observations(run_folder: Path) -> pl.DataFrame:
    """Return the observations of a run folder, in the order of ``SORT_KEY``, columns as in ``COLUMNS``.

    The whole table is read where the run has one, else its finished parts.

    Raises:
        UserError: not a run folder, nothing finished yet, a damaged or foreign Parquet file, a newer schema,
            missing or mistyped columns, or rows that break the table's rules.
    """
    run_folder = Path(run_folder)
    table = run_folder / TABLE_NAME
    if table.exists():
        return _checked(_read(table, run_folder), table)
    parts = part_files(run_folder / PARTS_FOLDER)
    if not parts:
        raise _nothing_to_read(run_folder)
    frames = []
    for step, path in parts:
        frame = _read(path, run_folder)
        if (frame["step"] != step).any():
            raise UserError(f"{path} holds steps other than {step}, the step its name says.")
        frames.append(frame)
    return _checked(pl.concat(frames), run_folder / PARTS_FOLDER)


def read_manifest(run_folder: Path) -> dict[str, Any]:
    """Return a run's manifest. Only the schema version is checked: every other key may be missing.

    Raises:
        UserError: no manifest, not a JSON object, or written under a newer schema.
    """
    path = Path(run_folder) / MANIFEST_NAME
    _inside(path, Path(run_folder))
    try:
        if path.stat().st_size > _MANIFEST_LIMIT:
            raise UserError(f"{path} is larger than {_MANIFEST_LIMIT} bytes, so it is not a run's manifest.")
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{run_folder} is not a run folder: it has no {MANIFEST_NAME}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON: {error}.") from error
    if not isinstance(manifest, dict):
        raise UserError(f"{path} must hold a JSON object, found {type(manifest).__name__}.")
    _check_version(str(manifest.get("schema_version", "")), path)
    return manifest


def _nothing_to_read(run_folder: Path) -> UserError:
    if not run_folder.exists():
        siblings = [entry.name for entry in run_folder.parent.iterdir()] if run_folder.parent.is_dir() else []
        return UserError(f"there is no run folder {run_folder}{nearest(run_folder.name, siblings)}.")
    if (run_folder / MANIFEST_NAME).exists():
        return UserError(f"the run {run_folder} has no finished checkpoint yet.")
    return UserError(f"{run_folder} is not a run folder: it has neither {TABLE_NAME} nor parts in {PARTS_FOLDER}/.")


def _inside(path: Path, folder: Path) -> None:
    """Raise if ``path`` is a link that leads out of the run folder."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path} leads outside the run folder {folder}; copy the file into it.")


def _read(path: Path, run_folder: Path) -> pl.DataFrame:
    """Return one Parquet file with the table's columns in the table's order."""
    _inside(path, run_folder)
    try:
        file = pq.ParquetFile(path)
        metadata: Mapping[bytes, bytes] = file.metadata.metadata or {}
        version = metadata.get(SCHEMA_KEY, b"").decode("utf-8", "replace")
        _check_version(version, path)
        frame = pl.from_arrow(file.read())
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a whole Parquet file ({first_line(error)}); remove it and resume the run."
        ) from error
    assert isinstance(frame, pl.DataFrame)
    return _typed(frame, path)


def _check_version(version: str, path: Path) -> None:
    if version == SCHEMA_VERSION:
        return
    if not version:
        raise UserError(f"{path} does not name its schema version, so pythiageo did not write it.")
    if version.isdigit() and int(version) > int(SCHEMA_VERSION):
        raise UserError(
            f"{path} has schema version {version}, and this pythiageo reads {SCHEMA_VERSION}: update pythiageo."
        )
    raise UserError(f"{path} has schema version {version!r}, expected {SCHEMA_VERSION}.")


def _typed(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Return the frame with exactly the table's columns, each of its type."""
    for name, dtype in COLUMNS.items():
        if name not in frame.columns:
            raise UserError(f"{path} has no column {name!r}{nearest(name, frame.columns)}.")
        if frame.schema[name] != dtype:
            raise UserError(f"{path}: column {name!r} has type {frame.schema[name]}, expected {dtype}.")
    for name in frame.columns:
        if name not in COLUMNS:
            raise UserError(f"{path} has an unknown column {name!r}{nearest(name, COLUMNS)}.")
    return frame.select(list(COLUMNS))


def _checked(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Return the frame in the table's order, once its rows keep the table's rules."""
    ok = pl.col("status") == "ok"
    required = [
        name for name in ("run", "series", "regime", "size", "step", "measure", "status") if frame[name].has_nulls()
    ]
    if required:
        raise UserError(f"{path}: column {required[0]!r} has empty cells, and every observation needs it.")
    unknown = frame.filter(~pl.col("status").is_in(STATUSES))
    if unknown.height:
        raise UserError(f"{path}: unknown status {unknown['status'][0]!r}, expected one of {', '.join(STATUSES)}.")
    broken = frame.filter((ok & ~pl.col("value").is_finite().fill_null(False)) | (~ok & pl.col("value").is_not_null()))
    if broken.height:
        row = broken.row(0, named=True)
        raise UserError(
            f"{path}: {row['measure']} at step {row['step']} has status {row['status']!r} "
            f"and value {row['value']}, but a finite value and status 'ok' go together."
        )
    identity = ["run", "series", *SORT_KEY]
    twice = frame.filter(frame.select(identity).is_duplicated())
    if twice.height:
        row = twice.row(0, named=True)
        raise UserError(f"{path}: {row['measure']} at step {row['step']} of task {row['task']!r} is there twice.")
    return frame.sort(SORT_KEY, nulls_last=False, maintain_order=True)
