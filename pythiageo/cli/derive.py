"""``pythiageo derive``: measures of the spectra that a run keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption, OtherRunArgument, by_commas, named
from pythiageo.errors import UserError, count_noun
from pythiageo.locations import check_folder


def derive(
    run: OtherRunArgument = None,
    measures: Annotated[
        str | None, typer.Option("--measure", help="Measures, separated by commas. Default: list what can be derived.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder to write, with the run's own rows; there must be none.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take measures of a run's kept spectra, without its checkpoints; without --measure, list what can be derived.

    Example: pythiageo derive demo-tasks --measure rankme,stable_rank --out outputs/demo-more
    """
    if measures is None:
        _list(run, as_json)
        return
    if run is None:
        raise UserError("derive: expected a run folder that keeps spectra")
    import polars as pl

    from pythiageo.derive.spectra import derive_measures, write_derived

    if out is not None:
        check_folder(out)
    derived = derive_measures(run, by_commas(measures) or [])
    new = write_derived(run, derived, out) if out is not None else None
    if as_json:
        display.print_json({"rows": derived.to_dicts(), "new": new, "run": None if out is None else str(out)})
        return
    ok = pl.col("status") == "ok"
    counts = derived.group_by("measure", maintain_order=True).agg(
        pl.len().alias("rows"),
        (~ok).sum().alias("without value"),
        pl.col("reason").filter(~ok).first().alias("the first reason"),
    )
    display.print_table(f"derived of the spectra of {run}", counts.columns, counts.rows())
    if out is None:
        shown = derived.filter(pl.col("step") == derived["step"].max()).select(
            "step", "task", "layer", "site", "readout", "measure", "value", "n", "status"
        )
        display.print_table("the last step; --out writes all as a run", shown.columns, shown.rows())
    else:
        display.say(f"{out}: {new:,} new observations, beside the run's own")
        display.say_next(f"show {named([out])}", f"report {named([out])}")


def _list(run: Path | None, as_json: bool) -> None:
    from pythiageo.derive.kept_rows import count_kept
    from pythiageo.derive.similarities import SIMILARITIES
    from pythiageo.derive.spectra import find_derivable

    kept = None if run is None else count_kept(run)
    measures, similar = find_derivable(), list(SIMILARITIES.values())
    if as_json:
        of_states = [{"name": one.name, "definition": one.definition, "source": one.source} for one in similar]
        display.print_json({"measures": [one._asdict() for one in measures], "similarity": of_states, "kept": kept})
        return
    rows = [(one.name, "yes" if one.derivable else f"no: {one.why}", one.formula) for one in measures]
    display.print_table("of kept spectra (analyze or train with --spectra)", ("measure", "derivable", "formula"), rows)
    display.print_table(
        "of kept sketches (--sketch 200), by pythiageo similarity RUN [RUN]",
        ("similarity", "definition", "source"),
        [(one.name, one.definition, one.source) for one in similar],
    )
    if kept is not None:
        display.say(
            f"{run} keeps "
            + " and ".join(f"{kind} of {count_noun(count, 'checkpoint')}" for kind, count in kept.items())
        )
