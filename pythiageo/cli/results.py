"""``pythiageo compare``, ``figures`` and ``report``: from finished observations to tables and a page."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pythiageo.cli import display
from pythiageo.cli.working import working
from pythiageo.locations import OUTPUTS, check_folder, find_run

if TYPE_CHECKING:
    import polars as pl

_FEW = 4
"""Runs that a command worth typing next still names."""


def _names_of_runs(incomplete: str) -> list[str]:
    """Return what a shell completes a run's name to."""
    return sorted(path.name for path in OUTPUTS.glob("*") if path.is_dir() and path.name.startswith(incomplete))


RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="Run folder, or its name in outputs/.", callback=find_run, autocompletion=_names_of_runs
    ),
]
OtherRunArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="RUN",
        help="Run folder, or its name in outputs/.",
        callback=lambda run: run and find_run(run),
        autocompletion=_names_of_runs,
    ),
]
"""One that may be left out."""
RunsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...",
        help="Run folders, or their names in outputs/.",
        callback=lambda runs: list(map(find_run, runs)),
        autocompletion=_names_of_runs,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
MeasureOption = Annotated[
    str | None, typer.Option(help="Rank of the floors. Default: whichever there is, covariance_effective_rank first.")
]
ReadoutOption = Annotated[
    str | None, typer.Option(help="Readout of the floors. Default: answer/centred, or whichever there is.")
]
SiteOption = Annotated[
    str | None, typer.Option(help="last-block, final-ln or a hook name. Default: last-block, or whichever there is.")
]
OpenOption = Annotated[bool, typer.Option("--open", help="Open the page in a browser when it is written.")]


def report(
    runs: RunsArgument,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("outputs/report.html"),
    measures: Annotated[str | None, typer.Option(help="Measures with curves, by commas. Default: all.")] = None,
    readouts: Annotated[str | None, typer.Option(help="Readouts with curves, by commas. Default: all.")] = None,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Ask every claim under every definition, and draw the curves: minutes.")
    ] = False,
    show_page: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write one self-contained HTML page about the runs, side by side.

    Example: pythiageo report demo-tasks demo-english --out outputs/twins.html --open
    """
    with working("reading the runs and writing the page"):
        from pythiageo.report import build_report

        told = partial(_said, quiet=as_json)
        path = build_report(runs, out, by_commas(measures), by_commas(readouts), everywhere, told)
    if as_json:
        display.print_json({"report": str(path)})
    else:
        display.say(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens in any browser without a network")
        drawn = [f"plot {named(runs)} --measure {rank} --by layer"] if (rank := _find_rank(runs)) else []
        display.say_next(f"claims {named(runs)}", *drawn)
    if show_page:
        display.open_page(path)


def _find_rank(runs: Sequence[Path]) -> str | None:
    """Return the rank that a report of these runs shows the floors of, ``None`` where no run has one."""
    from pythiageo.events import choose_place, open_runs

    tables = [run.observations for run in open_runs(runs)]
    rank = choose_place(tables).measure
    return rank if any(rank in table["measure"] for table in tables) else None


def named(runs: Iterable[Path | str]) -> str:
    """Return runs as they are typed in a command; of more than a few, what help calls them, as they were just typed."""
    typed = [str(run) for run in runs]
    return shlex.join(typed) if len(typed) <= _FEW else "RUN..."


def _said(name: str, count: int, quiet: bool) -> None:
    if not quiet:
        display.say(f"asking {name} under {count:,} definitions", err=True)


def figures(
    runs: RunsArgument,
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("outputs/figures"),
    formats: Annotated[str, typer.Option("--format", help="png, svg, pdf; several by commas.")] = "png,svg,pdf",
    as_json: JsonOption = False,
) -> None:
    """Write the figures and tables of arXiv 2602.15997 that these runs have, each with what it lacks.

    Example: pythiageo figures demo-tasks demo-english --format pdf
    """
    with working("drawing"):
        from pythiageo.figures.write import write_paper

        written = write_paper(runs, out, by_commas(formats) or [])
    if as_json:
        display.print_json(
            [
                {"title": each.title, "files": [str(path) for path in each.files], "lacks": each.lacks}
                for each in written
            ]
        )
        return
    rows = [(each.title, ", ".join(path.name for path in each.files)) for each in written if each.files]
    display.print_table(f"figures and tables in {out}/", ("for these runs", "files"), rows)
    for each in written:
        if each.files and each.lacks:
            display.say(f"{each.title}: lacks {'; '.join(each.lacks)}")
    for each in written:
        if not each.files:
            display.say(f"{each.title}: left out, {'; '.join(each.lacks)}")
    display.say_next(f"claims {named(runs)}")


def by_commas(text: str | None) -> list[str] | None:
    """Return the names that an option gives by commas, ``None`` where it was left out."""
    return None if text is None else [name.strip() for name in text.split(",")]


def compare(
    runs: RunsArgument,
    protocol: Annotated[str, typer.Option(help="Definitions of the events shown: billa-v1, billa-v4, pythiageo.")] = (
        "billa-v4"
    ),
    align: Annotated[
        str, typer.Option(help="What checkpoints are paired by: steps, tokens, or fraction of the planned training.")
    ] = "steps",
    measure: MeasureOption = None,
    readout: ReadoutOption = None,
    site: SiteOption = None,
    out: Annotated[Path, typer.Option(help="Folder for the tables.")] = Path("outputs/comparison"),
    as_json: JsonOption = False,
) -> None:
    """Put runs side by side: events under each protocol, and the observations that both have.

    Example: pythiageo compare demo-tasks demo-english --align tokens
    """
    import polars as pl

    from pythiageo.compare import compare as compare_runs
    from pythiageo.compare import write_comparison
    from pythiageo.compare.alignment import check_align
    from pythiageo.compare.claims import side_by_side
    from pythiageo.events import Run, get_protocol

    chosen = get_protocol(protocol)
    check_folder(out)
    pairing = check_align(align)
    with working("comparing"):
        opened = [Run(run, bounded=True) for run in runs]
        comparison = compare_runs(opened, measure=measure, readout=readout, site=site, align=pairing)
        paths = write_comparison(comparison, out)
    if as_json:
        place = asdict(comparison.place)
        display.print_json({"files": [str(path) for path in paths], "warnings": comparison.warnings, "floors": place})
        return
    names = comparison.events["run"].unique(maintain_order=True).to_list()
    for event, title, column in (
        ("acquisition", f"acquisition step ({chosen.name}: {chosen.rule})", "step"),
        ("floor", f"collapse floor: {comparison.place} ({chosen.name})", "value"),
    ):
        rows, notes = _side_by_side(comparison.events, chosen.name, event, column)
        display.print_table(title, ("task", "level", *names), [[*key, *map(cells.get, names)] for key, cells in rows])
        for note in notes:
            display.say(f"* {note}")
    _show_doses(comparison.dose.filter(pl.col("protocol") == chosen.name))
    shown, claims = side_by_side(comparison.claims)
    display.print_table("each claim asked of each run (billa-v4)", ("claim", *shown), claims)
    for warning in comparison.warnings:
        display.say(f"note: {warning}")
    display.say(f"{comparison.aligned.height:,} observations stand side by side in {out}/")
    display.say_next(f"report {named(runs)}")


def _show_doses(dose: pl.DataFrame) -> None:
    """Print from which share of task examples on each task is acquired, where three shares or more were trained on."""
    import polars as pl

    if not dose.height:
        return
    doses = dose["dose"].unique().sort().to_list()
    rows = []
    for group in dose.filter(pl.col("event") == "acquisition").partition_by(["task", "level"], maintain_order=True):
        steps = {
            share: ", ".join(
                row["status"] if row["step"] is None else f"{row['step']:,}"
                for row in group.filter(pl.col("dose") == share).rows(named=True)
            )
            for share in doses
        }
        rows.append([group["task"][0], group["level"][0], *(steps[share] for share in doses), group["appears_from"][0]])
    header = ("task", "level", *(f"{share:g}" for share in doses), "from")
    display.print_table("acquisition step by share of task examples in the data", header, rows)


def _side_by_side(
    events: pl.DataFrame, protocol: str, event: str, column: str
) -> tuple[list[tuple[tuple[str, str], dict[str, str]]], list[str]]:
    """Return each task and level with each run's step or value (its status where it has none), and the notes.

    A value that a reader should know something of before quoting it has a star; the notes say what.
    """
    import polars as pl

    chosen = events.filter((pl.col("protocol") == protocol) & (pl.col("event") == event))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    notes: dict[str, None] = {}
    for row in chosen.iter_rows(named=True):
        shown = row["status"]
        if row[column] is not None:
            number = f"{row[column]:,}" if column == "step" else f"{row[column]:.4g}"
            edge = "" if shown == "found" else f" ({shown})"
            shown = number + edge + ("*" if row["reason"] else "")
            if row["reason"]:
                notes[f"{row['run']}, {row['task']}: {row['reason']}"] = None
        cells.setdefault((row["task"], row["level"]), {})[row["run"]] = shown
    return sorted(cells.items()), list(notes)
