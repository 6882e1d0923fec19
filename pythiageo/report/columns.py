"""The observations of a report as columns: one a measure and readout, shared by every figure of the page.

A column has lines (run, task, level, layer, site) and, for each line, a value at every checkpoint of its run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pythiageo.events import floors, get_protocol
from pythiageo.events.run import Run
from pythiageo.names import BLOCK_END, COVARIANCE_RANK, RANKME, READOUT
from pythiageo.report.packing import pack

BUDGET = 8_500_000
"""Bytes that packed columns may take in one page; what does not fit is left out and named on the page."""
_LINE = ["task", "level", "layer", "site"]
_FIRST = (COVARIANCE_RANK, RANKME, "participation_ratio", "accuracy", "log_prob")


@dataclass(frozen=True)
class Column:
    """One measure under one readout (``None`` for scores).

    ``lines[i]`` is (run, task, level, layer, site), the run by its index; ``values[i]`` its values at that run's
    checkpoints, NaN where there is none, and ``errors[i]`` their standard errors. ``why`` says for (run, task) without
    any value why that is.
    """

    measure: str
    readout: str | None
    lines: tuple[tuple[int, str | None, str | None, int | None, str | None], ...]
    values: tuple[np.ndarray, ...]
    errors: tuple[np.ndarray, ...]
    why: dict[tuple[int, str | None], str]

    @property
    def layered(self) -> bool:
        """Whether its lines are layers; else they are levels."""
        return any(line[3] is not None for line in self.lines)


def columns(runs: Sequence[Run]) -> list[Column]:
    """Return every column of the runs, in reading order: the measures shown first, the shown readout first."""
    found: dict[tuple[str, str | None], list[tuple[int, pl.DataFrame]]] = {}
    for number, run in enumerate(runs):
        for (measure, readout), rows in run.distinct.partition_by(
            ["measure", "readout"], as_dict=True, maintain_order=True
        ).items():
            found.setdefault((str(measure), readout), []).append((number, rows))
    timelines = [run.distinct["step"].unique().sort() for run in runs]
    made = [_column(key, parts, timelines) for key, parts in found.items()]
    return sorted(made, key=_order)


def _order(column: Column) -> tuple[int, bool, bool, str, str]:
    rank = _FIRST.index(column.measure) if column.measure in _FIRST else len(_FIRST)
    missing = sum(int(np.isnan(values).sum()) for values in column.values)
    sparse = 2 * missing > sum(len(values) for values in column.values)
    return rank, sparse, column.readout != READOUT, column.measure, column.readout or ""


def _column(
    key: tuple[str, str | None], parts: Sequence[tuple[int, pl.DataFrame]], timelines: Sequence[pl.Series]
) -> Column:
    lines: list[Any] = []
    values: list[np.ndarray] = []
    errors: list[np.ndarray] = []
    why: dict[tuple[int, str | None], str] = {}
    for number, rows in parts:
        places = rows.select(_LINE).unique().sort(_LINE).with_row_index("line")
        steps = timelines[number].to_frame().with_row_index("at")
        cells = rows.join(places, on=_LINE, nulls_equal=True).join(steps, on="step").drop_nulls("value")
        lines += [(number, *line) for line in places.select(_LINE).iter_rows()]
        for name, grids in (("value", values), ("stderr", errors)):
            grid = np.full((places.height, steps.height), np.nan)
            grid[cells["line"].to_numpy(), cells["at"].to_numpy()] = cells[name].fill_null(np.nan).to_numpy()
            grid[~np.isfinite(grid)] = np.nan  # nobody checks the standard errors of a table
            grids += list(grid)
        why |= {(number, task): reason for task, reason in _reasons(rows).items()}
    return Column(*key, tuple(lines), tuple(values), tuple(errors), why)


def _reasons(rows: pl.DataFrame) -> dict[str | None, str]:
    """Return, for each task of which no row has a value, what its rows say instead."""
    empty = rows.filter(pl.col("value").count().over("task") == 0)
    counted = (
        empty.group_by("task", "status", "reason").len().sort("task", "len", "status", descending=[False, True, False])
    )
    found: dict[str | None, str] = {}
    for task, status, reason, count in counted.iter_rows():
        said = f"{count:,} {'observation is' if count == 1 else 'observations are'} {status}" + (
            f" ({reason})" if reason else ""
        )
        found[task] = f"{found[task]}; {said}" if task in found else said
    return found


def floor_steps(runs: Sequence[Run]) -> dict[str, int]:
    """Return the step of the last block's floor (billa-v4) by ``measure|readout|run|task``, at the edge too."""
    steps: dict[str, int] = {}
    counted = pl.col("status").is_in(get_protocol("billa-v4").counted)
    for number, run in enumerate(runs):
        site = pl.col("site").str.ends_with(BLOCK_END)
        last = pl.col("layer") == pl.col("layer").filter(site).max()
        kept = run.distinct.filter((site & last) | pl.col("site").is_null())
        for row in floors(kept, "billa-v4").filter(counted).iter_rows(named=True):
            steps[f"{row['measure']}|{row['readout']}|{number}|{row['task']}"] = row["step"]
    return steps


def pack_columns(found: Sequence[Column], budget: int = BUDGET) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Return the columns as the page's script reads them, their packed blocks, and what did not fit.

    Columns with the same lines share them. A column is left out whole, never thinned, once the budget is spent.
    """
    entries: list[dict[str, Any]] = []
    blocks: list[str] = []
    left_out: list[str] = []
    spent = 0
    for column in found:
        uncertain = any(np.isfinite(errors).any() for errors in column.errors)
        block = pack(np.concatenate([*column.values, *(column.errors if uncertain else ())]))
        if spent + len(block) > budget and blocks:
            left_out.append(column.measure + (f" {column.readout}" if column.readout else ""))
            continue
        spent += len(block)
        why = [[number, task, said] for (number, task), said in column.why.items()]
        entry = {"measure": column.measure, "readout": column.readout, "layered": column.layered, "why": why}
        entry["errors"] = uncertain  # standard errors follow the values
        entries.append(entry | {"lines": column.lines})
        blocks.append(block)
    return _shared(entries), blocks, left_out


def _shared(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Replace lines that an earlier column has by that column's index."""
    known: dict[Any, int] = {}
    for index, entry in enumerate(entries):
        first = known.setdefault(entry["lines"], index)
        if first != index:
            entry["lines"] = first
    return entries
