"""``pythiageo show``: a quick look at a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption, RunArgument, by_commas, named
from pythiageo.cli.working import working
from pythiageo.errors import UserError, count_noun

if TYPE_CHECKING:
    from pythiageo.figures.overview import Overview

CURVE = 16
"""Characters of a curve."""
_MOST_STEPS = 12


def show(
    run: RunArgument,
    measure: Annotated[
        str | None, typer.Option(help="Measures, by commas. Default: one of each kind that the run has.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Tasks, by commas. Default: the first twelve.")] = None,
    readout: Annotated[str | None, typer.Option(help="Readout. Default: answer/centred.")] = None,
    site: Annotated[str | None, typer.Option(help="residual, last-block, final-ln, or a hook's name.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a run's main numbers by step, here in the terminal.

    Example: pythiageo show nano-s42 --measure rankme --task ADD,MOD
    """
    from pythiageo.events import Run, open_run
    from pythiageo.figures.overview import look_over, main_measures
    from pythiageo.runs.listing import summarise

    opened, summary = Run(open_run(run).path, bounded=True), summarise(run)
    if not as_json:  # at once: a large table takes its second
        _print_head(summary)
    tables: list[Overview] = []
    notes: list[str] = []
    asked = by_commas(measure)
    with working("reading the table"):
        for name in asked or main_measures(opened):
            try:
                tables += look_over(opened, [name], by_commas(task), by_commas(readout), site)
            except UserError as error:
                if asked:
                    raise
                notes.append(f"{name} is not shown: {error}")
    if as_json:
        display.print_json({**summary, "tables": [_as_json(table) for table in tables], "notes": notes})
        return
    for table in tables:
        _print(table)
    others = sorted(set(opened.observations["measure"]) - {table.measure for table in tables})
    for line in [*notes, *summary["remarks"], *([f"measured too (--measure): {', '.join(others)}"] if others else [])]:
        display.say_wrapped(line)
    shown = next((table.measure for table in tables), None)
    display.say_next(*([f"plot {named([run])} --measure {shown}"] if shown else []), f"report {named([run])}")


def _print_head(summary: dict[str, Any]) -> None:
    said = [summary["kind"], summary["regime"], summary["size"], summary["status"]]
    display.say(f"{summary['name']}: {', '.join(str(word) for word in said if word)}")
    last = "" if summary["last_step"] is None else f", the last at step {summary['last_step']:,}"
    counts = display.count_observations(summary["observations"], summary["not_ok"])
    display.say_wrapped(f"{count_noun(summary['checkpoints'], 'checkpoint')}{last}; {counts}")
    display.say()


def _print(table: Overview) -> None:
    from pythiageo.figures.overview import columns_of

    made = [_cells(table, columns_of(table, count)) for count in range(_MOST_STEPS, 1, -1)]
    fitting = [each for each in made if display.width_beside(*each) <= display.width()]
    display.print_table(f"{table.title}, by step", *(fitting or made[-1:])[0])
    for line in table.said:
        display.say_wrapped(line)
    if table.said:
        display.say()


def _cells(table: Overview, steps: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of a table with these steps as columns."""
    from pythiageo.figures.overview import columns_of, draw_curve

    curve = columns_of(table, CURVE)
    scale = "" if table.ends is None else f" ({table.ends[0]:g} to {table.ends[1]:g})"
    chance = any(row.chance is not None for row in table.rows)
    rows = [
        [row.name, draw_curve(row.values, curve, table.ends), *(_number(row.values.get(step)) for step in steps)]
        + [_number(row.chance)] * chance
        for row in table.rows
    ]
    return [table.head, f"curve{scale}", *(f"{step:,}" for step in steps), *["chance"] * chance], rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _as_json(table: Overview) -> dict[str, Any]:
    return {
        "measure": table.measure,
        "title": table.title,
        "rows": [
            {
                table.head: row.name,
                "chance": row.chance,
                "values": [{"step": s, "value": v} for s, v in row.values.items()],
            }
            for row in table.rows
        ],
        "said": list(table.said),
    }
