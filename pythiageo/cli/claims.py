"""``pythiageo claims``: what the runs say about each claim, with its interval, its null and a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption, RunsArgument, SiteOption, named
from pythiageo.cli.working import working
from pythiageo.errors import UserError
from pythiageo.locations import check_folder, make_folder

if TYPE_CHECKING:
    import polars as pl

    from pythiageo.claims import ClaimResult, Specification
    from pythiageo.events import Run

SHOWN = ("claim", "estimate", "95% interval", "null", "p", "verdict", "n", "why")


def claims(
    runs: RunsArgument,
    protocol: Annotated[str, typer.Option(help="Definitions of events: billa-v1, billa-v4, pythiageo.")] = "billa-v4",
    measure: Annotated[
        str | None,
        typer.Option(help="The measure claimed to lead, to predict, to fall. Default: whichever rank there is."),
    ] = None,
    readout: Annotated[
        str | None,
        typer.Option(help="Readout of the measure. Default: answer/centred, at equal rows if the runs have them."),
    ] = None,
    site: SiteOption = None,
    rule: Annotated[str, typer.Option(help="When a measure leads: v1, v4, ours.")] = "ours",
    k: Annotated[int, typer.Option("-k", min=0, help="Checkpoints within which events are synchronous (ours).")] = 1,
    ties: Annotated[str, typer.Option(help="A tied pair counts as: error, half, dropped.")] = "dropped",
    event: Annotated[str, typer.Option(help="acquisition, log_prob_acquisition, log_prob_acquisition_25 ...")] = (
        "acquisition"
    ),
    only: Annotated[str | None, typer.Option(help="Claims, separated by commas. Default: all.")] = None,
    trained: Annotated[
        str | None, typer.Option(help="Tasks trained on, by commas; the others are controls. Default: the manifest's.")
    ] = None,
    curve: Annotated[bool, typer.Option("--curve", help="Ask each claim under every definition too.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for all tables, as CSV and Parquet.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask each of the study's claims of the runs: estimate, interval, null, verdict.

    Runs of one regime are taken together; those of another stand in a table of their own.

    Example: pythiageo claims nano-s123 nano-s7 --only emergence,recovery
    """
    from pythiageo.claims import Evidence, Specification, all_claims, specification_curve
    from pythiageo.claims.noise_curve import NOISE_TABLES, beside_noise
    from pythiageo.claims.of_runs import question_of, runs_by_regime
    from pythiageo.events.run import common_place

    if out is not None:
        check_folder(out)
    families = [name.strip() for name in only.split(",")] if only else None
    answers: dict[str, Any] = {}
    tasks = tuple(name.strip() for name in trained.split(",")) if trained else None
    questions = []
    with working("reading the runs"):
        for some in runs_by_regime(_open(runs)).values():
            place = common_place(some, measure, readout, site)
            base = Specification(protocol, place.measure, site=place.site, event=event, rule=rule, k=k, ties=ties)
            questions.append(question_of(some, base, readout, tasks))
    for question in questions:
        regime, asked = question.regime, question.specification
        evidence = Evidence(question.observations)
        with working(f"{regime}: asking"):
            results = all_claims(evidence, asked, families)
        curves = shares = None
        if curve:
            curves = specification_curve(evidence, asked, families, _progress(regime, as_json))
            if not as_json:
                display.say(f"{regime}: the same of {NOISE_TABLES} tables of noise of these runs' shape", err=True)
            shares = beside_noise(curves, question.observations, asked, families)
        files = [] if out is None else _write(out / regime.replace(":", "-"), results, curves, shares)
        answers[regime] = {
            "runs": sorted(question.observations["run"].unique()),
            "claims": [result.summary() for result in results],
            "curve": None if shares is None else shares.to_dicts(),
            "files": [str(path) for path in files],
        }
        if not as_json:
            _show(regime, answers[regime], results, asked)
    if as_json:
        display.print_json(answers)
    else:
        display.say_next(f"report {named(runs)}")


def _open(paths: list[Path]) -> list[Run]:
    """Return the runs, each under a name of its own.

    Raises:
        UserError: a run without observations, or two of one name.
    """
    from pythiageo.events import Run

    runs: list[Run] = []
    for path in paths:
        run = Run(path, bounded=True)
        if not run.observations.height:
            raise UserError(f"{path} has no observations.")
        if run.label in {each.label for each in runs}:
            raise UserError(f"two runs are called {run.label!r}: give each run once.")
        runs.append(run)
    return runs


def _progress(regime: str, quiet: bool) -> Any:
    return None if quiet else lambda name, count: display.say(f"{regime}: {name} under {count} definitions", err=True)


def _write(
    folder: Path, results: list[ClaimResult], curve: pl.DataFrame | None, shares: pl.DataFrame | None
) -> list[Path]:
    """Write every table as CSV and Parquet; return the paths."""
    from pythiageo.claims import summary_table
    from pythiageo.observations import write_table

    frames = {"claims": summary_table(results)}
    for result in results:
        frames[result.name] = result.table
        if result.cases is not None:
            frames[f"{result.name}-cases"] = result.cases
    if curve is not None and shares is not None:
        frames |= {"curve": curve, "curve-shares": shares}
    make_folder(folder)
    return [
        write_table(frame, folder / f"{name}.{ending}", ending)
        for name, frame in frames.items()
        if frame.width
        for ending in ("csv", "parquet")
    ]


def _show(regime: str, answer: dict[str, Any], results: list[ClaimResult], asked: Specification) -> None:
    when = f"leads by {asked.rule}" + (f", k = {asked.k}" if asked.rule == "ours" else "")
    title = (
        f"claims on {regime}: {', '.join(answer['runs'])} "
        f"({asked.protocol}, {asked.measure} of {asked.readout} at {asked.site}, {when})"
    )
    rows = []
    for result in results:
        interval = f"{result.interval[0]:.2f} to {result.interval[1]:.2f}" if result.interval else None
        figures = [None if each is None else f"{each:.2f}" for each in (result.estimate, result.null)]
        p = None if result.p is None else f"{result.p:.3f}"
        rows.append([result.name, figures[0], interval, figures[1], p, result.answer, result.n, result.reason])
    display.print_table(title, SHOWN, rows)
    for result in results:
        if result.name == "controls" and result.table.height:
            shown = ["control", "rule", "rate", "null_rate", "p", "reason"]
            display.print_table("how often the measure leads, and its nulls", shown, result.table.select(shown).rows())
    if answer["curve"]:
        columns = list(answer["curve"][0])
        rows = [list(row.values()) for row in answer["curve"]]
        display.print_table("under every definition", [name.replace("_", " ") for name in columns], rows)
    if answer["files"]:
        display.say(f"{len(answer['files'])} tables in {Path(answer['files'][0]).parent}/")
