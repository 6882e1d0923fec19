"""A tidy CSV, TSV or Parquet table, by a mapping of its columns to ours."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pythiageo.errors import UserError, count_noun, nearest
from pythiageo.importers.cells import read_table
from pythiageo.importers.mapping import Mapping
from pythiageo.importers.results import Request, Results, sha256_of, some
from pythiageo.observations.schema import SOURCE

NEEDED = ("step", "measure", "value")
WHO = {"series", "model", "model_name", "run", "size", "seed"}
"""Columns by which people tell models apart."""


def read_results(request: Request) -> Results | None:
    """Return the rows of a table; ``None`` without a mapping of its columns.

    A value that is no finite number becomes an observation with the status ``undefined``. The probe set of all rows is
    named after the file: series of one file can be compared, and ``compare`` says on what ground. Rows of one series
    are kept; ``where`` chooses them, on top of the mapping's own choice.

    Raises:
        UserError: the file cannot be read, lacks a column, has a column of another kind; no row is left, or rows of
            several series.
    """
    if request.mapping is None:
        return None
    source, mapping = request.source, request.mapping
    table = read_table(source)
    for column in (*mapping.columns.values(), *mapping.where, *request.where):
        if column not in table.columns:
            raise UserError(
                f"{source}: no column {column!r}{nearest(column, table.columns)}; it has {some(table.columns)}"
            )
    missing = [column for column in NEEDED if column not in mapping.columns and column not in mapping.constants]
    if missing:
        raise UserError(f"the mapping says of no column that it is {missing[0]!r}; expected {', '.join(NEEDED)}")
    whole = table.height
    for column, wanted in {**mapping.where, **request.where}.items():
        values = [str(one) for one in (wanted if isinstance(wanted, list) else [wanted])]
        known = table[column].cast(pl.String).unique().drop_nulls().sort().to_list()
        for value in values:
            if value not in known and not isinstance(mapping.where.get(column), list):
                raise UserError(
                    f"{source}: no row has {column} = {value!r}{nearest(value, known)}; there are {some(known)}"
                )
        table = table.filter(pl.col(column).cast(pl.String).is_in(values))
    if not table.height:
        raise UserError(f"{source}: none of {count_noun(whole, 'row')} is left")
    _check_one_model(table, mapping, source)
    rows = table.select(pl.col(theirs).alias(ours) for ours, theirs in mapping.columns.items()).to_dicts()
    series = sorted({str(row["series"]) for row in rows if row.get("series") is not None})
    if len(series) > 1:
        raise UserError(f"{source}: rows of {len(series)} series ({some(series)}): choose one with --where")
    asked = f"{SOURCE}{sha256_of(source)[:12]}"
    return Results(
        name=series[0] if series else source.stem,
        series=series[0] if series else None,
        size=mapping.size or (series[0] if series else None),
        seed=mapping.seed,
        files=[source],
        rows=[(source, {**row, "probe_set": asked}) for row in rows],
        mapping=mapping,
    )


def _check_one_model(table: pl.DataFrame, mapping: Mapping, source: Path) -> None:
    """Raise ``UserError`` where a column that nothing is made of tells several models, or seeds, apart."""
    for column in table.columns:
        if column.lower() in WHO and column not in mapping.columns.values():
            values = table[column].cast(pl.String).unique().drop_nulls().sort().to_list()
            if len(values) > 1:
                raise UserError(
                    f"{source}: rows of {len(values)} {column}s ({some(values)}): one run is of one model: choose one "
                    f"with --where {column}={values[0]}"
                )
