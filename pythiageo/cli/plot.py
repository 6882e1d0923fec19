"""``pythiageo plot``: one figure of what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pythiageo.cli import display
from pythiageo.cli.results import JsonOption, OpenOption, RunsArgument, by_commas, named
from pythiageo.cli.working import working
from pythiageo.errors import UserError


def plot(
    runs: RunsArgument,
    measure: Annotated[str, typer.Option(help="Measure; several by commas, a panel each.")],
    by: Annotated[str, typer.Option(help="What lies along x: step, layer, task or run.")] = "step",
    hue: Annotated[
        str | None,
        typer.Option(help="What a line is: layer, step, run, task, level. What else there is: a panel each."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Tasks, by commas. Default: all.")] = None,
    level: Annotated[str | None, typer.Option(help="Levels, by commas. Default: all.")] = None,
    readout: Annotated[str | None, typer.Option(help="Readouts, by commas. Default: answer/centred.")] = None,
    site: Annotated[
        str | None, typer.Option(help="residual, last-block, final-ln, or a hook such as hook_mlp_out.")
    ] = None,
    layers: Annotated[str | None, typer.Option(help="all, or e.g. 0,3-5,last,final-ln.")] = None,
    steps: Annotated[str | None, typer.Option(help="As for analyze: 0,512,1000-5000, log:6, all.")] = None,
    seeds: Annotated[
        str, typer.Option(help="separate, or band: runs that differ in seed alone as their mean and range.")
    ] = "separate",
    width: Annotated[str, typer.Option(help="column (3.25 in), text (5.5 in), or inches.")] = "column",
    out: Annotated[list[Path] | None, typer.Option(help="File: .pdf, .png, .svg, .html; may be given again.")] = None,
    show_page: OpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Draw one figure for a paper: a measure by step, layer, task or run.

    Example: pythiageo plot outputs/demo-tasks --measure rankme --task ADD --by layer --out rankme.pdf
    """
    from pythiageo.events.run import open_runs
    from pythiageo.figures.plot import plot_runs
    from pythiageo.figures.selection import Asked
    from pythiageo.report.plot_files import check_plot_files, width_in_inches, write_plot
    from pythiageo.series.steps import select

    files = out or [Path("outputs/plot.pdf")]
    check_plot_files(files)
    width_in_inches(width)
    if seeds not in ("separate", "band"):
        raise UserError(f"--seeds {seeds}: expected separate or band")
    with working("reading the runs"):
        opened = open_runs(runs)
    there = {step for run in opened for step in run.distinct["step"].unique()}
    asked = Asked(
        measures=by_commas(measure) or [], by=by, tasks=by_commas(task), levels=by_commas(level),
        readouts=by_commas(readout), sites=by_commas(site), layers=layers,
        steps=None if steps is None else select(steps, sorted(there)), pooled=seeds == "band",
    )  # fmt: skip
    with working("drawing"):
        made = plot_runs(opened, asked, hue)
        written = write_plot(made, files, width)
    if as_json:
        display.print_json({"files": [str(path) for path in written], "caption": made.caption, "said": made.said})
    else:
        for path in written:
            display.say(str(path))
        display.say(made.text)
        display.say_next(f"report {named(runs)}")
    if show_page:
        display.open_page(next((path for path in written if path.suffix == ".html"), written[0]))
