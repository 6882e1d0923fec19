"""``pythiageo price``: what the study would cost on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption
from pythiageo.errors import UserError


def price(
    sizes: Annotated[str, typer.Option(help="Sizes, separated by commas.")] = "nano,micro,small,medium,large,xlarge",
    steps: Annotated[int, typer.Option(min=1, help="Training steps to time, of each size.")] = 5,
    sample: Annotated[int, typer.Option(min=10, help="Examples of each probe set to time measures on.")] = 20,
    dear: Annotated[bool, typer.Option("--dear", help="Time gradient ranks, Hessian and LLC too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Time training steps and measures of the study's sizes here, and say what the whole study would take."""
    from pythiageo.runs.pricing import SEEDS
    from pythiageo.runs.pricing import price as time_size
    from pythiageo.synthetic.sizes import get_size

    names = [name.strip() for name in sizes.split(",")]
    if len(set(names)) < len(names):
        raise UserError("--sizes: each size once")
    for name in names:
        get_size(name)
    prices = []
    for name in names:
        typer.echo(f"{name} ...", err=True)
        prices.append(time_size(name, steps, sample, dear))
    total = SEEDS * sum(one.hours for one in prices)
    if as_json:
        found = [{**vars(one), "hours": one.hours} for one in prices]
        display.print_json({"sizes": found, "seeds": SEEDS, "total_hours": total, "dear_measures": dear})
        return
    header = ("size", "ms a step", "s a checkpoint", "s, dear measures", "steps", "checkpoints", "training h",
              "cheap h", "dear h", "a seed h")  # fmt: skip
    rows = [
        (one.size, f"{1000 * one.step:.1f}", f"{one.cheap:.1f}", "-" if one.dear is None else f"{one.dear:.1f}",
         one.steps, one.checkpoints, *(f"{part:.2f}" for part in one.parts), f"{one.hours:.2f}")
        for one in prices
    ]  # fmt: skip
    display.print_table("the study on this machine", header, rows)
    left_out = "" if dear else ", gradient ranks, Hessian and LLC left out (--dear)"
    typer.echo(f"{len(prices)} sizes x {SEEDS} seeds: {total:,.1f} hours of this machine{left_out}")
