"""``pythiageo similarity``: how alike states of two checkpoints, layers, seeds or models are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption, OtherRunArgument, RunArgument, by_commas
from pythiageo.errors import EXIT_LOOK, EXIT_OK, UserError, count_noun, nearest
from pythiageo.locations import check_folder, make_folder

if TYPE_CHECKING:
    import polars as pl

SHOWN = 40
_FORMATS = ("csv", "parquet", "json", "md")


def similarity(
    run: RunArgument,
    other: OtherRunArgument = None,
    measures: Annotated[
        str, typer.Option("--measure", help="linear_cka, procrustes, subspace_angle, subspace_overlap; by commas.")
    ] = "linear_cka,procrustes,subspace_angle",
    between: Annotated[
        str | None, typer.Option(help="steps, layers, runs or all. Default: runs for two, steps for one.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks, separated by commas. Default: all.")] = None,
    positions: Annotated[str | None, typer.Option(help="Positions, separated by commas. Default: all kept.")] = None,
    steps: Annotated[str, typer.Option(help="As for analyze: 0,512,1000-5000, log:6, all.")] = "log:12",
    sites: Annotated[str | None, typer.Option(help="Hooks by name or pattern, by commas. Default: all.")] = None,
    other_steps: Annotated[str | None, typer.Option(help="Steps of the other side. Default: the same.")] = None,
    other_sites: Annotated[str | None, typer.Option(help="Sites of the other side. Default: the same.")] = None,
    dimensions: Annotated[int, typer.Option(help="Principal components that a subspace is of.")] = 10,
    out: Annotated[Path | None, typer.Option(help="File for the table: .csv, .parquet, .json or .md.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Compare states by their kept sketches, without any checkpoint: CKA, Procrustes distance, angles of subspaces.

    Exit code 1 when a pair has no value.

    Example: pythiageo similarity nano-s42 nano-s7 --measure linear_cka --steps 0,1000
    """
    form = None if out is None else _format_of(out)
    from pythiageo.derive.similarity import compare_states

    found = compare_states(
        run,
        other,
        by_commas(measures) or [],
        between=between,
        tasks=by_commas(tasks) or (),
        positions=by_commas(positions) or (),
        steps=steps,
        sites=by_commas(sites) or (),
        other_steps=other_steps,
        other_sites=by_commas(other_sites) or (),
        dimensions=dimensions,
    )
    lost = found.filter(found["status"] != "ok")
    if out is not None and form is not None:
        from pythiageo.observations import write_table

        make_folder(out.parent)
        write_table(found, out, form)
    if as_json:
        display.print_json({"rows": found.to_dicts(), "file": None if out is None else str(out)})
    else:
        _show(found, out)
        if lost.height:
            display.say(
                f"{lost.height:,} of {count_noun(found.height, 'row')} have no value, the first: {lost['reason'][0]}"
            )
    return EXIT_LOOK if lost.height else EXIT_OK


def _show(found: pl.DataFrame, out: Path | None) -> None:
    from pythiageo.observations.export import drop_constants

    wanted = found.drop("status", "reason", "layer_a", "layer_b")
    shown, same = drop_constants(wanted.head(SHOWN))
    shown = shown.select([name for name in shown.columns if name != "value"] + ["value"])
    display.print_table("similarity of states", shown.columns, shown.rows())
    if same:
        display.say(same)
    if out is not None:
        display.say(f"{out}: {count_noun(found.height, 'row')}")
    elif found.height > SHOWN:
        display.say(f"{SHOWN} of {count_noun(found.height, 'row')} are shown: --out FILE.csv writes all")


def _format_of(out: Path) -> str:
    """Return the format that a file's name says. Raises ``UserError``."""
    check_folder(out.parent)
    form = out.suffix.removeprefix(".")
    if form not in _FORMATS:
        raise UserError(
            f"--out {out}: expected a file that ends in {', '.join(f'.{one}' for one in _FORMATS)}"
            f"{nearest(form, _FORMATS)}"
        )
    return form
