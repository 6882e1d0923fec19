"""The tables that configs share: what is probed, what is measured, and how it is computed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_size(text: str) -> int:
    """Return the bytes that ``500MB`` or ``12GB`` stand for. Raises ``ValueError`` for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)", text.strip().upper())
    if match is None:
        raise ValueError(f"expected a size such as 500MB or 12GB, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2]])


def _readable_size(text: str) -> str:
    parse_size(text)
    return text


def _regime(name: str) -> str:
    known = re.fullmatch(r"task-aligned|naturalistic|mix:(0\.\d{1,6})", name)
    if known is None or (known[1] is not None and name != f"mix:{float(known[1]):g}"):
        raise ValueError(f"expected task-aligned, naturalistic or a mixture such as mix:0.1, got {name!r}")
    return name


def _step_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


Size = Annotated[str, AfterValidator(_readable_size)]
Steps = Annotated[str, BeforeValidator(_step_text)]
"""A selection of steps; of one step alone the number will do."""
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
Count = Annotated[int, Field(ge=1)]
Regime = Annotated[str, AfterValidator(_regime)]
"""``task-aligned``, ``naturalistic``, or ``mix:0.1``: a stream of text, a tenth of whose examples are the tasks'."""


class Table(BaseModel):
    """A table of a config: unknown keys are refused, and nothing changes after it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ProbeConfig(Table):
    """Which probe sets are measured. Scores are taken per level; geometry on levels mixed in equal parts."""

    tasks: tuple[str, ...] = ()
    """Names of tasks or groups (``diagnostic``); empty: the eight algorithmic tasks."""
    levels: tuple[str, ...] = ()
    """Levels to be scored; empty: every level of each task."""
    score_examples: Count = 200
    """Examples a task and level."""
    geometry_examples: Count = 200
    """Examples a task, all levels in equal parts."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the probe sets: keep it, so that runs meet the same examples."""
    tasks_folder: Path | None = None
    """A folder of task files beside pythiageo's own."""


class HessianConfig(Table):
    """How the Hessian is measured."""

    k: Count = 5
    """Largest eigenvalues."""
    probes: Annotated[int, Field(ge=2)] = 10
    """Random vectors for the trace."""
    keep_graph: bool = True
    """Keep the gradient's graph: twice as fast; without it, far less memory."""


class LlcConfig(Table):
    """How the local learning coefficient is estimated: named settings, any of their values replaced."""

    setting: str = "billa"
    """``billa`` (the study's, n_beta = 1), ``billa-beta`` (beta = 1) or ``theory`` (n_beta = n / log n)."""
    n_beta: Annotated[float, Field(gt=0)] | None = None
    beta: Annotated[float, Field(gt=0)] | None = None
    gamma: Annotated[float, Field(ge=0)] | None = None
    step: Annotated[float, Field(gt=0)] | None = None
    draws: Annotated[int, Field(ge=2)] | None = None
    burn_in: Annotated[int, Field(ge=0)] | None = None
    chains: Count | None = None
    batch: Count | None = None
    rmsprop: bool | None = None
    baseline: str | None = None


class LandscapeConfig(Table):
    """Which landscape measures are taken, and of what. They cost hours for a large model: few steps, one task."""

    measures: tuple[str, ...] = ()
    """Names that ``pythiageo measures`` lists under landscape."""
    steps: Steps = "log:5"
    """Which of the run's steps, as for ``steps``."""
    tasks: tuple[str, ...] = ()
    """Which of the run's tasks, on their geometry probe set; empty: the first one."""
    examples: Count = 200
    """Examples of it, at most."""
    parameters: tuple[str, ...] = ("*",)
    """Names or patterns of the parameters; the rest is frozen. Recorded in every row."""
    per_layer: bool = False
    """Take every measure once a block, restricted to its parameters."""
    batch: Count = 10
    """Examples a batch of the gradient covariance."""
    seed: Annotated[int, Field(ge=0)] = 0
    hessian: HessianConfig = HessianConfig()
    llc: LlcConfig = LlcConfig()

    @model_validator(mode="after")
    def _one_restriction(self) -> LandscapeConfig:
        if self.per_layer and self.parameters != ("*",):
            raise ValueError("per_layer chooses the parameters, so parameters must be left out")
        return self


class LinearProbeConfig(Table):
    """How next tokens are read from states by logistic regression."""

    splits: Annotated[tuple[Literal["example", "position"], ...], Field(min_length=1)] = ("example",)
    """``example``: positions of one example never on both sides. ``position``: the study's (billa-v4)."""
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    inverse_penalty: Annotated[float, Field(gt=0)] = 1.0
    """scikit-learn's C, on standardised states."""
    tolerance: Annotated[float, Field(gt=0)] = 1e-4
    iterations: Count = 500
    max_classes: Annotated[int, Field(ge=2)] = 256
    """More different next tokens than this are not fitted."""
    seed: Annotated[int, Field(ge=0)] = 0


class MeasureConfig(Table):
    """Which numbers are taken."""

    geometry: tuple[str, ...] = ("rankme", "covariance_effective_rank", "participation_ratio")
    readouts: tuple[str, ...] = ("all",)
    sites: tuple[str, ...] = ()
    """Hook names of TransformerLens, or patterns such as ``blocks.*.hook_mlp_out``; empty: every resid_post and the
    final LayerNorm's output."""
    landscape: LandscapeConfig = LandscapeConfig()
    linear_probe: LinearProbeConfig | None = None
    """``true`` or a table of settings; default: none."""
    layers: str = "all"
    """``all``, or layers and ranges of them such as ``0,3-5,last``; sites of other layers are left out."""
    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Resamples of the examples for the standard errors of geometry measures; 0: none. Each costs a spectrum. Measures
    that compare rows (mean_cosine, two_nn) have none of it: a resample pairs rows with themselves."""

    @field_validator("linear_probe", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value


class ComputeConfig(Table):
    """How it is computed. The same threads give the same bits."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|split|cuda(:\d{1,3})?)$")] = "auto"
    """``cpu``, ``cuda`` or ``cuda:1``; ``auto`` takes the GPU where there is one; ``split`` divides a model
    over all GPUs."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What forward passes of a saved checkpoint are computed in; measures are taken in float64 either way."""
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    """Default: one, and for training a model of ``WIDE`` or more as many as there are cores (docs/training.md)."""
    batch_tokens: Annotated[int, Field(ge=1)] = 2048
    """Greatest number of tokens in one forward pass of the probes; halved by itself when memory runs out."""
    state_memory: Size = "1GB"
    """Most that the states of one probe set take at one time; more sites than fit are read in several passes."""

    @property
    def thread_count(self) -> int:
        """``threads``, one by default."""
        return self.threads or 1

    @property
    def state_bytes(self) -> int:
        """``state_memory`` in bytes."""
        return parse_size(self.state_memory)
