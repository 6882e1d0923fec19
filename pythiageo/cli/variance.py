"""``pythiageo variance``: what ranks vary with between runs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption, MeasureOption, ReadoutOption, RunsArgument, SiteOption, named
from pythiageo.errors import count_noun
from pythiageo.locations import check_folder, make_folder


def variance(
    runs: RunsArgument,
    protocol: Annotated[str, typer.Option(help="Whose window the floors are of.")] = "billa-v4",
    measure: MeasureOption = None,
    readout: ReadoutOption = None,
    site: SiteOption = None,
    resamples: Annotated[int, typer.Option(min=99, max=100_000, help="Draws of the bootstrap over runs.")] = 999,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables, as CSV.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what floors and final ranks vary with between runs: settings of the training, accuracy, task or seed.

    Example: pythiageo variance outputs/confound-*
    """
    import polars as pl

    from pythiageo.compare import divide_variance
    from pythiageo.events import open_runs
    from pythiageo.observations import write_table

    if out is not None:
        check_folder(out)
    found = divide_variance(open_runs(runs), protocol, measure, readout, site, resamples)
    if out is not None:
        make_folder(out)
        for name, table in (("variance", found.table), ("values", found.values)):
            write_table(table, out / f"{name}.csv", "csv")
    if as_json:
        tables = {"table": found.table.to_dicts(), "values": found.values.to_dicts()}
        display.print_json({**asdict(replace(found, table=pl.DataFrame(), values=pl.DataFrame())), **tables})
        return
    header = ("quantity", "variance", "goes with", "share", "95% interval", "beyond the others", "95% interval")
    rows = [
        (row["quantity"], row["variance"], row["goes_with"], *_shown(row["share"], row["low"], row["high"]),
         *_shown(row["beyond"], row["beyond_low"], row["beyond_high"]))
        for row in found.table.iter_rows(named=True)
    ]  # fmt: skip
    title = f"variance of log {found.place.measure} ({found.place.readout}, {found.place.site}; {protocol})"
    display.print_table(
        f"{title}: {count_noun(found.runs, 'run')}, {count_noun(len(found.tasks), 'task')}", header, rows
    )
    for name, values in found.settings.items():
        display.say(f"{name}: {', '.join(values)}")
    for note in found.notes:
        display.say(f"note: {note}")
    display.say_next(f"claims {named(runs)}")


def _shown(share: float | None, low: float | None, high: float | None) -> tuple[str | None, str | None]:
    return (
        None if share is None else f"{share:.2f}",
        None if low is None or high is None else f"{low:.2f} to {high:.2f}",
    )
