"""Cells of other people's tables: text as it is written, numbers where numbers are expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from pythiageo.errors import UserError, quote_error
from pythiageo.untrusted_files import BadFileError, check_plain

TABLES = (".csv", ".tsv", ".parquet")
"""How the names of tables end."""
_LARGEST = 2**53
"""Below it every whole number is a float of its own."""


def read_table(source: Path) -> pl.DataFrame:
    """Return a tidy table; every cell of a CSV or TSV file is text or, where it is empty, null.

    Raises:
        UserError: no such file, of another kind, or not readable.
    """
    try:
        check_plain(source)
        if source.suffix == ".parquet":
            return pl.read_parquet(source, glob=False, hive_partitioning=False)
        if source.suffix in {".csv", ".tsv"}:
            separator = "\t" if source.suffix == ".tsv" else ","
            table = pl.read_csv(source, separator=separator, infer_schema=False, null_values="", glob=False)
            return table.filter(~pl.all_horizontal(pl.all().is_null()))
    except FileNotFoundError:
        raise UserError(f"{source}: no such file") from None
    except BadFileError as error:
        raise UserError(f"{source} {error}") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{source}: cannot be read: {quote_error(error)}") from None
    raise UserError(f"{source}: expected a .parquet, .csv or .tsv file with --map, or the harness's .json files")


def number(value: Any, column: str, source: Path) -> float:
    """Return a cell as a number. Raises ``UserError`` where it is none."""
    try:
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):  # float() takes both
            raise ValueError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{source}: {column} must hold numbers, got {value!r}") from None


def whole(value: Any, column: str, source: Path, unit: int = 1) -> int:
    """Return a cell that counts ``unit`` as a whole number from 0 up. Raises ``UserError`` where it is none."""
    found = number(value, column, source) * unit
    # 0.512 thousands are 512, though the product may miss it by a bit
    nearest = round(found) if unit > 1 and abs(found) < _LARGEST else found
    found = nearest if abs(nearest - found) < 1e-6 else found
    if not 0 <= found < _LARGEST or found != int(found):
        raise UserError(f"{source}: a {column} is a whole number from 0 up, got {found:.15g}")
    return int(found)


def text(value: Any) -> str | None:
    """Return a cell as text."""
    return None if value is None else str(value)
