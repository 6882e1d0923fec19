"""``pythiageo runs``: list, show, excerpt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pythiageo.cli import display
from pythiageo.cli.results import RunArgument, by_commas, named
from pythiageo.errors import EXIT_LOOK, EXIT_OK

app = typer.Typer(help="Runs that are there.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command("list")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="Folder of run folders.")] = Path("outputs"),
    as_json: JsonOption = False,
) -> int:
    """List the runs in a folder. Exit code 1 when one of them cannot be read.

    Example: pythiageo runs list outputs
    """
    from pythiageo.runs.listing import list_run_folders, summarise_all

    summaries = summarise_all(list_run_folders(folder))
    problems = [summary for summary in summaries if "problem" in summary]
    code = EXIT_LOOK if problems else EXIT_OK
    if as_json:
        display.print_json(summaries)
        return code
    if not summaries:
        display.say(f"no runs in {folder}")
        return code
    display.print_table(
        f"runs in {folder}",
        ("run", "kind", "regime", "size", "status", "checkpoints", "last step", "observations", "without value"),
        [
            (s["name"], s["kind"], s["regime"], s["size"], s["status"], s["checkpoints"], s["last_step"],
             s["observations"], s["not_ok"])
            for s in summaries
        ],
    )  # fmt: skip
    for summary in problems:
        display.say(f"pythiageo: {summary['folder']}: {summary['problem']}", err=True)
    fine = [summary["folder"] for summary in summaries if "problem" not in summary]
    if fine:
        display.say_next(f"show {named(fine[-1:])}")
    return code


@app.command()
def show(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show a run: its settings, where it comes from, its checkpoints.

    Example: pythiageo runs show demo-tasks
    """
    from pythiageo.observations import read_whole_manifest
    from pythiageo.runs.listing import find_dominated, flatten, summarise

    manifest = read_whole_manifest(run)
    if as_json:
        display.print_json(manifest.as_json())
        return
    summary = summarise(run)
    summary["remarks"] = "; ".join(summary["remarks"]) or None
    display.print_table(f"{run}", ("what", "value"), summary.items())
    display.print_table("config", ("key", "value"), flatten(manifest.config))
    display.print_table("provenance", ("key", "value"), flatten(manifest.provenance.as_json()))
    display.print_table(
        "checkpoints",
        ("step", "label", "weights sha256", "status", "passes", "reason"),
        [
            (entry.step, entry.label, (entry.weight_sha or "-")[:12], entry.status, entry.passes, entry.reason)
            for entry in manifest.checkpoints
        ],
    )
    dominated = find_dominated(run)
    if dominated.height:
        title = "ranks of matrices that sinks or one direction dominate (docs/geometry.md)"
        display.print_table(title, dominated.columns, dominated.rows())
    display.say_next(f"show {named([run])}")


@app.command()
def excerpt(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="The run folder to write; there must be none.")],
    measures: Annotated[str | None, typer.Option(help="Measures, separated by commas. Default: all.")] = None,
    readouts: Annotated[str | None, typer.Option(help="Readouts, separated by commas. Default: all.")] = None,
    last_step: Annotated[int | None, typer.Option(min=0, help="The last step to keep. Default: all.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks, separated by commas. Default: all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a part of a run's observations as a run folder of its own, without weights.

    Example: pythiageo runs excerpt demo-tasks --out outputs/small --measures accuracy,rankme
    """
    from pythiageo.observations import read_observations
    from pythiageo.observations.excerpt import excerpt as write_excerpt

    chosen = [by_commas(names or None) or () for names in (measures, readouts, tasks)]
    path = write_excerpt(run, out, chosen[0], chosen[1], last_step, chosen[2])
    rows, size = read_observations(path).height, sum(file.stat().st_size for file in path.iterdir())
    if as_json:
        display.print_json({"run": str(path), "observations": rows, "bytes": size})
    else:
        display.say(f"{path}: {rows:,} observations, {size / 1e6:.2f} MB")
        display.say_next(f"push {named([path])} --repo OWNER/NAME --dry-run")
