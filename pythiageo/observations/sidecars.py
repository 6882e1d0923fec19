"""What is kept beside the table on request, one Parquet file a checkpoint: spectra of readouts, sketches of states."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pythiageo.durable_files import KEPT, drop_leftovers, machine_error, remove, replace_file
from pythiageo.errors import UserError, quote_error
from pythiageo.observations.manifest import CheckpointEntry, check_inside, check_version
from pythiageo.observations.schema import SCHEMA_VERSION, STATUSES
from pythiageo.observations.store import SCHEMA_KEY, part_files
from pythiageo.untrusted_files import BadFileError, check_plain

SPECTRA, SKETCHES = "spectra", "sketches"
"""The folders of the files in a run folder."""
_ROWS = 1_000_000
"""Rows of a file that is read, and numbers in one of them: a readout each, of a million values at most."""
_BYTES = 2**32
_LIST = pa.list_(pa.float64())


class SpectrumRow(NamedTuple):
    """The singular values of one readout, or why there are none; fields as ``geometry.kept_spectrum`` has them.

    ``left_out`` and ``dominated``: what the reasons of all measures, and of ranks alone, say of the readout.
    """

    step: int
    weight_sha: str | None
    task: str
    level: str
    probe_set: str
    layer: int | None
    site: str
    readout: str
    status: str
    reason: str | None
    n: int | None = None
    width: int | None = None
    sigma: np.ndarray | None = None
    method: str | None = None
    every_value: bool | None = None
    largest: float | None = None
    unit: float | None = None
    spectral: float | None = None
    described: str | None = None
    left_out: str | None = None
    dominated: str | None = None
    finer: np.ndarray | None = None
    noise: np.ndarray | None = None
    columns: np.ndarray | None = None


class SketchRow(NamedTuple):
    """The sketch of the rows at some positions of one site (``geometry.sketch``), or why there is none.

    ``n`` of ``of`` rows are in it. ``items``: sha256 of the texts of the examples, in their order. ``fed``: sha256 of
    which example each row is of, and, where an example has several, of its place and of the tokens that were fed.
    """

    step: int
    weight_sha: str | None
    task: str
    level: str
    probe_set: str
    layer: int | None
    site: str
    positions: str
    status: str
    reason: str | None
    items: str | None = None
    fed: str | None = None
    n: int | None = None
    of: int | None = None
    width: int | None = None
    unit: float | None = None
    spectral: float | None = None
    scale: float | None = None
    values: np.ndarray | None = None


_TYPES = {"step": pa.int64(), "layer": pa.int32(), "n": pa.int64(), "of": pa.int64(), "width": pa.int64(),
          "every_value": pa.bool_(), "largest": pa.float64(), "unit": pa.float64(), "spectral": pa.float64(),
          "scale": pa.float64(), "sigma": _LIST, "finer": _LIST, "noise": _LIST, "columns": _LIST,
          "values": pa.list_(pa.float32())}  # fmt: skip
_KINDS: dict[str, type[SpectrumRow] | type[SketchRow]] = {SPECTRA: SpectrumRow, SKETCHES: SketchRow}
_FULL = {SPECTRA: ("n", "width", "sigma", "method", "every_value", "largest", "unit", "spectral", "described"),
         SKETCHES: ("items", "fed", "n", "of", "width", "unit", "spectral", "scale", "values")}  # fmt: skip
"""What a row with the status ``ok`` has."""
Row = TypeVar("Row", SpectrumRow, SketchRow)


@dataclass(frozen=True)
class Kept:
    """What one checkpoint keeps beside its rows; ``None`` where that was not asked for."""

    spectra: list[SpectrumRow] | None = None
    sketches: list[SketchRow] | None = None

    def joined(self, earlier: Kept, again: Collection[tuple[str, str]]) -> Kept:
        """Return this with what an earlier measurement kept of all but the tasks and levels ``again``."""
        return Kept(
            _join(self.spectra, earlier.spectra, again),
            _join(self.sketches, earlier.sketches, again),
        )


NOTHING = Kept()


def _join(new: list[Row] | None, old: list[Row] | None, again: Collection[tuple[str, str]]) -> list[Row] | None:
    if old is None:
        return new
    return [row for row in old if (row.task, row.level) not in again] + (new or [])


class SidecarStore:
    """The files of one run folder; every one appears whole or not at all, and equal rows give equal bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, name: str, step: int) -> Path:
        """Return the file of one checkpoint."""
        return self.folder / name / f"step-{step:08d}.parquet"

    def write(self, step: int, kept: Kept) -> dict[str, str]:
        """Write what a checkpoint keeps in place of what is there, and return the sha256 of each file by its name.

        Raises:
            MachineError: a file could not be written.
        """
        found = {}
        for name in _KINDS:
            rows, path = getattr(kept, name), self.path(name, step)
            if rows is None:
                path.unlink(missing_ok=True)
                continue
            content = _parquet(name, rows)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise machine_error(error, path, KEPT) from error
            replace_file(path, content)
            found[name] = hashlib.sha256(content).hexdigest()
        return found

    def drop(self, gone: Collection[int]) -> None:
        """Remove the files of these steps."""
        for name in _KINDS:
            for step, path in part_files(self.folder / name):
                if step in gone:
                    remove(path)

    def mend(self, entries: Sequence[CheckpointEntry]) -> set[int]:
        """Return the steps of which a file is gone or is not the one that was written, and remove all that is strange.

        ``entries``: what the manifest says of the checkpoints.
        """
        known = {entry.step for entry in entries}
        for name in _KINDS:
            drop_leftovers(self.folder / name)
            self.drop({step for step, _ in part_files(self.folder / name)} - known)
        damaged = {
            entry.step
            for entry in entries
            for name, sha in (entry.kept or {}).items()
            if name in _KINDS and not _is_sound(self.path(name, entry.step), sha)
        }
        self.drop(damaged)
        return damaged

    def spectra(self, entry: CheckpointEntry) -> Iterator[SpectrumRow]:
        """Yield the spectra of a checkpoint. Raises ``UserError`` where their file is not whole, or is a stranger's."""
        return self._read(SPECTRA, SpectrumRow, entry)

    def sketches(self, entry: CheckpointEntry) -> Iterator[SketchRow]:
        """Yield the sketches of a checkpoint. Raises as ``spectra``."""
        return self._read(SKETCHES, SketchRow, entry)

    def read(self, entry: CheckpointEntry) -> Kept:
        """Return all that a checkpoint keeps. Raises as ``spectra``."""
        said = entry.kept or {}
        return Kept(
            list(self.spectra(entry)) if SPECTRA in said else None,
            list(self.sketches(entry)) if SKETCHES in said else None,
        )

    def _read(self, name: str, kind: type[Row], entry: CheckpointEntry) -> Iterator[Row]:
        path = self.path(name, entry.step)
        table = _open(path, self.folder, kind)
        lists = [column for column in kind._fields if pa.types.is_list(_type(column))]
        plain = [column for column in kind._fields if column not in lists]
        for batch in table.to_batches(max_chunksize=64):
            arrays = {column: batch.column(column) for column in lists}
            for place, said in enumerate(batch.select(plain).to_pylist()):
                said |= {column: _numbers(array, place) for column, array in arrays.items()}
                row = kind(**said)
                if problem := _problem(name, row, entry):
                    raise UserError(f"{path}: {row.task} at {row.site}: {problem}.")
                yield row


def _numbers(array: pa.ListArray, place: int) -> np.ndarray | None:
    found = array[place]
    return None if not found.is_valid else found.values.to_numpy(zero_copy_only=False)


def _problem(name: str, row: SpectrumRow | SketchRow, entry: CheckpointEntry) -> str | None:
    """Return what is wrong with a row, ``None`` if nothing is."""
    said = row._asdict()
    missing = [column for column in _FULL[name] if said[column] is None]
    numbers = [value for value in said.values() if isinstance(value, np.ndarray | float)]
    rules = {
        f"its step is {row.step}, and the file's name says {entry.step}": row.step == entry.step,
        f"it is of other weights than step {entry.step} of the manifest": row.weight_sha == entry.weight_sha,
        f"unknown status {row.status!r}, expected one of {', '.join(STATUSES)}": row.status in STATUSES,
        f"status {row.status} needs a reason": row.status == "ok" or bool(row.reason),
        f"status ok needs {', '.join(missing)}": row.status != "ok" or not missing,
        "it holds NaN or infinity": all(bool(np.isfinite(value).all()) for value in numbers),
        f"it holds more than {_ROWS:,} numbers": all(np.size(value) <= _ROWS for value in numbers),
    }
    return next((problem for problem, kept in rules.items() if not kept), None)


def _type(column: str) -> pa.DataType:
    return _TYPES.get(column, pa.string())


def _schema(kind: type[SpectrumRow] | type[SketchRow]) -> pa.Schema:
    return pa.schema([(column, _type(column)) for column in kind._fields])


def _parquet(name: str, rows: Sequence[SpectrumRow | SketchRow]) -> bytes:
    kind = _KINDS[name]
    ordered = sorted(rows, key=lambda row: (row.task, row.level, -1 if row.layer is None else row.layer, row[6:8]))
    schema = _schema(kind).with_metadata({SCHEMA_KEY: SCHEMA_VERSION.encode()})
    columns: Mapping[str, Any] = {
        column: pa.array([getattr(row, column) for row in ordered], type=_type(column)) for column in kind._fields
    }
    buffer = BytesIO()
    pq.write_table(pa.table(columns, schema=schema), buffer, compression="zstd", use_dictionary=["task", "site"])
    return buffer.getvalue()


def _open(path: Path, run_folder: Path, kind: type[SpectrumRow] | type[SketchRow]) -> pa.Table:
    """Return one file's rows.

    Raises:
        UserError: it is not there, leads out of the run, is no whole Parquet file, or has other columns.
    """
    check_inside(path, run_folder)
    try:
        check_plain(path)
        file = pq.ParquetFile(path)
        check_version((file.metadata.metadata or {}).get(SCHEMA_KEY, b"").decode("utf-8", "replace"), path)
        if not file.schema_arrow.equals(_schema(kind), check_metadata=False):
            raise UserError(f"{path} has other columns than pythiageo writes.")
        size = sum(file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups))
        if file.metadata.num_rows > _ROWS or size > _BYTES:
            raise UserError(f"{path} holds {file.metadata.num_rows:,} rows of {size:,} bytes: more than are read.")
        return file.read()
    except FileNotFoundError:
        raise UserError(f"{path} is not there: excerpts and published runs hold the table alone.") from None
    except BadFileError as error:
        raise UserError(f"{path} {error}.") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a whole Parquet file ({quote_error(error)}): --resume measures its checkpoint again."
        ) from None


def _is_sound(path: Path, sha: object) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha
