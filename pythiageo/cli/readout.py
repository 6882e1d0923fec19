"""``pythiageo readout``: which readout fits published floors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption, RunsArgument, named
from pythiageo.errors import count_noun
from pythiageo.locations import check_folder

SHOWN = 12


def readout(
    runs: RunsArgument,
    validate: Annotated[
        list[Path] | None, typer.Option("--validate", help="A run to try the choice on, untouched (may be repeated).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Choose the readout whose collapse floors come nearest the study's, on runs of one size and several seeds.

    Example: pythiageo readout nano-s42 nano-s123 --validate micro-s42
    """
    from pythiageo.compare.readout import CHOSEN_ON, choose_readout, write_choice
    from pythiageo.events import Run

    if out is not None:
        check_folder(out)
    choice = choose_readout(*([Run(path, bounded=True) for path in paths] for paths in (runs, validate or [])))
    paths = write_choice(choice, out) if out is not None else []
    if as_json:
        display.print_json(
            {
                "verdict": choice.verdict,
                "determined": choice.determined,
                "best": choice.best,
                "last_step": choice.last_step,
                "candidates": choice.candidates.to_dicts(),
                "floors": choice.floors.to_dicts(),
                "profile": choice.profile.to_dicts(),
                "files": [str(path) for path in paths],
            }
        )
        return
    shown = ("measure", "spectrum", "readout", "place", "log_rmse", "lowest", "highest", "at_edge")
    tasks = " and ".join(CHOSEN_ON)
    of = f"log-RMSE, {count_noun(len(runs), 'run')}"
    title = f"distance from the published floors of {tasks} to step {choice.last_step:,} ({of})"
    display.print_table(title, shown, choice.candidates.head(SHOWN).select(shown).rows())
    columns = ("use", "run", "task", "step", "value", "status", "published")
    display.print_table("floors of the best", columns, choice.floors.select(columns).rows())
    if choice.profile.height:
        display.print_table("its layers at the floor of MOD", choice.profile.columns, choice.profile.rows())
    display.say(choice.verdict)
    for path in paths:
        display.say(f"written: {path}")
    display.say_next(f"published {named(runs)}")
