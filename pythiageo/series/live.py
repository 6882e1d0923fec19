"""The training series: checkpoints of a model that trains as they are asked for. The optimiser loop is the caller's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pythiageo.series.checkpoint import OpenCheckpoint

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LiveCheckpoint:
    """A model in training, as it stands at ``step``: valid until the next checkpoint is asked for."""

    step: int
    tokens: int | None
    label: str
    model: nn.Module
    weight_sha: str
    architecture: str
    nonfinite: str | None

    def open(self) -> OpenCheckpoint:
        """Return the model itself."""
        return OpenCheckpoint(self.model, self.weight_sha, self.architecture, None, self.nonfinite)


class TrainingSeries:
    """Checkpoints from ``produce``, which trains up to each of ``steps`` in turn."""

    def __init__(self, name: str, size: str, steps: list[int], produce: Iterable[LiveCheckpoint]) -> None:
        self._name = name
        self._size = size
        self._steps = steps
        self._produce = produce

    @property
    def name(self) -> str:
        """The run's name."""
        return self._name

    @property
    def size(self) -> str:
        """Size name."""
        return self._size

    def steps(self) -> list[int]:
        """Return the steps at which training hands out a checkpoint, ascending."""
        return list(self._steps)

    def checkpoints(self, steps: list[int]) -> Iterator[LiveCheckpoint]:
        """Yield the checkpoints of ``steps``, training on in between.

        Raises:
            RuntimeError: training ended early, or came to steps out of order: an error of the producer.
        """
        wanted = list(steps)
        last = -1
        for checkpoint in self._produce:
            if checkpoint.step <= last:
                raise RuntimeError(f"training produced step {checkpoint.step} after step {last}")
            last = checkpoint.step
            if wanted and checkpoint.step == wanted[0]:
                wanted.pop(0)
                yield checkpoint
        if wanted:
            raise RuntimeError(f"training ended before step {wanted[0]}")
