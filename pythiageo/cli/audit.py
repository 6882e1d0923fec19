"""``pythiageo audit``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pythiageo.cli.display import print_json, print_table, say, say_next, shown_progress
from pythiageo.cli.options import with_options_of
from pythiageo.config.options import overrides
from pythiageo.config.runs import AnalyzeConfig, make_config
from pythiageo.durable_files import replace_file
from pythiageo.errors import EXIT_LOOK, EXIT_OK, UserError, count_noun
from pythiageo.locations import check_file

if TYPE_CHECKING:
    from pythiageo.progress import Reporter
    from pythiageo.series.audit.audit import Audit, StepAudit
    from pythiageo.series.audit.contents import Contents
    from pythiageo.series.audit.values import Finding
    from pythiageo.series.checkpoint import Series


@with_options_of(AnalyzeConfig, {"series"}, {"step_pattern"})
def audit(
    target: Annotated[str, typer.Argument(metavar="REPO", help="Hub repository, or a folder of checkpoints.")],
    given: dict[str, Any],
    expect: Annotated[
        str | None,
        typer.Option(help="Steps there should be: pythia (its 154), none, or a list like 0,1,2,1000-143000:1000."),
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Download .safetensors and .bin of --steps and compare their tensors.")
    ] = False,
    values: Annotated[
        bool,
        typer.Option("--values", help="Read a few rows of every step's weights, at most 200 MB, and judge them too."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the whole audit to this file (audit.json), too.")
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(help="Steps to tell of, and to download with --deep: 0,1000 or all. All are compared either way."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="A row a step: do not fold steps of one verdict.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the audit as JSON.")] = False,
) -> int:
    """Compare the weight files of all steps by their hashes: which revisions hold what their names say.

    Nothing but listings is fetched from the Hub, unless --values or --deep is given. Exit code 1 if a step is not ok or
    same-as-neighbour, or if --deep finds that two formats of a step differ.

    Example: pythiageo audit EleutherAI/pythia-160m --steps 0,1000
    """
    from pythiageo.progress import Progress
    from pythiageo.series import open_series
    from pythiageo.series.audit.audit import Auditable, audit_series
    from pythiageo.series.steps import parse_grid, select

    if deep and steps is None:
        raise UserError("--deep downloads weights and needs --steps to say of which steps")
    if out is not None:
        check_file(out)
    config = make_config({"name": "audit", "target": target}, overrides(given), "analyze", "audit")
    assert isinstance(config, AnalyzeConfig)
    series = open_series(target, config.naming)
    if not isinstance(series, Auditable):
        raise UserError(f"{target}: this kind of series has no weight files that could be compared")
    expected = series.expected if expect is None else parse_grid(expect)
    chosen = [] if steps is None else select(steps, series.steps())
    with shown_progress([series.name], quiet) as report:

        def told(what: str) -> Callable[[int, int], None]:
            return lambda n, of: report(Progress(series.name, n, of, what))

        found = audit_series(series, expected, told("listing files"), told("reading rows") if values else None)
        contents = _compare(series, chosen, report) if deep else []
    if out is not None:
        replace_file(out, (json.dumps(found.as_json(), indent=2) + "\n").encode(), "the audit was not written")
    if chosen:
        found = found.only(chosen)
    if as_json:
        print_json(found.as_json() | ({"contents": [one._asdict() for one in contents]} if deep else {}))
    else:
        _print(found, every)
        if deep:
            print_table("contents", ("step", "formats", "reason"), [one[:3] for one in contents])
        if not quiet:
            few = len(series.steps()) <= 12
            say_next(f"analyze {shlex.join([target])}{'' if few else ' --steps log:12'}")
    agreed = all(one.status in {"agree", "one-format"} for one in contents)
    return EXIT_OK if found.sound and agreed else EXIT_LOOK


def _compare(series: Series, steps: list[int], report: Reporter) -> list[Contents]:
    from pythiageo.progress import Progress
    from pythiageo.series.audit.contents import BothFormats, compare_formats

    if not isinstance(series, BothFormats):
        return []
    contents: list[Contents] = []
    for number, step in enumerate(steps):
        report(Progress(series.name, number, len(steps), f"comparing the formats of step {step}"))
        contents += compare_formats(series, [step])
    return contents


def _print(found: Audit, every: bool) -> None:
    groups = (
        [[step] for step in found.steps]
        if every
        else [list(group) for _, group in groupby(found.steps, key=lambda step: (step.verdict, step.reason))]
    )
    print_table(
        f"{found.repo}: {count_noun(len(found.steps), 'step')}", ("steps", "n", "verdict", "reason"), map(_row, groups)
    )
    say(", ".join(f"{count} {verdict}" for verdict, count in found.counts.items()))
    if found.values is not None and found.values.findings:
        print_table("findings by value", ("step", "finding", "matrix", "reason", "numbers"),
                    map(_finding_row, found.values.findings))  # fmt: skip
    for kind, numbers in found.formats.items():
        say(f".{kind}: {numbers['distinct']} different weights at {numbers['steps']} steps")
    for note in found.notes():
        say(note)


def _finding_row(found: Finding) -> tuple[str, str, str, str, str]:
    numbers = ", ".join(f"{name} {value:.3g}" for name, value in found.numbers.items())
    return str(found.step), found.kind, found.matrix or "all", found.reason, numbers


def _row(group: list[StepAudit]) -> tuple[str, str, str, str]:
    first, last = group[0], group[-1]
    steps = str(first.step) if first is last else f"{first.step} .. {last.step}"
    return steps, str(len(group)), first.verdict, first.reason
