"""``pythiageo phases``: warm-up, entropy-seeking and compression-seeking of a rank."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption, RunsArgument
from pythiageo.locations import check_file, make_folder
from pythiageo.names import COVARIANCE_RANK, FINAL_LN, PHASE_ALPHA, PHASE_READOUT


def phases(
    runs: RunsArgument,
    measure: Annotated[str, typer.Option(help="The rank.")] = COVARIANCE_RANK,
    readout: Annotated[str, typer.Option(help="Its readout.")] = PHASE_READOUT,
    site: Annotated[str, typer.Option(help="last-block, final-ln or a hook name.")] = FINAL_LN,
    alpha: Annotated[str, typer.Option(help="The measure whose rise the last phase asks for.")] = PHASE_ALPHA,
    out: Annotated[Path | None, typer.Option(help="A CSV file to write.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the phases of a rank over training, as Li et al. 2025 name them: it falls, rises, and falls again.

    Example: pythiageo phases pythia-short
    """
    import polars as pl

    from pythiageo.events import open_run
    from pythiageo.events import phases as find_phases
    from pythiageo.observations import write_table

    if out is not None:
        check_file(out)
    found = pl.concat([find_phases(open_run(run).observations, measure, readout, site, alpha) for run in runs])
    if out is not None:
        make_folder(out.parent)
        write_table(found, out, "csv")
    if as_json:
        display.print_json(found.to_dicts())
        return
    header = ("run", "task", "phase", "from step", "to step", "change", "status")
    rows = [
        (row["run"], row["task"], row["phase"], _bounds(row, "begin"), _bounds(row, "end"),
         "-" if row["change"] is None else f"{row['change']:+.0%}", row["status"])
        for row in found.iter_rows(named=True)
    ]  # fmt: skip
    display.print_table(f"phases of {measure}, {readout}, {site}", header, rows)
    said = found.drop_nulls("reason").group_by("run", "task", "reason", maintain_order=True).agg("phase")
    for run, task, reason, names in said.iter_rows():
        display.say_wrapped(f"{run}, {task}, {' and '.join(names)}: {reason}")


def _bounds(row: dict[str, Any], boundary: str) -> str:
    """Return a boundary as ``512 (256 to 1,000)``."""
    step, low, high = (row[boundary + end] for end in ("", "_low", "_high"))
    if step is None:
        return "-"
    return f"{step:,}" if low == high == step else f"{step:,} ({low:,} to {high:,})"
