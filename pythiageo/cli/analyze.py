"""``pythiageo analyze``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from pythiageo.errors import UserError


def analyze(
    target: Annotated[
        str,
        typer.Argument(help="Hub repository, folder of checkpoints, run folder, or a config file (TOML)."),
    ],
    steps: Annotated[
        str | None, typer.Option(help="all, log:12, every:1000, 0,1,2,512 or 1000-20000:1000. Default: all.")
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Tasks or groups (diagnostic), separated by commas. Default: the eight.")
    ] = None,
    tasks_folder: Annotated[
        Path | None, typer.Option("--tasks-folder", help="A folder of task files of your own.")
    ] = None,
    readouts: Annotated[str | None, typer.Option(help="Readouts, separated by commas. Default: all.")] = None,
    measures: Annotated[str | None, typer.Option(help="Geometry measures, separated by commas.")] = None,
    regime: Annotated[str | None, typer.Option(help="task-aligned or naturalistic.")] = None,
    disk_budget: Annotated[
        str | None, typer.Option("--disk-budget", help="Most that fetched checkpoints may take at one time, e.g. 12GB.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave fetched checkpoints in the Hub client's cache.")] = False,
    no_audit: Annotated[
        bool, typer.Option("--no-audit", help="Do not compare the weight files of the series first.")
    ] = False,
    trust_revisions: Annotated[
        bool, typer.Option("--trust-revisions", help="Measure suspect, ambiguous and mixed steps too.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any value of the config.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default outputs/NAME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that is there.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the config and print it.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Measure the checkpoints of a series through TransformerLens hooks."""
    from pythiageo.cli.display import print_json
    from pythiageo.cli.train import finish
    from pythiageo.runs.config import load_config, make_config
    from pythiageo.runs.jobs import Job
    from pythiageo.runs.training import run_path

    options: dict[str, Any] = {
        "steps": steps,
        "regime": regime,
        "name": name,
        "fetch.disk_budget": disk_budget,
        "probes.tasks": _split(tasks),
        "probes.tasks_folder": str(tasks_folder) if tasks_folder else None,
        "measures.readouts": _split(readouts),
        "measures.geometry": _split(measures),
    }
    if keep:
        options["fetch.keep"] = True
    if no_audit:
        options["audit"] = False
    if trust_revisions:
        options["trust_revisions"] = True
    overrides = [f"{key}={_toml(value)}" for key, value in options.items() if value is not None] + (sets or [])
    if target.endswith(".toml"):
        config = load_config(Path(target), overrides, "analyze")
    else:
        config = make_config({"name": _run_name(target), "target": target}, overrides, "analyze", "analyze")
    if dry_run:
        print_json(config.model_dump(mode="json"))
        return 0
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other")
    return finish([Job(config, run_path(out, config.name), resume, overwrite)], 1, quiet, as_json)


def _split(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _toml(value: str | bool | list[str]) -> str:
    """Return ``value`` as a TOML value: JSON's strings, lists of them and booleans are TOML too."""
    import json

    return json.dumps(value, ensure_ascii=False)


def _run_name(target: str) -> str:
    """Return ``owner--name`` for a repository and ``NAME-analysis`` for a folder."""
    path = Path(target)
    base = f"{path.resolve().name}-analysis" if path.exists() else target.replace("/", "--")
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", base).strip("-.")
