"""``pythiageo analyze`` and ``pythiageo plan``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pythiageo.errors import EXIT_LOOK, EXIT_OK, UserError

if TYPE_CHECKING:
    from pythiageo.config.runs import AnalyzeConfig


Target = Annotated[
    str, typer.Argument(help="Hub repository, folder of checkpoints, run folder, or a config file (TOML).")
]
Steps = Annotated[
    str | None, typer.Option(help="all, log:12, every:1000, 0,1,2,512, 1000-20000:1000 or billa-2.8b. Default: all.")
]
StepPattern = Annotated[
    str | None,
    typer.Option("--step-pattern", help="How revisions are named: a regular expression with a group (?P<step>...)."),
]
Tasks = Annotated[
    str | None, typer.Option(help="Tasks or groups (diagnostic), separated by commas. Default: the eight.")
]
TasksFolder = Annotated[Path | None, typer.Option("--tasks-folder", help="A folder of task files of your own.")]
Readouts = Annotated[str | None, typer.Option(help="Readouts, separated by commas. Default: all.")]
Measures = Annotated[str | None, typer.Option(help="Measures, separated by commas: pythiageo measures lists them.")]
Sites = Annotated[
    str | None, typer.Option(help="Hooks by name or pattern. Default: every resid_post, and the final LayerNorm.")
]
Layers = Annotated[str | None, typer.Option(help="all, or e.g. 0,3-5,last.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, or split: over all GPUs. Default: auto.")]
Dtype = Annotated[str | None, typer.Option(help="float32 or bfloat16, of the forward pass.")]
RegimeName = Annotated[str | None, typer.Option("--regime", help="task-aligned, naturalistic or mix:P.")]
DiskBudget = Annotated[
    str | None, typer.Option("--disk-budget", help="Most that fetched checkpoints may take at one time, e.g. 12GB.")
]
Keep = Annotated[bool, typer.Option("--keep", help="Leave fetched checkpoints in the Hub client's cache.")]
NoAudit = Annotated[bool, typer.Option("--no-audit", help="Do not compare the weight files of the series first.")]
TrustRevisions = Annotated[
    bool, typer.Option("--trust-revisions", help="Measure suspect, ambiguous and mixed steps too.")
]
Name = Annotated[str | None, typer.Option(help="Name of the run.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any value of the config.")]
Out = Annotated[Path | None, typer.Option(help="Run folder; default outputs/NAME.")]


def analyze(
    target: Target,
    steps: Steps = None,
    step_pattern: StepPattern = None,
    tasks: Tasks = None,
    tasks_folder: TasksFolder = None,
    readouts: Readouts = None,
    measures: Measures = None,
    sites: Sites = None,
    layers: Layers = None,
    device: Device = None,
    dtype: Dtype = None,
    regime: RegimeName = None,
    disk_budget: DiskBudget = None,
    keep: Keep = False,
    no_audit: NoAudit = False,
    trust_revisions: TrustRevisions = False,
    name: Name = None,
    sets: Sets = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that is there.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")] = False,
    engine: Annotated[str, typer.Option(help="local, or ray: on a Ray cluster.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT of the Ray cluster, auto (this machine's), or local (start one here).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the config and print it.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Measure the checkpoints of a series through TransformerLens hooks."""
    config = config_of(dict(locals()))
    from pythiageo.cli.display import print_json
    from pythiageo.cli.train import finish
    from pythiageo.engines import EngineChoice
    from pythiageo.engines.jobs import Job
    from pythiageo.runs.train import run_path

    where = EngineChoice(engine, address)
    if dry_run:
        print_json(config.model_dump(mode="json"))
        return 0
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other")
    return finish([Job(config, run_path(out, config.name), resume, overwrite, where)], 1, quiet, as_json)


def plan(
    target: Target,
    steps: Steps = None,
    step_pattern: StepPattern = None,
    tasks: Tasks = None,
    tasks_folder: TasksFolder = None,
    readouts: Readouts = None,
    measures: Measures = None,
    sites: Sites = None,
    layers: Layers = None,
    device: Device = None,
    dtype: Dtype = None,
    disk_budget: DiskBudget = None,
    keep: Keep = False,
    no_audit: NoAudit = False,
    trust_revisions: TrustRevisions = False,
    name: Name = None,
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
    """
    config = config_of(dict(locals()))
    from pythiageo.cli import display
    from pythiageo.estimate.plan import make_plan
    from pythiageo.runs.train import run_path

    with display.shown_progress([config.name], quiet) as report:
        made = make_plan(config, run_path(out, config.name), report, workers)
    if as_json:
        display.print_json(made.as_json())
    else:
        display.print_table(f"{config.name}: would analyze", ("what", "value"), display.plan_rows(made))
    for obstacle in made.obstacles:
        typer.echo(f"pythiageo: {config.name} does not fit this machine: {obstacle}", err=True)
    return EXIT_LOOK if made.obstacles else EXIT_OK


_KEYS = {
    "steps": "steps",
    "step_pattern": "step_pattern",
    "regime": "regime",
    "name": "name",
    "disk_budget": "fetch.disk_budget",
    "tasks": "probes.tasks",
    "tasks_folder": "probes.tasks_folder",
    "readouts": "measures.readouts",
    "measures": "measures.geometry",
    "sites": "measures.sites",
    "layers": "measures.layers",
    "device": "compute.device",
    "dtype": "compute.dtype",
}
"""Options and the config's keys that they set."""
_LISTS = {"tasks", "readouts", "measures", "sites"}


def config_of(options: Mapping[str, Any]) -> AnalyzeConfig:
    """Return the config that a command's options stand for. Raises ``UserError``."""
    from pythiageo.config.options import measure_keys, overrides
    from pythiageo.config.runs import AnalyzeConfig, load_config, make_config

    values: dict[str, Any] = {}
    for option, key in _KEYS.items():
        value = options.get(option)
        if value is not None:
            values[key] = _split(value) if option in _LISTS else str(value)
    if measures := values.pop("measures.geometry", None):
        values |= measure_keys(measures)
    if options["keep"]:
        values["fetch.keep"] = True
    if options["no_audit"]:
        values["audit"] = False
    if options["trust_revisions"]:
        values["trust_revisions"] = True
    changes = overrides(values) + (options["sets"] or [])
    target: str = options["target"]
    if target.endswith(".toml"):
        config = load_config(Path(target), changes, "analyze")
    else:
        config = make_config({"name": _run_name(target), "target": target}, changes, "analyze", "analyze")
    assert isinstance(config, AnalyzeConfig)
    return config


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _run_name(target: str) -> str:
    """Return ``owner--name`` for a repository and ``NAME-analysis`` for a folder."""
    path = Path(target)
    base = f"{path.resolve().name}-analysis" if path.exists() else target.replace("/", "--")
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", base).strip("-.")
