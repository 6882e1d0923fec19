"""A table in a file beside a task file, read as it is written: text is text, and nothing is remembered of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pythiageo.errors import UserError, quote_error


def read_file(file: Path, kind: str, what: str) -> list[dict[str, Any]]:
    """Return the rows of a ``csv``, ``json`` or ``parquet`` file.

    A cell of a CSV file is its text, an empty one the empty text; a line with nothing in it is no row. Numbers of a
    JSON file that are not whole are kept as they are written (``2.50``). A Parquet file says its types itself.

    Raises:
        UserError: it cannot be read as that; ``what`` begins the sentence.
    """
    try:
        return _READERS[kind](file)
    except UnicodeDecodeError as error:
        raise UserError(f"{what}: not UTF-8 text: {error}") from None
    except RecursionError:
        raise UserError(f"{what}: nested too deeply to be a table") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{what}: cannot be read as {kind}: {quote_error(error)}") from None


def _read_csv(file: Path) -> list[dict[str, Any]]:
    import polars as pl  # noqa: PLC0415 - only these tasks need it

    try:
        table = pl.read_csv(file, infer_schema=False, glob=False)
    except pl.exceptions.PolarsError as error:
        raise ValueError(quote_error(error)) from None
    return table.filter(~pl.all_horizontal(pl.all().is_null())).fill_null("").to_dicts()


def _read_parquet(file: Path) -> list[dict[str, Any]]:
    import polars as pl  # noqa: PLC0415

    try:
        return pl.read_parquet(file, glob=False, hive_partitioning=False).to_dicts()
    except pl.exceptions.PolarsError as error:
        raise ValueError(quote_error(error)) from None


def _read_json(file: Path) -> list[dict[str, Any]]:
    """Read one object a line, or one list of objects."""
    text = file.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        rows = [(f"entry {number}", row) for number, row in enumerate(_loads(text))]
    else:
        lines = enumerate(text.split("\n"), start=1)
        rows = [(f"line {number}", _loads(line, f"line {number}: ")) for number, line in lines if line.strip()]
    for place, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{place}: expected an object with a value for each column, got {type(row).__name__}")
    return [row for _, row in rows]


def _loads(text: str, place: str = "") -> Any:
    try:
        return json.loads(text, parse_float=str, parse_constant=_refuse)
    except ValueError as error:
        raise ValueError(f"{place}{error}") from None


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


_READERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "csv": _read_csv,
    "json": _read_json,
    "parquet": _read_parquet,
}
