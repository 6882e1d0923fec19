"""``pythiageo analyze`` and ``pythiageo plan``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pythiageo.cli.options import with_options_of
from pythiageo.cli.working import LOADING, working
from pythiageo.config.options import overrides
from pythiageo.config.runs import AnalyzeConfig, load_config, make_config
from pythiageo.errors import EXIT_LOOK, EXIT_OK, UserError
from pythiageo.locations import run_path
from pythiageo.series.hub.address import shorten_target

Target = Annotated[
    str, typer.Argument(help="Hub repository, folder of checkpoints, run folder, or a config file (TOML).")
]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any value of the config.")]
Out = Annotated[Path | None, typer.Option(help="Run folder; default outputs/NAME.")]


@with_options_of(AnalyzeConfig)
def analyze(
    target: Target,
    given: dict[str, Any],
    sets: Sets = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that is there.")] = False,
    refresh: Annotated[
        bool,
        typer.Option(
            "--refresh", help="Go on with a run that is there, and measure anew what its rows came from moved."
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")] = False,
    engine: Annotated[str, typer.Option(help="local, or ray: on a Ray cluster.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT of the Ray cluster, auto (this machine's), or local (start one here).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the config and print it; say which items would be left out.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Measure the checkpoints of a series through TransformerLens hooks.

    Example: pythiageo analyze EleutherAI/pythia-160m --steps log:12 --tasks ADD,MOD --disk-budget 12GB
    """
    config = config_of(target, given, sets)
    with working(LOADING, quiet):
        from pythiageo.cli.display import print_json
        from pythiageo.cli.train import finish
        from pythiageo.engines import EngineChoice
        from pythiageo.engines.jobs import Job
        from pythiageo.runs.check_names import check_names

    where = EngineChoice(engine, address)
    if dry_run:
        check_names(config)
        print_json(config.model_dump(mode="json"))
        _say_what_is_left_out(config)
        return 0
    if (resume or refresh) and overwrite:
        raise UserError(f"{'--refresh' if refresh else '--resume'} and --overwrite exclude each other")
    job = Job(config, run_path(out, config.name), resume or refresh, overwrite, where, refresh)
    return finish([job], 1, quiet, as_json)


def _say_what_is_left_out(config: AnalyzeConfig) -> None:
    """Look at config and tokenizer of a checkpoint, and print which items it cannot take, and what the protocol is."""
    from pythiageo.cli import display
    from pythiageo.config.protocols import describe_protocol
    from pythiageo.errors import CheckpointError, MachineError
    from pythiageo.measurement.examples import look_at

    for note in describe_protocol(config, config.protocol):
        display.say(f"pythiageo: {config.name}: {note}", err=True)
    try:
        for note in look_at(config):
            display.say(f"pythiageo: {config.name}: {note}", err=True)
    except (CheckpointError, MachineError) as error:
        display.say(f"pythiageo: {config.name}: whether every item can be measured is not known: {error}", err=True)


@with_options_of(AnalyzeConfig)
def plan(
    target: Target,
    given: dict[str, Any],
    sets: Sets = None,
    out: Out = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Workers of --engine ray that share the time, each as fast as this machine.")
    ] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> int:
    """Say what analyze with these options will take: revisions, bytes, disk, memory, time. Nothing is measured.

    Exit code 1 when it does not fit this machine.

    Example: pythiageo plan EleutherAI/pythia-160m --steps log:12
    """
    config = config_of(target, given, sets)
    from pythiageo.cli import display

    with working(LOADING, quiet):
        from pythiageo.estimate.plan import make_plan

    with display.shown_progress([config.name], quiet) as report:
        made = make_plan(config, run_path(out, config.name), report, workers)
    if as_json:
        display.print_json(made.as_json())
    else:
        display.print_table(f"{config.name}: would analyze", ("what", "value"), display.plan_rows(made))
    for note in made.items:
        display.say(f"pythiageo: {config.name}: {note}", err=True)
    if not (as_json or quiet or made.obstacles):
        display.say_next(f"analyze {shlex.join([target])}, with the same options")
    for obstacle in made.obstacles:
        display.say(f"pythiageo: {config.name} does not fit this machine: {obstacle}", err=True)
    return EXIT_LOOK if made.obstacles else EXIT_OK


def config_of(target: str, given: Mapping[str, Any], sets: list[str] | None) -> AnalyzeConfig:
    """Return the config for a target, keys that options set, and ``--set``. Raises ``UserError``."""
    changes = overrides(given) + (sets or [])
    if target.endswith(".toml"):
        config = load_config(Path(target), changes, "analyze")
    else:
        config = make_config({"name": _run_name(target), "target": target}, changes, "analyze", "analyze")
    assert isinstance(config, AnalyzeConfig)
    return config


def _run_name(target: str) -> str:
    """Return ``owner--name`` for a repository, ``NAME-analysis`` for a folder; of several what their names share."""
    path = Path(target)
    base = f"{path.resolve().name}-analysis" if path.exists() else shorten_target(target).replace("/", "--")
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", base).strip("-.")
