"""What a small model is trained as: its shape, its data, its schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pythiageo.config.fields import Count, Option, Steps, Table

MOST_STEPS = 10_000_000
"""Steps of a training, at most: weeks for the smallest model, and each is a number in a list."""


class ModelConfig(Table):
    """Shape of the model to train: a size by name, any of its numbers replaced."""

    architecture: Literal["gpt2", "gpt_neox"] = "gpt2"
    """GPT-2's, or GPT-NeoX's, which is Pythia's."""
    size: str
    """``nano``, ``micro``, ``small``, ``medium``, ``large`` or ``xlarge``: the study's sizes."""
    layers: Count | None = None
    """Blocks; default: those of the size."""
    d_model: Count | None = None
    """Width of the residual stream; default: that of the size."""
    heads: Count | None = None
    """Attention heads of a block; default: those of the size."""
    d_ff: Count | None = None
    """Width of an MLP's hidden layer; default: that of the size."""
    context: Annotated[int, Field(ge=2)] = 48
    """Positions that the model can read."""
    bias: bool = False
    """Whether linear layers and LayerNorms have biases."""
    residual_scaling: bool = False
    """Divide the initial residual projections by sqrt(2 layers)."""


class DataConfig(Table):
    """What the model is trained on: the tasks, running text, or both in one stream."""

    source: Literal["tasks", "text", "mix"]
    """The tasks' examples, running text, or a stream of both."""
    task_share: Annotated[float, Field(ge=1e-4, le=0.9999)] | None = None
    """Share of the examples that are the tasks', for ``mix``. A window of text has many more scored tokens than an
    answer, and the loss is the mean over scored tokens."""
    tasks: tuple[str, ...] = ()
    """Task names; empty: the eight algorithmic tasks."""
    shuffled: tuple[str, ...] = ()
    """Of these tasks, those whose examples have another example's answer: a control, for they cannot be learned."""
    levels: tuple[str, ...] = ("L1", "L2", "L3")
    """Levels of the tasks that are trained on."""
    holdout: Annotated[float, Field(ge=0, le=0.95)] = 0.0
    """Share of every task's prompts that training never draws, by a hash of the prompt: the same in every run."""
    corpus: tuple[Path, ...] = ()
    """Text files; empty: the reference topics and docstrings of Python's library."""


class TrainingConfig(Table):
    """The optimiser loop. Defaults are the study's; ``steps`` and ``peak_lr`` default to those of the size."""

    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    """Length of the schedule (the cosine reaches 0 there)."""
    stop: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    """Stop after this many steps of it; default: all."""
    batch_size: Count = 64
    """Examples of a step."""
    peak_lr: Annotated[float, Field(gt=0)] | None = None
    """Learning rate at the end of the warm-up; default: that of the size."""
    warmup: Annotated[int, Field(ge=0)] = 1000
    """Steps in which the learning rate rises from 0."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """AdamW's decay rates of the two moments."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """AdamW's, on matrices alone."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Greatest norm of a step's gradient."""
    checkpoints: Annotated[
        Steps, Option("Steps at which a checkpoint is measured and saved: 0-1000:100, or 0,1,2,4.")
    ] = "0-10000:100,10000-50000:500,50000-1000000:2000"
    """Steps at which a checkpoint is measured and saved (``0-1000:100``, ``0,1,2,4``); the last step always is."""
    weights: Annotated[
        Literal["keep", "measure-only"],
        Option("Keep each checkpoint's weights, or not.", metavar="keep|measure-only"),
    ] = "keep"
    """Whether each checkpoint's weights are kept; the state that a resumed run starts from always is."""
    tensorboard: Annotated[bool, Option("Write TensorBoard's event files too.")] = False
    """Write TensorBoard's event files too, into the run's folder."""
    dtype: Annotated[Literal["float32", "bfloat16"], Option("Of a training step's matrix products.")] = "float32"
    """Of the matrix products of a step; weights, gradients, moments and everything that is measured stay float32."""
    cuda_graphs: bool | None = None
    """Whether a step is recorded once as a CUDA graph and replayed; by default on every GPU."""
    freeze_block: Annotated[
        int | None, Option("Block that stands still at first: 0 the first, -1 the last.", metavar="K")
    ] = None
    """Block that stands still at first: 0 is the input block, -1 the output block."""
    freeze_until: Annotated[int, Field(ge=0), Option("For how many steps.", metavar="STEP")] = 0
    """Steps for which it does."""

    @model_validator(mode="after")
    def _freeze(self) -> TrainingConfig:
        if (self.freeze_block is None) != (self.freeze_until == 0):
            raise ValueError("freeze_block and freeze_until belong together: which block, and for how many steps")
        return self
