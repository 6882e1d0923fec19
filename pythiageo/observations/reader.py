"""Read the observations of a run folder, made here or by a stranger, checked by the schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pythiageo.errors import UserError, nearest, quote_error
from pythiageo.locations import OUTPUTS
from pythiageo.observations.manifest import MANIFEST_NAME, check_inside, check_version
from pythiageo.observations.ranges import first_outside
from pythiageo.observations.schema import COLUMNS, LAYERS, SORT_KEY, STATUSES, STEPS
from pythiageo.observations.store import PARTS_FOLDER, SCHEMA_KEY, TABLE_NAME, part_files
from pythiageo.untrusted_files import BadFileError, check_plain

_ROWS = 10_000_000
"""Rows of a table that is read: they take 7 GB of memory."""


def read_observations(run_folder: Path) -> pl.DataFrame:
    """Return the observations of a run folder, in the order of ``SORT_KEY``, columns as in ``COLUMNS``.

    The whole table is read where the run has one, else its finished parts.

    Raises:
        UserError: not a run folder, nothing finished yet, a damaged or foreign Parquet file, a newer schema,
            missing or mistyped columns, or rows that break the table's rules.
    """
    frame, path = _gathered(Path(run_folder), list(COLUMNS))
    return _checked(frame, path)


def read_columns(run_folder: Path, columns: Sequence[str]) -> pl.DataFrame:
    """Return some columns of a run's observations, ``step`` among them, fast: what its rows say is not checked.

    Raises:
        UserError: as ``read_observations``, less the rules of rows.
    """
    return _gathered(Path(run_folder), columns)[0]


def _gathered(run_folder: Path, columns: Sequence[str]) -> tuple[pl.DataFrame, Path]:
    """Return these columns of the whole table, or else of all parts, and where that lies."""
    table, folder = run_folder / TABLE_NAME, run_folder / PARTS_FOLDER
    if table.exists():
        return _read(table, run_folder, columns), table
    parts = part_files(folder)
    if not parts:
        raise _nothing_to_read(run_folder)
    frames = []
    for step, path in parts:
        frames.append(read_part(step, path, run_folder, columns))
        _check_count(folder, sum(frame.height for frame in frames))
    return pl.concat(frames), folder


def read_part(step: int, path: Path, run_folder: Path, columns: Sequence[str] = tuple(COLUMNS)) -> pl.DataFrame:
    """Return the observations of one checkpoint, in a file of their own inside ``run_folder``.

    Raises:
        UserError: no whole Parquet file of the table's columns, or one of other steps.
    """
    frame = _read(path, run_folder, columns)
    if (frame["step"] != step).any():
        raise UserError(f"{path} holds steps other than {step}, the step its name says.")
    return frame


def _nothing_to_read(run_folder: Path) -> UserError:
    if not run_folder.exists():
        bare = len(run_folder.parts) == 1
        places = [run_folder.parent, *([OUTPUTS] if bare else [])]
        siblings = [entry.name for place in places if place.is_dir() for entry in place.iterdir()]
        return UserError(f"there is no run folder {run_folder}{nearest(run_folder.name, siblings)}.")
    if (run_folder / MANIFEST_NAME).exists():
        return UserError(f"the run {run_folder} has no finished checkpoint yet.")
    return UserError(f"{run_folder} is not a run folder: it has neither {TABLE_NAME} nor parts in {PARTS_FOLDER}/.")


def _read(path: Path, run_folder: Path, columns: Sequence[str]) -> pl.DataFrame:
    """Return these columns of one Parquet file that has the table's."""
    check_inside(path, run_folder)
    try:
        check_plain(path)
        file = pq.ParquetFile(path)
        metadata: Mapping[bytes, bytes] = file.metadata.metadata or {}
        version = metadata.get(SCHEMA_KEY, b"").decode("utf-8", "replace")
        check_version(version, path)
        _check_columns(pl.DataFrame(pl.from_arrow(file.schema_arrow.empty_table())), path)
        _check_count(path, file.metadata.num_rows)
        frame = pl.from_arrow(file.read(columns=list(columns)))
    except BadFileError as error:
        raise UserError(f"{path} {error}.") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a whole Parquet file ({quote_error(error)}); remove it and resume the run."
        ) from error
    assert isinstance(frame, pl.DataFrame)
    return frame.select(columns)


def _check_count(path: Path, rows: int) -> None:
    if rows > _ROWS:
        raise UserError(f"{path} holds {rows:,} observations, and {_ROWS:,} are read at most: measure less in one run.")


def _check_columns(frame: pl.DataFrame, path: Path) -> None:
    """Raise unless a frame has exactly the table's columns, each of its type."""
    for name, dtype in COLUMNS.items():
        if name not in frame.columns:
            raise UserError(f"{path} has no column {name!r}{nearest(name, frame.columns)}.")
        if frame.schema[name] != dtype:
            raise UserError(f"{path}: column {name!r} has type {frame.schema[name]}, expected {dtype}.")
    for name in frame.columns:
        if name not in COLUMNS:
            raise UserError(f"{path} has an unknown column {name!r}{nearest(name, COLUMNS)}.")


def _checked(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Return the frame in the table's order, once its rows keep the table's rules."""
    ok = pl.col("status") == "ok"
    required = [
        name for name in ("run", "series", "regime", "size", "step", "measure", "status") if frame[name].has_nulls()
    ]
    if required:
        raise UserError(f"{path}: column {required[0]!r} has empty cells, and every observation needs it.")
    for name, most in (("step", STEPS), ("tokens", STEPS), ("layer", LAYERS)):
        there = frame[name].drop_nulls()
        beyond = there.filter(~there.is_between(0, most - 1))
        if beyond.len():
            raise UserError(f"{path}: {name} {beyond[0]:,} cannot be: expected 0 to {most - 1:,}.")
    unknown = frame.filter(~pl.col("status").is_in(list(STATUSES)))
    if unknown.height:
        raise UserError(f"{path}: unknown status {unknown['status'][0]!r}, expected one of {', '.join(STATUSES)}.")
    broken = frame.filter((ok & ~pl.col("value").is_finite().fill_null(False)) | (~ok & pl.col("value").is_not_null()))
    if broken.height:
        row = broken.row(0, named=True)
        raise UserError(
            f"{path}: {row['measure']} at step {row['step']} has status {row['status']!r} "
            f"and value {row['value']}, but a finite value and status 'ok' go together."
        )
    if strange := first_outside(frame):
        row, expected = strange
        task = f" of task {row['task']!r}" if row["task"] else ""
        raise UserError(f"{path}: {row['measure']}{task} at step {row['step']} is {row['value']:g}; {expected}.")
    identity = ["run", "series", *SORT_KEY]
    twice = frame.filter(frame.select(identity).is_duplicated())
    if twice.height:
        row = twice.row(0, named=True)
        raise UserError(f"{path}: {row['measure']} at step {row['step']} of task {row['task']!r} is there twice.")
    return frame.sort(SORT_KEY, nulls_last=False, maintain_order=True)
