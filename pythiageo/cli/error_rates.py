"""``pythiageo error-rates``: how often each claim is supported in noise, and where it is known to hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption
from pythiageo.locations import check_file


def error_rates(
    tables: Annotated[int, typer.Option(min=1, help="Tables of each kind of noise and number of runs.")] = 10,
    only: Annotated[str | None, typer.Option(help="Claims, separated by commas. Default: all.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Protocols, separated by commas. Default: all.")] = None,
    resamples: Annotated[int, typer.Option(min=99, help="Draws of each bootstrap and permutation.")] = 199,
    curves: Annotated[int, typer.Option(min=0, help="Tables of which a specification curve is made as well.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the tables.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Markdown file for the page.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask every claim of noise, in which it is false, and of planted truth: how often is it supported?

    Random walks, mean-reverting noise, jumps, a common trend, and noise that comes back alike in every run; one to
    three seeds of one to three sizes.

    Example: pythiageo error-rates --only emergence --tables 5
    """
    from pythiageo.claims.error_rates import Plan, curve_rates, error_rates
    from pythiageo.claims.rates_page import false_rates, powers, write_page

    if out is not None:
        check_file(out)
    families, protocols = (
        tuple(name.strip() for name in words.split(",")) if words else None for words in (only, protocol)
    )
    asked: dict[str, Any] = {"tables": tables, "families": families, "resamples": resamples, "seed": seed}
    plan = Plan(**asked | ({"protocols": protocols} if protocols else {}))
    progress = None if as_json else lambda word: display.say(word, err=True)
    counts = error_rates(plan, progress)
    of_curves = curve_rates(plan, curves, progress) if curves else None
    if out is not None:
        write_page(plan, counts, of_curves, curves, out)
    if as_json:
        display.print_json({"counts": counts.to_dicts(), "curves": None if of_curves is None else of_curves.to_dicts()})
        return
    for title, (head, rows) in (
        ("supported or contradicted in noise", false_rates(counts)),
        ("supported where it holds", powers(counts)),
    ):
        display.print_table(title, head, rows)
    if out is not None:
        display.say(f"wrote {out}")
