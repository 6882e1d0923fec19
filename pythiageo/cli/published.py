"""``pythiageo published``: a run's events beside the study's."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated, Any

import typer

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption, MeasureOption, ReadoutOption, RunsArgument, SiteOption, named
from pythiageo.locations import check_file, make_folder
from pythiageo.names import COVARIANCE_RANK


def published(
    runs: RunsArgument,
    protocol: Annotated[str, typer.Option(help="billa-v1 or billa-v4.")] = "billa-v4",
    measure: MeasureOption = None,
    readout: ReadoutOption = None,
    site: SiteOption = None,
    out: Annotated[Path | None, typer.Option(help="A CSV file to write.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Put acquisition steps and floors beside the published ones, with their ratio.

    Example: pythiageo published nano-s42 --site final-ln
    """
    import polars as pl

    from pythiageo.compare import beside_published
    from pythiageo.events import open_run
    from pythiageo.events.run import common_place
    from pythiageo.observations import write_table

    if out is not None:
        check_file(out)
    tables = []
    opened_runs = [open_run(run) for run in runs]
    place = common_place(opened_runs, measure, readout, site)
    for opened in opened_runs:
        events = opened.events(protocol, place.readout, place.measure, place.site)
        tables += [beside_published(events, size) for size in opened.observations["size"].unique().sort().to_list()]
    beside = pl.concat(tables)
    if out is not None:
        make_folder(out.parent)
        write_table(beside, out, "csv")
    if as_json:
        display.print_json(beside.to_dicts())
        return
    header = ("run", "event", "task", "level", "ours", "published", "ratio")
    rows = [
        (row["run"], row["event"], row["task"], row["level"], _shown(row, "ours", "our_status"),
         _shown(row, "published", "published_status"), None if row["ratio"] is None else f"{row['ratio']:.2f}")
        for row in beside.iter_rows(named=True)
    ]  # fmt: skip
    display.print_table(f"beside the study ({protocol}; floors: {place})", header, rows)
    for (run, event), part in beside.drop_nulls("ratio").group_by("run", "event", maintain_order=True):
        low, middle, high = _quartiles(part["ratio"].to_list())
        edge = part.filter(our_status="at-edge").height
        display.say(
            f"{run}, {event}: median ratio {middle:.2f}, quartiles {low:.2f} to {high:.2f}, over {part.height} of "
            f"{beside.filter(run=run, event=event).height} that both found"
            + (f", {edge} of them at the edge of the window" if edge else "")
        )
    if place.measure != COVARIANCE_RANK and "floor" in beside["event"]:
        display.say(
            f"the published floors fit {COVARIANCE_RANK}; {place.measure} is another number (docs/reference.md)"
        )
    for event, source in beside.select("event", "source").drop_nulls().unique(maintain_order=True).iter_rows():
        display.say(f"published {event}: {source}")
    display.say_next(f"claims {named(runs)}")


def _shown(row: dict[str, Any], value: str, status: str) -> str:
    if row[value] is None:
        return str(row[status])
    shown = f"{row[value]:.4g}" if row["event"] == "floor" else f"{row[value]:,.0f}"
    return shown if row[status] == "found" else f"{shown} ({row[status]})"


def _quartiles(ratios: list[float]) -> tuple[float, float, float]:
    if len(ratios) == 1:
        return ratios[0], ratios[0], ratios[0]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return low, middle, high
