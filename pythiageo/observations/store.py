"""Where a run keeps its observations: one Parquet part a finished checkpoint, then one table of them all."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from io import BytesIO
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from pythiageo.durable_files import KEPT, drop_leftovers, machine_error, replace_file
from pythiageo.observations.ranges import outside
from pythiageo.observations.schema import COLUMNS, SCHEMA_VERSION, SORT_KEY, STATUSES, Observation

PARTS_FOLDER = "observations"
TABLE_NAME = "observations.parquet"
SCHEMA_KEY = b"pythiageo.schema"
"""Key of the schema version in the Parquet file's key-value metadata."""

_PART_NAME = re.compile(r"step-(\d{8,})\.parquet")


class ObservationStore:
    """The observations of one run folder.

    ``folder`` is the run folder. Parts lie in ``folder/observations/step-00000100.parquet``, the whole table
    in ``folder/observations.parquet``. Every file appears whole or not at all; equal rows give equal bytes.
    One writer at a time: the caller holds the run folder's lock.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    @property
    def parts_folder(self) -> Path:
        """The folder of the parts."""
        return self.folder / PARTS_FOLDER

    @property
    def table_path(self) -> Path:
        """The file that ``consolidate`` writes."""
        return self.folder / TABLE_NAME

    def part_path(self, step: int) -> Path:
        """Return the file of one checkpoint's observations."""
        return self.parts_folder / f"step-{step:08d}.parquet"

    def write(self, step: int, rows: Sequence[Observation]) -> None:
        """Write the observations of the checkpoint at ``step``, replacing its earlier part if there is one.

        A consolidated table that is already there is removed first, as it would no longer be true.

        Raises:
            ValueError: a row breaks the table's rules (unknown status, a value that is not finite, a value
                beside a status other than ``ok``, no reason, another step, an observation twice, no row).
            MachineError: the part could not be written; every part written before is untouched.
        """
        _check(step, rows)
        content = _parquet(_frame(rows))
        try:
            self.parts_folder.mkdir(parents=True, exist_ok=True)
            self._drop_table()
        except OSError as error:
            raise machine_error(error, self.table_path, KEPT) from error
        replace_file(self.part_path(step), content)

    def steps(self) -> list[int]:
        """Return the steps that are written, ascending. Leftovers of an interrupted write are removed."""
        if not self.parts_folder.is_dir():
            return []
        drop_leftovers(self.parts_folder)
        return [step for step, _ in part_files(self.parts_folder)]

    def drop_after(self, step: int) -> None:
        """Remove the parts of later steps, and the consolidated table with them."""
        self.drop([known for known in self.steps() if known > step])

    def drop(self, steps: Collection[int]) -> None:
        """Remove the parts of these steps, and the consolidated table with them."""
        parts = [path for known, path in part_files(self.parts_folder) if known in steps]
        if parts:
            self._drop_table()
        for path in parts:
            path.unlink()

    def restore(self, rows: pl.DataFrame) -> None:
        """Make the whole table's rows of steps that have no part parts again, and remove the table.

        Raises:
            MachineError: a part could not be written.
        """
        missing = rows.filter(~pl.col("step").is_in(self.steps()))
        self.parts_folder.mkdir(parents=True, exist_ok=True)
        for (step,), part in missing.group_by("step"):
            replace_file(self.part_path(int(step)), _parquet(part))
        self.table_path.unlink()

    def rows(self, step: int) -> list[Observation]:
        """Return the observations of one checkpoint that are written."""
        frame = pl.read_parquet(self.part_path(step), glob=False, hive_partitioning=False)
        return [Observation(*row) for row in frame.select(list(COLUMNS)).iter_rows()]

    def consolidate(self) -> Path:
        """Write all parts, sorted, into one table and return its path. Equal parts give equal bytes.

        Raises:
            ValueError: there is no part.
            MachineError: the table could not be written; the parts are untouched.
        """
        self.steps()
        parts = part_files(self.parts_folder)
        if not parts:
            raise ValueError(f"no observations to consolidate in {self.parts_folder}")
        frames = [pl.read_parquet(path, glob=False, hive_partitioning=False) for _, path in parts]
        replace_file(self.table_path, _parquet(pl.concat(frames)))
        return self.table_path

    def _drop_table(self) -> None:
        """Remove the consolidated table, unless it holds steps that no part holds."""
        if not self.table_path.exists():
            return
        held = set(pl.read_parquet(self.table_path, columns=["step"], glob=False)["step"].to_list())
        if lost := sorted(held - set(self.steps())):
            raise ValueError(f"{self.table_path} holds steps {lost[:5]} whose parts are gone; writing would lose them")
        self.table_path.unlink()


def write_whole(folder: Path, table: pl.DataFrame) -> Path:
    """Write a finished table of observations, sorted, into ``folder`` and return its path.

    Raises:
        MachineError: it could not be written.
    """
    path = Path(folder) / TABLE_NAME
    replace_file(path, _parquet(table.select(list(COLUMNS))), "nothing else was touched")
    return path


def table_of(step: int, rows: Sequence[Observation]) -> pl.DataFrame:
    """Return the observations of one checkpoint as ``read_observations`` would, without any file.

    Raises:
        ValueError: a row breaks the table's rules.
    """
    _check(step, rows)
    return _sorted(_frame(rows))


def part_files(parts_folder: Path) -> list[tuple[int, Path]]:
    """Return ``(step, file)`` of every part in a parts folder, by step."""
    if not parts_folder.is_dir():
        return []
    found = [(match, path) for path in parts_folder.iterdir() if (match := _PART_NAME.fullmatch(path.name))]
    return sorted((int(match[1]), path) for match, path in found)


def _frame(rows: Sequence[Observation]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def _sorted(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort(SORT_KEY, nulls_last=False, maintain_order=True)


def _parquet(frame: pl.DataFrame) -> bytes:
    """Return the rows, in the table's order, as the bytes of a Parquet file that names the schema version."""
    table = _sorted(frame).to_arrow(compat_level=pl.CompatLevel.oldest())
    table = table.replace_schema_metadata({SCHEMA_KEY: SCHEMA_VERSION.encode()})
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _check(step: int, rows: Sequence[Observation]) -> None:
    """Raise ``ValueError`` for the first row that breaks the table's rules."""
    if not rows:
        raise ValueError(f"no observation for step {step}: even a checkpoint that cannot be read has a reason")
    seen: set[tuple[object, ...]] = set()
    for row in rows:
        key = tuple(getattr(row, name) for name in SORT_KEY)
        where = "/".join("-" if part is None else str(part) for part in key)
        if problem := _problem(step, row):
            raise ValueError(f"observation {where}: {problem}")
        if key in seen:
            raise ValueError(f"observation {where}: written twice for one checkpoint")
        seen.add(key)


def _problem(step: int, row: Observation) -> str | None:
    """Return what is wrong with a row, or ``None``."""
    ok = row.status == "ok"
    rules = {
        f"its step is not the part's step {step}": row.step == step,
        f"unknown status {row.status!r}, expected one of {', '.join(STATUSES)}": row.status in STATUSES,
        f"status ok needs a finite value, got {row.value!r}": not ok or _finite(row.value),
        f"status {row.status} allows no value, got {row.value!r}": ok or row.value is None,
        f"status {row.status} needs a reason": ok or bool(row.reason),
        f"its standard error is not finite: {row.stderr!r}": row.stderr is None or _finite(row.stderr),
    }
    broken = next((problem for problem, kept in rules.items() if not kept), None)
    if broken is None and row.value is not None and (expected := outside(row.measure, row.value)):
        return f"its value is {row.value!r}; {expected}"
    return broken


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
