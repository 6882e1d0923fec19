"""Run configs: TOML files, checked key by key, with ``--set a.b=c`` on top."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pythiageo.config.fields import Count, Option, Regime, RunName, Size, Steps, Table, parse_size
from pythiageo.config.protocols import lay_under
from pythiageo.config.renamed import RENAMED_KEYS
from pythiageo.config.tables import ComputeConfig, MeasureConfig, ProbeConfig
from pythiageo.config.training import DataConfig, ModelConfig, TrainingConfig
from pythiageo.errors import UserError
from pythiageo.series.layout import Naming
from pythiageo.validation import check_table, read_table


class TrainConfig(Table):
    """A run of ``pythiageo train``."""

    kind: Literal["train"] = "train"
    """What the config is for."""
    name: RunName
    """Name of the run, and of its folder in ``outputs/``."""
    regime: Regime
    """``task-aligned``, ``naturalistic``, or ``mix:P`` with P the tasks' share: what ``data`` is, as tables say it."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42
    """Seed of the initial weights and of the order of the data."""
    model: ModelConfig
    data: DataConfig
    training: TrainingConfig = TrainingConfig()
    probes: ProbeConfig = ProbeConfig()
    measures: MeasureConfig = MeasureConfig()
    compute: ComputeConfig = ComputeConfig()

    @model_validator(mode="after")
    def _one_source(self) -> TrainConfig:
        if self.data.source == "tasks" and self.data.corpus:
            raise ValueError("data.corpus is for data.source = 'text' or 'mix'")
        if self.data.source == "text" and self.data.shuffled:
            raise ValueError("data.shuffled is for data.source = 'tasks' or 'mix'")
        if self.data.source == "text" and self.data.holdout:
            raise ValueError("data.holdout is for data.source = 'tasks' or 'mix'")
        if (self.data.source == "mix") != (self.data.task_share is not None):
            raise ValueError(
                "data.task_share belongs to data.source = 'mix': the share of examples that are the tasks'"
            )
        regime = f"mix:{self.data.task_share:g}" if self.data.task_share is not None else None
        if regime != (self.regime if self.regime.startswith("mix") else None):
            raise ValueError(f"regime: expected {regime or 'task-aligned or naturalistic'} for this data")
        return self

    @model_validator(mode="after")
    def _measured_in_full(self) -> TrainConfig:
        if self.compute.dtype != "float32":
            raise ValueError("a model in training is measured in float32: training.dtype is that of its steps")
        if self.compute.device == "split":
            raise ValueError("compute.device: a model trains on one device: cpu, cuda, cuda:1 or auto")
        return self


class FetchConfig(Table):
    """How checkpoints come from the Hub."""

    disk_budget: Annotated[Size | None, Option("Most that fetched checkpoints may take at one time, e.g. 12GB.")] = None
    """Most that fetched checkpoints may take on the disk at one time, such as ``12GB``; default: no bound."""
    ahead: Annotated[int, Field(ge=0, le=16)] = 2
    """Checkpoints fetched ahead of the one that is measured, at most."""
    keep: Annotated[bool, Option("Leave fetched checkpoints in the Hub client's cache.")] = False
    """Fetch into the Hub client's own cache, and leave them there; ``disk_budget`` must then be left out."""

    @model_validator(mode="after")
    def _one_way(self) -> FetchConfig:
        if self.keep and self.disk_budget is not None:
            raise ValueError("keep leaves every checkpoint on the disk, so it cannot have a disk_budget")
        return self

    @property
    def bytes(self) -> int | None:
        """The disk budget in bytes."""
        return None if self.disk_budget is None else parse_size(self.disk_budget)


class SeriesConfig(Table):
    """Which of a series' checkpoints are meant, where its names do not say it alone."""

    stages: Annotated[
        tuple[str, ...] | None,
        Option("Stages of training to read, separated by commas. Default: its main line, joined.", name="stage"),
    ] = None
    """Stages of training to read; default: its main line, joined."""
    seed: Annotated[str | None, Option("Which of several seeds or sizes in one repository.")] = None
    tokens_per_step: Annotated[Count | None, Option("Training tokens of an optimiser step.")] = None
    folder: Annotated[
        Path | None, Option("A folder of files that say how series of your own are named.", name="series_folder")
    ] = None


class AnalyzeConfig(Table):
    """A run of ``pythiageo analyze``."""

    kind: Literal["analyze"] = "analyze"
    """What the config is for."""
    name: Annotated[RunName, Option("Name of the run.")]
    target: str
    """A Hub repository (``EleutherAI/pythia-160m``), a folder of checkpoints, or a run folder."""
    regime: Annotated[Regime | None, Option("task-aligned, naturalistic or mix:P.")] = None
    """Default: what the run folder's manifest says, else naturalistic."""
    steps: Annotated[
        Steps, Option("all, log:12, every:1000, 0,1,2,512, 1000-20000:1000 or billa-2.8b. Default: all.")
    ] = "all"
    """``all``, ``log:12``, ``every:1000``, ``0,1,2,512``, ``1000-20000:1000`` or ``billa-2.8b``."""
    step_pattern: Annotated[
        str | None, Option("How revisions are named: a regular expression with a group (?P<step>...).")
    ] = None
    """How revisions or folders are named: a regular expression with a group ``step``, and ``tokens`` if they say so."""
    series: SeriesConfig = SeriesConfig()
    tokenizer: Annotated[
        str | None,
        Option("Take this tokenizer, for checkpoints without one of their own.", metavar="REPO_OR_FOLDER"),
    ] = None
    """A folder, a ``tokenizer.json`` or a Hub repository (``owner/name``, ``owner/name@revision``) whose tokenizer is
    taken for every checkpoint; default: each checkpoint's own."""
    audit: Annotated[
        bool, Option("Do not compare the weight files of the series first.", name="no_audit", sets=False)
    ] = True
    """Compare the weight files of the whole series first, and leave out steps that are not what their names say."""
    audit_values: Annotated[
        bool, Option("Read a few rows of the weights of every step first, too: 200 MB at most.")
    ] = False
    """Audit by value, too: a few rows of every step, at most 200 MB of the series, tell whether it continues others."""
    fetch: FetchConfig = FetchConfig()
    trust_revisions: Annotated[bool, Option("Measure suspect, ambiguous and mixed steps too.")] = False
    """Measure the steps too that the audit finds suspect, ambiguous or mixed."""
    harness: Annotated[
        tuple[str, ...], Option("Tasks that lm-evaluation-harness scores too, where it is installed, by commas.")
    ] = ()
    """Tasks of lm-evaluation-harness, whose scores by the harness itself are rows of the same table: as the tasks are
    there, in the same pass over the checkpoints. It must be installed (``pip install lm_eval``)."""
    protocol: Annotated[
        str | None, Option("What a published study measured, such as li-2025; what else is given wins.")
    ] = None
    """A measurement protocol, such as ``li-2025``: values of a published study for keys that are not given."""
    probes: ProbeConfig = ProbeConfig()
    measures: MeasureConfig = MeasureConfig()
    compute: ComputeConfig = ComputeConfig()

    @property
    def naming(self) -> Naming:
        """How the checkpoints are named, and which are meant. Raises ``UserError`` for a wrong pattern."""
        named = self.series
        return Naming(self.step_pattern, named.stages, named.seed, named.tokens_per_step, named.folder)


class FollowConfig(Table):
    """A run that follows somebody else's training, see ``api.callback``."""

    kind: Literal["follow"] = "follow"
    """What the config is for."""
    name: RunName
    """Name of the run, and of its folder in ``outputs/``."""
    regime: Regime = "naturalistic"
    """``task-aligned``, ``naturalistic`` or ``mix:P``: what the model is trained on, as tables say it."""
    size: str
    """What tables call the model."""
    seed: int | None = None
    """Seed of the training, as tables say it."""
    steps: Steps = "log:20"
    """Which steps of the training, as for ``analyze``, ``saves`` or ``given`` (a loop says when); its first is always
    measured, and its last where that is known."""
    weights: Literal["keep", "measure-only"] = "measure-only"
    """Whether the weights that are measured are kept in the run folder."""
    probes: ProbeConfig = ProbeConfig()
    measures: MeasureConfig = MeasureConfig()
    compute: ComputeConfig = ComputeConfig()

    @model_validator(mode="after")
    def _known_steps(self) -> FollowConfig:
        landscape = self.measures.landscape
        which = {"saves": "saved", "given": "measured"}.get(self.steps)
        if which and landscape.measures and landscape.steps != "all":
            raise ValueError(
                f"steps: which steps are {which} is not known before, so measures.landscape.steps must be 'all'"
            )
        return self


RunConfig = TrainConfig | AnalyzeConfig | FollowConfig
_KINDS: dict[str, type[RunConfig]] = {"train": TrainConfig, "analyze": AnalyzeConfig, "follow": FollowConfig}


def load_config(path: Path, overrides: list[str], kind: str) -> RunConfig:
    """Read a config file and lay ``--set`` overrides over it.

    ``path`` may also be the name of a config that came with pythiageo, such as ``demo/tasks.toml``.

    Raises:
        UserError: no such file, not TOML, a config of another kind, an unknown or misspelt key, a wrong value; the
            sentence names file, key and the nearest right one.
    """
    data = read_table(path, "config file", shipped=True)
    if data.get("kind", kind) != kind:
        raise UserError(f"{path}: kind is {data['kind']!r}, expected {kind!r}: is this a config for another command?")
    return make_config(data, overrides, kind, str(path))


def make_config(data: dict[str, Any], overrides: list[str], kind: str, origin: str) -> RunConfig:
    """Check a config given as a dictionary; ``origin`` is named in errors. Raises as ``load_config``."""
    for override in overrides:
        _apply(data, override)
    model = _KINDS[kind]
    if isinstance(name := data.get("protocol"), str) and "protocol" in model.model_fields:
        lay_under(data, name)
    return check_table(data, model, origin, RENAMED_KEYS)


def _apply(data: dict[str, Any], override: str) -> None:
    """Lay one ``a.b=c`` over ``data``; ``c`` is read as a TOML value, or else as a text."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"--set {override}: expected KEY.KEY=VALUE")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text
    *tables, last = key.split(".")
    for name in tables:
        data = data.setdefault(name, {})
        if not isinstance(data, dict):
            raise UserError(f"--set {override}: {name!r} is a value, not a table")
    data[last] = value
