"""``pythiageo train``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pythiageo.cli import display
from pythiageo.cli.options import with_options_of
from pythiageo.cli.results import named
from pythiageo.cli.working import LOADING, working
from pythiageo.config.options import overrides as as_overrides
from pythiageo.config.runs import TrainConfig, load_config
from pythiageo.errors import UserError, count_noun
from pythiageo.locations import check_folder, run_path

if TYPE_CHECKING:
    from pythiageo.engines.jobs import Failure, Job

PROTOCOLS = ("billa-v4",)
"""Studies whose training is shipped as a config."""
OLD_REGIMES = {"aligned": "task-aligned", "natural": "naturalistic"}


@with_options_of(
    TrainConfig,
    tables=("training",),
    keys=("compute.device", "compute.threads", "measures.spectra", "measures.sketch"),
)
def train(
    given: dict[str, Any],
    configs: Annotated[
        list[str] | None, typer.Argument(metavar="[CONFIG...]", help="Config files (TOML), yours or shipped.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Instead of a config: a study's own training, billa-v4.", show_default=False)
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="nano, micro, small, medium, large or xlarge; several by commas: a run each.")
    ] = None,
    regime: Annotated[
        str | None,
        typer.Option(
            metavar="task-aligned|naturalistic|mix:P",
            help="Train on the tasks, on text, or on text with a share P of task examples; several by commas.",
        ),
    ] = None,
    seed: Annotated[str | None, typer.Option(help="Seed of weights and batches; several by commas.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the config, e.g. seed=7."),
    ] = None,
    corpus: Annotated[
        list[Path] | None,
        typer.Option("--corpus", metavar="FILE", help="Train on this text (may be repeated)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default outputs/NAME.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs side by side, each in its own process.")] = 1,
    engine: Annotated[str, typer.Option(help="local, or ray: each run a task of a Ray cluster.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="The Ray cluster: auto, HOST:PORT, or local to start one here.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with runs that are there.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace runs that are there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the configs and say what would be done.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Train small transformers, with the probes measured at every checkpoint.

    Example: pythiageo train demo/tasks.toml demo/english.toml --jobs 2
    """
    with working(LOADING, quiet):
        from pythiageo.engines import EngineChoice
        from pythiageo.engines.jobs import Job
        from pythiageo.runs.build_training import check_fits, checkpoint_steps, resolve
        from pythiageo.synthetic.workers import count_processes

    where = EngineChoice(engine, address)
    if given.get("training.checkpoints") in {"keep", "measure-only"}:
        raise UserError("--checkpoints says at which steps; whether weights are kept is --weights keep or measure-only")
    shared = ['data.source="text"'] if corpus and regime is None else []
    shared += [f"data.corpus={[str(path) for path in corpus]}"] if corpus else []
    shared += as_overrides(given)
    if protocol is not None:
        _check_protocol(protocol, configs, size)
    elif not configs:
        raise UserError("nothing to train: name a config, or --protocol billa-v4 with --size and --seed")
    resolved: list[TrainConfig] = []
    for one in _combinations(size, seed, regime):
        for path in configs or [f"{protocol}.toml"]:
            changes = [*one.overrides, *one.name(protocol), *shared, *(sets or [])]
            config = load_config(Path(path), changes, "train")
            assert isinstance(config, TrainConfig)
            if one.suffix and protocol is None:
                config = config.model_copy(update={"name": f"{config.name}-{one.suffix}"})
            resolved.append(resolve(config, max(jobs, count_processes())))
    if out is not None and len(resolved) > 1:
        raise UserError(f"--out takes one run, but {len(resolved)} were asked for: leave it out, each has its own name")
    names = [config.name for config in resolved]
    if len(set(names)) < len(names):
        raise UserError(f"two configs are called {max(names, key=names.count)!r}: each run needs its own name")
    if dry_run:
        for config in resolved:
            if where.name == "local":  # a cluster's nodes have other devices
                check_fits(config)
            _show_plan(config, checkpoint_steps(config), run_path(out, config.name), as_json)
        return 0
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other")
    work = [Job(config, run_path(out, config.name), resume, overwrite, where) for config in resolved]
    return finish(work, jobs, quiet, as_json)


def _regime(text: str) -> list[str]:
    """Return the settings of a regime given in a word.

    Raises:
        UserError: no such regime.
    """
    if text in OLD_REGIMES:
        raise UserError(f"--regime: {text} is called {OLD_REGIMES[text]} now")
    sources = {"task-aligned": "tasks", "naturalistic": "text"}
    if text in sources:
        return [f'regime="{text}"', f'data.source="{sources[text]}"']
    share = text.removeprefix("mix:")
    try:
        if share == text or not 0 < float(share) < 1:
            raise ValueError
    except ValueError:
        raise UserError(
            f"--regime: expected task-aligned, naturalistic or mix:P with a share P between 0 and 1, got {text!r}"
        ) from None
    return [f'regime="mix:{float(share):g}"', 'data.source="mix"', f"data.task_share={float(share)}"]


@dataclass(frozen=True)
class _Combination:
    """One of the sizes, seeds and regimes that were asked for; ``suffix`` says what sets it apart from the others."""

    size: str | None
    seed: int | None
    regime: str | None
    suffix: str

    @property
    def overrides(self) -> list[str]:
        """The settings that it stands for."""
        sets = [] if self.size is None else [f'model.size="{self.size}"']
        sets += [] if self.seed is None else [f"seed={self.seed}"]
        return sets + ([] if self.regime is None else _regime(self.regime))

    def name(self, protocol: str | None) -> list[str]:
        """Return the setting of the name of a run of a study's own training; none for a config, which has one."""
        if protocol is None:
            return []
        parts = [self.size, str(42 if self.seed is None else self.seed), (self.regime or "").replace(":", "-")]
        return [f'name="{"-".join(part for part in parts if part)}"']


def _combinations(size: str | None, seed: str | None, regime: str | None) -> list[_Combination]:
    """Return every combination of the values given by commas.

    Raises:
        UserError: a seed that is no whole number.
    """
    lists = [_values("size", size), _values("seed", seed), _values("regime", regime)]
    found = []
    for values in product(*lists):
        for word in (values[1],):
            if word is not None and not word.isdecimal():
                raise UserError(f"--seed: expected whole numbers from 0 up, got {word!r}")
        apart = [
            value.replace(":", "-") for value, known in zip(values, lists, strict=True) if value and len(known) > 1
        ]
        number = None if values[1] is None else int(values[1])
        found.append(_Combination(values[0], number, values[2], "-".join(apart)))
    return found


def _values(option: str, text: str | None) -> list[str | None]:
    if text is None:
        return [None]
    values: list[str | None] = [part.strip() for part in text.split(",")]
    if "" in values or len(set(values)) < len(values):
        raise UserError(f"--{option}: expected different values, separated by commas, got {text!r}")
    return values


def _check_protocol(protocol: str, configs: list[str] | None, size: str | None) -> None:
    """Check what is asked of a study's own training.

    Raises:
        UserError: no such protocol, configs beside it, or no size.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"--protocol: nothing is trained as {protocol!r}; there is {', '.join(PROTOCOLS)}")
    if configs:
        raise UserError("--protocol takes the place of a config: leave one of them out")
    if size is None:
        raise UserError(f"--protocol {protocol} needs a --size: nano, micro, small, medium, large or xlarge")


def finish(work: list[Job], jobs: int, quiet: bool, as_json: bool) -> int:
    """Do the jobs under a progress display, and print what became of each."""
    with working(LOADING, quiet):
        from pythiageo.engines.jobs import execute, execute_all
        from pythiageo.runs.listing import summarise
    from pythiageo.synthetic.workers import count_processes

    if count_processes() > 1 and (len(work) > 1 or jobs > 1):
        raise UserError("accelerate launch trains one run on several processes: give one config, without --jobs")
    for job in work:  # before anything is begun
        check_folder(job.path)
    first = os.environ.get("RANK", "0") == "0"
    names = [job.config.name for job in work]
    failures: list[Failure] = []
    with display.shown_progress(names, quiet or not first) as report:
        if work[0].engine.name == "ray" and isinstance(work[0].config, TrainConfig):
            from pythiageo.engines.ray.sweep import train_on_ray

            code, failures = train_on_ray(work, work[0].engine.address, report)
        elif len(work) == 1:
            code = execute(work[0], report)
        else:
            code, failures = execute_all(work, jobs, report)
    if not first:
        return code
    failed = {failure.run for failure in failures}
    summaries = [summarise(job.path) for job in work if job.config.name not in failed]
    _say_results(summaries, failures, quiet, as_json)
    return code


def _say_results(summaries: list[dict[str, Any]], failures: list[Failure], quiet: bool, as_json: bool) -> None:
    """Print what became of each run, what must be known of it, and what is worth typing next."""
    if as_json:
        display.print_json(summaries)
    else:
        for summary in summaries:
            counts = display.count_observations(summary["observations"], summary["not_ok"])
            checkpoints = count_noun(summary["checkpoints"], "checkpoint")
            display.say(f"{summary['folder']}: {summary['status']}, {checkpoints}, {counts}")
    for summary in summaries:
        for remark in summary["remarks"]:
            display.say(f"pythiageo: {summary['name']}: {remark}", err=True)
    for failure in failures:
        display.say(f"pythiageo: {failure.message}", err=True)
    done = [summary["folder"] for summary in summaries]
    if done and not (quiet or as_json):
        display.say_next(f"show {named(done[:1])}", f"report {named(done)}")


def _show_plan(config: TrainConfig, steps: list[int], path: Path, as_json: bool) -> None:
    from pythiageo.runs.build_training import new_model

    trainable = new_model(config)
    plan = {
        "name": config.name,
        "folder": str(path),
        "architecture": trainable.architecture,
        "parameters": sum(p.numel() for p in trainable.module.parameters()),
        "steps": steps[-1],
        "checkpoints": len(steps),
        "config": config.model_dump(mode="json"),
    }
    if as_json:
        display.print_json(plan)
    else:
        rows = [
            (key, f"{value:,}" if isinstance(value, int) else value) for key, value in plan.items() if key != "config"
        ]
        display.print_table(f"{config.name}: would train", ("what", "value"), rows)
