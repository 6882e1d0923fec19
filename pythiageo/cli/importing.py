"""``pythiageo import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption, named
from pythiageo.errors import UserError
from pythiageo.locations import check_folder


def import_results(
    source: Annotated[
        Path, typer.Argument(help="A table (.csv, .parquet), the harness's .json file or folder, or a package's own.")
    ],
    out: Annotated[Path, typer.Option(help="The run folder to write; there must be none.")],
    mapping: Annotated[
        Path | None, typer.Option("--map", metavar="TOML", help="Which of a table's columns is which of ours.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Rows of a table to keep (may be repeated).")
    ] = None,
    step_pattern: Annotated[
        str | None,
        typer.Option(
            "--step-pattern",
            help="How the folders of local checkpoints in the harness's files are named: (?P<step>...).",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; default that of the series.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Turn other people's results into a run that report, compare, export and claims read.

    Example: pythiageo import results.csv --map results.toml --out outputs/results
    """
    from pythiageo.importers.mapping import load_mapping
    from pythiageo.importers.results import Request
    from pythiageo.importers.results import import_results as write
    from pythiageo.observations import read_manifest, read_observations

    check_folder(out)
    if mapping is None and where:
        raise UserError("--where chooses rows of a table, and needs --map")
    if mapping is not None and step_pattern is not None:
        raise UserError("--step-pattern is for the harness's files: of a table, the mapping names the step's column")
    chosen = {}
    for text in where or []:
        column, equals, value = text.partition("=")
        if not equals or not column:
            raise UserError(f"--where {text}: expected COLUMN=VALUE")
        chosen[column] = value
    known = None if mapping is None else load_mapping(mapping)
    path = write(Request(source, known, chosen, step_pattern, name), out)
    table = read_observations(path)
    for note in read_manifest(path).provenance.notes:
        display.say(f"note: {note}", err=True)
    facts = {
        "run": str(path),
        "observations": table.height,
        "steps": table["step"].n_unique(),
        "without_value": table.filter(status="undefined").height,
    }
    if as_json:
        display.print_json(facts)
    else:
        display.say(
            f"{path}: {facts['observations']:,} observations of {facts['steps']} steps, "
            f"{facts['without_value']:,} of them without a value"
        )
        display.say_next(f"show {named([path])}", f"report {named([path])}")
