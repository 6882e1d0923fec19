"""``pythiageo import``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption, named
from pythiageo.errors import EXIT_OK, EXIT_USER, UserError, count_noun
from pythiageo.locations import check_folder


def import_results(
    source: Annotated[
        Path, typer.Argument(help="A table (.csv, .parquet), the harness's .json file or folder, or a package's own.")
    ],
    out: Annotated[Path | None, typer.Option(help="The run folder to write; there must be none.")] = None,
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
    propose: Annotated[
        bool, typer.Option("--propose", help="Print a map that a table's columns suggest; save and correct it.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Turn other people's results into a run that report, compare, export and claims read.

    A table without --map is not read: a map is proposed (exit code 2; 0 with --propose).

    Example: pythiageo import results.csv --map results.toml --out outputs/results
    """
    from pythiageo.importers.cells import TABLES
    from pythiageo.importers.mapping import load_mapping
    from pythiageo.importers.results import NobodyReadsError, Request
    from pythiageo.importers.results import import_results as write
    from pythiageo.observations import read_manifest, read_observations

    if mapping is not None and propose:
        raise UserError("--propose makes a map, and --map gives one: leave one of them out")
    unmapped = mapping is None and source.suffix in TABLES and source.is_file()
    if propose or (unmapped and out is None):
        return _propose(source, propose)
    if out is None:
        raise UserError("import writes a run folder: say where with --out, such as --out outputs/NAME")
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
    try:
        path = write(Request(source, known, chosen, step_pattern, name), out)
    except NobodyReadsError:  # a package's own reader may take a table without a map
        if not unmapped:
            raise
        return _propose(source, propose)
    table = read_observations(path)
    for note in read_manifest(path).provenance.notes:
        display.say(f"note: {note}", err=True)
    steps, without_value = table["step"].n_unique(), table.filter(status="undefined").height
    facts = {
        "run": str(path),
        "observations": table.height,
        "steps": steps,
        "without_value": without_value,
    }
    if as_json:
        display.print_json(facts)
    else:
        counts = display.count_observations(table.height, without_value)
        display.say(f"{path}: {count_noun(steps, 'step')}, {counts}")
        display.say_next(f"show {named([path])}", f"report {named([path])}")
    return EXIT_OK


def _propose(source: Path, asked: bool) -> int:
    """Print a map of a table's columns to stdout, and what to do with it to stderr."""
    from pythiageo.importers.propose import propose_map

    proposal = propose_map(source)
    display.say(proposal.text.rstrip())
    if not asked:
        display.say(f"pythiageo: {source}: a table needs --map; the one above is proposed from its columns", err=True)
    saved = source.with_suffix(".toml").name
    typed = shlex.quote(str(source))
    display.say_next(
        f"import {typed} --propose > {shlex.quote(saved)}, look through it, and then",
        f"import {typed} --map {shlex.quote(saved)} --out outputs/{shlex.quote(source.stem)}",
    )
    return EXIT_OK if asked else EXIT_USER
