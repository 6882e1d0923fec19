"""The tables that configs share: what is probed, what is measured, and how it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pythiageo.compute.device import count_cores, resolve_device
from pythiageo.config.fields import Count, Option, Size, Table, parse_size
from pythiageo.config.landscape import LandscapeConfig
from pythiageo.landscape.measures import LANDSCAPE_GROUPS, LANDSCAPE_MEASURES
from pythiageo.probes.passages import TOKENS, Passages, Way
from pythiageo.validation import matching

LINEAR_PROBE, SINKS = "linear_probe", "sinks"
MOST_PASSES = 8
"""Forward passes at a time, at most. Each is made by modules of its own, and those are made one after another, in 0.4 s
for a 160m shape: more would gain nothing. Sites are measured on all threads."""


def example_keys(count: Any) -> dict[str, Any]:
    """Return the config's keys for a number of examples: of scores and of geometry alike."""
    return {"probes.score_examples": count, "probes.geometry_examples": count}


class ProbeConfig(Table):
    """Which probe sets are measured. Scores are taken per level; geometry on levels mixed in equal parts."""

    tasks: Annotated[
        tuple[str, ...],
        Option("Tasks or groups (diagnostic), separated by commas. Default: the eight.", keyword=True),
    ] = ()
    """Names of tasks or groups (``diagnostic``); empty: the eight algorithmic tasks."""
    levels: tuple[str, ...] = ()
    """Levels to be scored; empty: every level of each task."""
    score_examples: Annotated[
        Count,
        Option(
            "Examples a task and level, and a task in all for geometry. Default: 200, or as many as there are.",
            name="examples",
            keys=example_keys,
            keyword=True,
        ),
    ] = 200
    """Examples a task and level; fewer of a task that has no more, unless the number is written here."""
    geometry_examples: Count = 200
    """Examples a task, all levels in equal parts; fewer likewise."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the probe sets: keep it, so that runs meet the same examples."""
    tasks_folder: Annotated[Path | None, Option("A folder of task files of your own.")] = None
    """A folder of task files beside pythiageo's own."""
    long_texts: Annotated[
        Way | None,
        Option(
            "Cut running text into passages: truncate, pack or stride. Default: it is fed whole, where it fits.",
            metavar="truncate|pack|stride",
        ),
    ] = None
    """How running texts are cut into passages, each fed whole: ``truncate`` (the first tokens of each text), ``pack``
    (texts one after another, in passages of one length) or ``stride`` (passages of each text, some tokens apart).
    Default: a text is fed but for its last token; one longer than the context is scored in windows alone."""
    text_tokens: Annotated[
        int | None, Field(ge=2), Option("Tokens of a passage of running text, at most. Default: 512.")
    ] = None
    """Tokens of a passage, at most; default with ``long_texts``: 512."""
    text_stride: Annotated[
        int | None, Field(ge=1), Option("Tokens between the starts of two passages, for stride. Default: half of them.")
    ] = None
    """Tokens between the starts of two passages, for ``stride``; default: half of ``text_tokens``."""

    @model_validator(mode="after")
    def _passages_in_order(self) -> ProbeConfig:
        if self.long_texts is None and self.text_tokens is not None:
            raise ValueError("text_tokens goes with long_texts: truncate, pack or stride")
        if self.long_texts != "stride" and self.text_stride is not None:
            raise ValueError("text_stride goes with long_texts = 'stride'")
        if self.text_stride is not None and self.text_stride >= (self.text_tokens or TOKENS):
            raise ValueError(
                f"text_stride: expected fewer than the {self.text_tokens or TOKENS} tokens of a passage, so that each "
                f"token has one before it, got {self.text_stride}"
            )
        return self

    @property
    def passages(self) -> Passages | None:
        """How running texts are cut into passages; ``None``: they are not."""
        if self.long_texts is None:
            return None
        tokens = self.text_tokens or TOKENS
        stride = (self.text_stride or max(1, tokens // 2)) if self.long_texts == "stride" else None
        return Passages(self.long_texts, tokens, stride)


class LinearProbeConfig(Table):
    """How next tokens are read from states by logistic regression."""

    splits: Annotated[tuple[Literal["example", "position"], ...], Field(min_length=1)] = ("example",)
    """``example``: positions of one example never on both sides. ``position``: the study's (billa-v4)."""
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share that is held out."""
    inverse_penalty: Annotated[float, Field(gt=0)] = 1.0
    """scikit-learn's C, on standardised states."""
    tolerance: Annotated[float, Field(gt=0)] = 1e-4
    """The solver's: where its gradient is smaller it stops."""
    iterations: Count = 500
    """The solver's, at most; a probe that is stopped there has the status ``not_converged``."""
    max_classes: Annotated[int, Field(ge=2)] = 256
    """More different next tokens than this are not fitted."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the split and of the control's order."""


def measure_keys(names: Sequence[str]) -> dict[str, Any]:
    """Return the config's keys for measures that are named together: geometry, landscape, and the two switches."""
    expensive = [name for name in names if name in {*LANDSCAPE_MEASURES, *LANDSCAPE_GROUPS}]
    keys: dict[str, Any] = {
        "measures.geometry": [name for name in names if name not in {*expensive, LINEAR_PROBE, SINKS}],
        "measures.landscape.measures": expensive,
    }
    if LINEAR_PROBE in names:
        keys["measures.linear_probe"] = True
    if SINKS in names:
        keys["measures.sinks"] = True
    return keys


class MeasureConfig(Table):
    """Which numbers are taken."""

    geometry: Annotated[
        tuple[str, ...],
        Option(
            "Measures, separated by commas: pythiageo measures lists them.",
            name="measures",
            keys=measure_keys,
            keyword=True,
        ),
    ] = ("rankme", "covariance_effective_rank", "participation_ratio")
    """Ranks and other measures of states, by name."""
    alpha_range: Annotated[
        tuple[Count, Count],
        Option("First and last rank of the fit of alpha_req. Default: 11,50.", metavar="FIRST,LAST"),
    ] = (11, 50)
    """First and last rank that ``alpha_req`` is fitted over; another range than 11 to 50 is in the measure's name,
    ``alpha_req_12_100``, and may be said by that name alone."""
    readouts: Annotated[tuple[str, ...], Option("Readouts, separated by commas. Default: all.", keyword=True)] = (
        "all",
    )
    """Which positions make the matrix, centred or not: ``answer/centred``; ``all``: the ten that leave out no sinks."""
    sites: Annotated[
        tuple[str, ...],
        Option("Hooks by name or pattern. Default: every resid_post, and the final LayerNorm.", keyword=True),
    ] = ()
    """Hook names of TransformerLens, or patterns such as ``blocks.*.hook_mlp_out``; empty: every resid_post and the
    final LayerNorm's output."""
    landscape: LandscapeConfig = LandscapeConfig()
    linear_probe: LinearProbeConfig | None = None
    """``true`` or a table of settings; default: none."""
    sinks: bool = False
    """Whether the measures of sinks are taken: norms of first and massive positions, and the sink rate of heads."""
    layers: Annotated[str, Option("all, or e.g. 0,3-5,last.", keyword=True)] = "all"
    """``all``, or layers and ranges of them such as ``0,3-5,last``; sites of other layers are left out."""
    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Resamples of the examples for the standard errors of geometry measures; 0: none. Each costs a spectrum. Measures
    that compare rows (mean_cosine, two_nn) have none of it: a resample pairs rows with themselves. Means over prompts
    know their own."""

    rows: Annotated[
        int, Field(ge=0, le=10**7), Option("Take ranks at this number of rows, too. Default: 0, at no other.")
    ] = 0
    """Rows at which every rank is taken, too, under the readout's name and ``/rows=N``: the mean over draws of whole
    examples. 0: at those that there are alone."""
    draws: Annotated[int, Field(ge=2, le=10_000)] = 20
    """Draws for ``rows``. Each costs a spectrum."""

    spectra: Annotated[bool, Option("Keep the singular values of every readout beside the table.")] = False
    """Keep the singular values of every readout beside the table (docs/similarity.md)."""
    sketch: Annotated[
        int, Field(ge=0, le=10_000), Option("Keep a sketch of so many rows of the states, such as 200. Default: none.")
    ] = 0
    """Keep a sketch of the states beside the table: so many rows of each of ``sketch_positions``, at most; 0: none."""
    sketch_positions: Annotated[tuple[str, ...], Field(min_length=1)] = ("answer", "mean")
    """Positions whose rows are sketched, as readouts name them: ``equals``, ``last`` and ``mean`` give one row an
    example, so that models of different tokenizers compare."""

    @field_validator("alpha_range")
    @classmethod
    def _enough_ranks(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[1] - value[0] < 9:
            raise ValueError(f"expected a first and a last rank, ten ranks at least, got {value[0]} and {value[1]}")
        return value

    @field_validator("linear_probe", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value


class ComputeConfig(Table):
    """How it is computed. Scores and geometry of an analysis have the same bits with any number of threads; trainings
    and landscape measures with the same number."""

    device: Annotated[
        str,
        matching(r"auto|cpu|split|cuda(:\d{1,3})?", "auto, cpu, cuda, cuda:1 or split"),
        Option("auto, cpu, cuda, cuda:1, or split: over all GPUs. Default: auto.", keyword=True),
    ] = "auto"
    """``cpu``, ``cuda`` or ``cuda:1``; ``auto`` takes the GPU where there is one; ``split`` divides a model
    over all GPUs."""
    dtype: Annotated[
        Literal["float32", "bfloat16"], Option("float32 or bfloat16, of the forward pass.", keyword=True)
    ] = "float32"
    """What forward passes of a saved checkpoint are computed in; measures are taken in float64 either way."""
    threads: Annotated[
        int | None, Field(ge=1, le=256), Option("Threads. Default: the cores there are.", keyword=True)
    ] = None
    """Of an analysis: how many forward passes and sites are worked on at a time, each on one thread; default: the
    cores there are, and one on a GPU or for a worker of a Ray cluster. Landscape measures divide each product among the
    number that is asked for, and take one by default. Of a training: default one, and for a model of d_model 512 or
    more the cores there are."""
    batch_tokens: Annotated[int, Field(ge=1)] = 2048
    """Greatest number of tokens in one forward pass of the probes; halved by itself when memory runs out. A pass over a
    prefix forest holds a quarter of it, 512 nodes at most. On a GPU eight times as many, and 2,048 nodes."""
    state_memory: Size = "1GB"
    """Most that the states of one task take at one time; more sites than fit are read in several rounds."""

    @property
    def on_cpu(self) -> bool:
        """Whether forward passes run on the CPU; a GPU by name may be another machine's."""
        return self.device == "cpu" or (self.device == "auto" and resolve_device("auto") == "cpu")

    @property
    def thread_count(self) -> int:
        """``threads``; by default the cores there are, one where forward passes run on a GPU."""
        return self.threads or (count_cores() if self.on_cpu else 1)

    @property
    def passes_at_once(self) -> int:
        """Forward passes that are made at a time, each on one thread: one on a GPU."""
        return min(self.thread_count, MOST_PASSES) if self.on_cpu else 1

    @property
    def state_bytes(self) -> int:
        """``state_memory`` in bytes."""
        return parse_size(self.state_memory)
