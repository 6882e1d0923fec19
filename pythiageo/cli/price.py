"""``pythiageo price``: what the study would cost on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption
from pythiageo.errors import UserError, count_noun


def price(
    size: Annotated[str, typer.Option(help="Sizes, separated by commas.")] = "nano,micro,small,medium,large,xlarge",
    steps: Annotated[int, typer.Option(min=1, help="Training steps to time, of each size.")] = 5,
    sample: Annotated[int, typer.Option(min=10, help="Examples of each probe set to time measures on.")] = 20,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, or auto.")] = "auto",
    dtype: Annotated[
        str, typer.Option(metavar="float32|bfloat16", help="Of a training step's matrix products.")
    ] = "float32",
    cuda_graphs: Annotated[
        bool | None, typer.Option(help="Record a step once and replay it; default: on a GPU.", show_default=False)
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Threads to try, as 1,2,4; default: what train takes.", show_default=False)
    ] = None,
    expensive: Annotated[bool, typer.Option("--expensive", help="Time gradient ranks, Hessian and LLC too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Time training steps and measures of the study's sizes here, and say what the whole study would take.

    Example: pythiageo price --size nano,micro --threads 1,2
    """
    from pythiageo.config.options import overrides
    from pythiageo.estimate.study_cost import find_cheapest, time_size
    from pythiageo.study.sizes import SEEDS, get_size

    names = [name.strip() for name in size.split(",")]
    if len(set(names)) < len(names):
        raise UserError("--size: each size once")
    for name in names:
        get_size(name)
    settings: dict[str, object] = {"compute.device": device, "training.dtype": dtype}
    if cuda_graphs is not None:
        settings["training.cuda_graphs"] = cuda_graphs
    prices = []
    for name in names:
        for count in _counts(threads):
            display.say(f"{name}{'' if count is None else f', {count} threads'} ...", err=True)
            own = {} if count is None else {"compute.threads": count}
            prices.append(time_size(overrides({"model.size": name, **settings, **own}), steps, sample, expensive))
    best = find_cheapest(prices)
    seeds = len(SEEDS)
    total = seeds * sum(one.hours for one in best)
    if as_json:
        found = [{**vars(one), "hours": one.hours} for one in prices]
        display.print_json({"sizes": found, "seeds": seeds, "total_hours": total, "expensive_measures": expensive})
        return
    header = ("size", "threads", "ms a step", "s a checkpoint", "s, expensive measures", "steps", "checkpoints",
              "training h", "cheap h", "expensive h", "a seed h")  # fmt: skip
    rows = [
        (one.size, one.threads, f"{1000 * one.step:.1f}", f"{one.cheap:.1f}",
         "-" if one.expensive is None else f"{one.expensive:.1f}", one.steps, one.checkpoints,
         *(f"{part:.2f}" for part in one.parts), f"{one.hours:.2f}")
        for one in prices
    ]  # fmt: skip
    display.print_table(f"the study on this machine, {prices[0].device}, {dtype}", header, rows)
    left_out = "" if expensive else ", gradient ranks, Hessian and LLC left out (--expensive)"
    chosen = ", each with the threads that suit it best" if len(prices) > len(best) else ""
    runs = f"{count_noun(len(best), 'size')} x {count_noun(seeds, 'seed')}"
    display.say(f"{runs}: {total:,.1f} hours of this machine{chosen}{left_out}")
    display.say_next(f"train --protocol billa-v4 --size {names[0]} --dry-run")


def _counts(threads: str | None) -> list[int | None]:
    """Return the numbers of threads to try.

    Raises:
        UserError: not numbers of threads.
    """
    if threads is None:
        return [None]
    counts = [int(part) if part.strip().isdecimal() else 0 for part in threads.split(",")]
    if min(counts) < 1 or len(set(counts)) < len(counts):
        raise UserError(f"--threads: expected different numbers from 1 on, such as 1,2,4, got {threads!r}")
    return list(counts)
