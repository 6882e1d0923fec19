"""``pythiageo export``: a run's observations as tables for other programs and for papers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption, RunArgument, by_commas, named
from pythiageo.errors import UserError, count_noun, nearest
from pythiageo.locations import check_folder, make_folder
from pythiageo.untrusted_files import check_own

if TYPE_CHECKING:
    import polars as pl


def export(
    run: RunArgument,
    wide: Annotated[bool, typer.Option("--wide/--long", help="A column a layer, or one row an observation.")] = True,
    formats: Annotated[str, typer.Option("--format", help="csv, parquet, md, latex, json; several by commas.")] = "csv",
    measures: Annotated[str | None, typer.Option(help="Measures, separated by commas. Default: all.")] = None,
    readouts: Annotated[str | None, typer.Option(help="Readouts, separated by commas. Default: all.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks, separated by commas. Default: all.")] = None,
    steps: Annotated[str | None, typer.Option(help="As for analyze: 0,512,1000-5000, log:6, all.")] = None,
    layers: Annotated[str | None, typer.Option(help="all, or e.g. 0,3-5,last,final-ln.")] = None,
    digits: Annotated[int, typer.Option(min=1, max=17, help="Significant digits in md and latex.")] = 6,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables; default RUN/tables.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write per-layer tables. Markdown and LaTeX leave out columns that say the same in every row, and name them.

    Example: pythiageo export outputs/demo-tasks --measures rankme --tasks ADD --steps log:6 --digits 3 --format latex
    """
    from pythiageo.observations.export import FORMATS, drop_constants
    from pythiageo.observations.export import wide as per_layer

    chosen = [name.strip() for name in formats.split(",")]
    for name in chosen:
        if name not in FORMATS:
            raise UserError(f"--format: no format {name!r}{nearest(name, FORMATS)}; there are {', '.join(FORMATS)}")
    folder = out if out is not None else run / "tables"
    check_folder(folder)
    table = _choose(run, {"measure": measures, "readout": readouts, "task": tasks}, steps, layers)
    if wide:
        table = per_layer(table)
    if wide and layers is not None:
        table = table.drop(name for name in table.columns if name.startswith("layer_") and table[name].is_null().all())
    if out is None:  # in somebody else's run folder the name may lead elsewhere
        check_own(run, set(), {"tables"})
    make_folder(folder)
    stem = "per_layer" if wide else "observations"
    for_people, same = drop_constants(table)
    paths = [_write(table, for_people, same, folder / stem, name, digits, run) for name in chosen]
    if as_json:
        display.print_json({"rows": table.height, "files": [str(path) for path in paths], "left_out": same})
        return
    for path in paths:
        display.say(f"{path}: {count_noun(table.height, 'row')}")
    if same and {"md", "latex"} & set(chosen):
        display.say(f"left out of md and latex, {same}")
    display.say_next(f"plot {named([run])} --measure {table['measure'][0]}")


def _choose(run: Path, named: Mapping[str, str | None], steps: str | None, layers: str | None) -> pl.DataFrame:
    """Return the run's observations that are asked for.

    Raises:
        UserError: a name, step or layer that the run has not.
    """
    import polars as pl

    from pythiageo.observations import read_observations
    from pythiageo.observations.export import place_rows
    from pythiageo.observations.layers import keep_layers
    from pythiageo.series.steps import select

    table = read_observations(run)
    for column, text in named.items():
        names = by_commas(text)
        if names is None:
            continue
        known = table[column].drop_nulls().unique().sort().to_list()
        for name in names:
            if name not in known:
                raise UserError(
                    f"{run}: no {column} {name!r}{nearest(name, known)}; it has {', '.join(known) or 'none'}"
                )
        table = table.filter(pl.col(column).is_in(names))
    if steps is not None:
        table = table.filter(pl.col("step").is_in(select(steps, table["step"].unique().to_list())))
    if layers is None:
        return table
    placed = place_rows(table).with_columns(table["readout"])
    return keep_layers(placed, layers).select(table.columns)


def _write(
    table: pl.DataFrame, for_people: pl.DataFrame, same: str, stem: Path, name: str, digits: int, run: Path
) -> Path:
    import polars as pl

    from pythiageo.observations.export import Typeset, write_table
    from pythiageo.observations.measures import axis_title

    path = stem.with_name(f"{stem.name}.{'tex' if name == 'latex' else name}")
    if name not in ("md", "latex"):
        return write_table(table, path, name)
    titles = {measure: axis_title(measure) for measure in table["measure"].unique()}
    caption = f"{', '.join(sorted(titles.values()))}." + (f" {same[:1].upper()}{same[1:]}." if same else "")
    shown = for_people.with_columns(pl.col("measure").replace(titles))
    shown = shown.drop("measure") if len(titles) == 1 else shown
    return write_table(shown, path, name, Typeset(digits, caption, f"tab:{run.resolve().name}-{stem.name}"))
