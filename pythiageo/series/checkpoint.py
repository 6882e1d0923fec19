"""What a series yields: checkpoints that can be opened one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pythiageo.series.origin import Source

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class OpenCheckpoint:
    """A checkpoint in memory: raw weights, as saved, in float32, in evaluation mode.

    ``model`` is a plain ``torch`` module (for ``folder`` and ``hub`` a transformers causal language model).
    ``tokenizer_folder`` holds ``tokenizer.json``; ``None`` for a live model, whose tokenizer the caller knows.
    """

    model: nn.Module
    weight_sha: str
    architecture: str
    tokenizer_folder: Path | None
    nonfinite: str | None = None
    """Why the weights cannot be measured (which tensor holds NaN or infinity), or ``None``."""


class Checkpoint(Protocol):
    """One training step of a series."""

    @property
    def step(self) -> int:
        """Optimiser steps taken."""

    @property
    def tokens(self) -> int | None:
        """Training tokens seen, or ``None`` where the series does not say."""

    @property
    def label(self) -> str:
        """Where it is, for people: a revision or a folder name."""

    def describe(self, into: Path) -> Path:
        """Return a folder with its config and tokenizer; what must be fetched, but no weights, comes ``into`` one."""

    def source(self) -> Source:
        """Return what it is read from; for one on the Hub known once it was fetched."""

    def mapped(self) -> int:
        """Return the bytes of the files that are mapped whole while it is opened: ``.bin`` ones."""

    def open(self) -> OpenCheckpoint:
        """Load it. Raises ``CheckpointError`` when it cannot be read; NaN weights are told by ``nonfinite``."""


class Series(Protocol):
    """Ordered checkpoints of one model."""

    @property
    def name(self) -> str:
        """The run, folder or repository the checkpoints come from."""

    @property
    def size(self) -> str:
        """Size name, for people and tables."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences that whoever reads its numbers must know: what of it is not read, another name it has."""

    def steps(self) -> list[int]:
        """Steps the series has, ascending. Raises ``UserError`` if it has none or cannot be reached."""

    def checkpoints(self, steps: list[int]) -> Iterator[Checkpoint]:
        """Yield the checkpoints of these steps, in ascending order."""
