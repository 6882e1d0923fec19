"""The rows of a readout prompt by prompt, and numbers of one prompt's rows averaged over prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pythiageo.geometry.matrix import EPS
from pythiageo.geometry.rounding import Rounding, unit_of
from pythiageo.no_value import NoValueError

CHUNK = 2**20
"""Numbers of float64 that are worked on at a time: prompts of one length go together, as many as fit."""


class Batch(NamedTuple):
    """Prompts of one length: which they are, their rows in float64, and the size of each row's rounding."""

    prompts: Int[Tensor, " prompt"]
    rows: Float[Tensor, "prompt row d_model"]
    rounded: Float[Tensor, "prompt row"]


class Taken(NamedTuple):
    """A number of each prompt of a batch; how far rounding of the rows may move it; and whether it has one at all."""

    values: Float[Tensor, " prompt"]
    rounded: Float[Tensor, " prompt"]
    defined: Bool[Tensor, " prompt"]


class PromptMean(NamedTuple):
    """The mean of a number over prompts, its standard error, how far rounding may move it, and what it rests on.

    ``note`` says which prompts are left out and why, in words; it is empty where none is.
    """

    value: float
    stderr: float | None
    rounded: float
    prompts: int
    note: str


@dataclass(frozen=True)
class Prompts:
    """Rows of a site, one prompt's after another's.

    ``states`` (row, d_model), in any type; ``lengths`` (prompt), on the CPU: how many rows each prompt has.
    ``rounding`` (row): the size of the rounding of each row.
    """

    states: Float[Tensor, "row d_model"]
    lengths: Int[Tensor, " prompt"]
    rounding: Float[Tensor, " row"]

    @classmethod
    def of(cls, matrices: Sequence[Float[Tensor, "_ d_model"]]) -> Prompts:
        """Return the prompts whose rows these matrices are, one each."""
        states = torch.cat(list(matrices))
        lengths = torch.tensor([len(matrix) for matrix in matrices], dtype=torch.long, device="cpu")
        return cls(states, lengths, Rounding(states, unit_of(states.dtype)).rows)

    def batches(self, least: int) -> Iterator[Batch]:
        """Yield the prompts of at least so many rows, those of one length together.

        Raises:
            NoValueError: there is none.
        """
        starts = self.lengths.cumsum(0) - self.lengths
        lengths = sorted({int(length) for length in self.lengths if length >= least})
        if not lengths:
            raise NoValueError(
                f"no prompt has {least} rows or more: take positions that give a prompt several, such as all"
            )
        device = self.states.device
        for length in lengths:
            places = torch.arange(length, device=device)
            for part in (self.lengths == length).nonzero().flatten().split(self._most(length)):
                rows = starts[part].to(device)[:, None] + places
                yield Batch(part, self.states[rows].double(), self.rounding[rows])

    def average(self, least: int, take: Callable[[Batch], Taken], undefined: str) -> PromptMean:
        """Return the mean over prompts of what ``take`` gives for each.

        Args:
            least: rows that a prompt must have; one with fewer is left out, and the note says so.
            take: the number of each prompt of a batch.
            undefined: why a prompt has none, in words.

        Raises:
            NoValueError: no prompt has one.
        """
        taken = [take(batch) for batch in self.batches(least)]
        values, rounded, defined = (torch.cat(parts).cpu() for parts in zip(*taken, strict=True))
        count = int(defined.sum())
        if not count:
            raise NoValueError(f"of {len(values):,} prompts none has a value: {undefined}")
        values = values[defined]
        stderr = float(values.std()) / count**0.5 if count > 1 else None
        note = self.describe_left_out(len(defined) - count, undefined, least)
        return PromptMean(float(values.mean()), stderr, float(rounded[defined].mean()), count, note)

    def describe_left_out(self, count: int, undefined: str, least: int) -> str:
        """Return in words how many prompts have no number, and how many fewer rows than ``least``; empty if none."""
        left_out = [(count, undefined), (int((self.lengths < least).sum()), f"fewer than {least} rows")]
        said = [f"{number:,} of {len(self.lengths):,} prompts left out: {why}" for number, why in left_out if number]
        return "; ".join(said)

    def _most(self, length: int) -> int:
        return max(1, CHUNK // (length * self.states.shape[1]))


def scale_to_one(batch: Batch) -> tuple[Batch, Bool[Tensor, " prompt"]]:
    """Return each prompt's rows over its largest number, and whether any of its numbers is other than zero."""
    size = batch.rows.abs().amax(dim=(1, 2))
    defined = size > 0
    scale = torch.where(defined, size, 1.0)
    return batch._replace(rows=batch.rows / scale[:, None, None], rounded=batch.rounded / scale[:, None]), defined


def unit_rows(batch: Batch) -> tuple[Batch, Bool[Tensor, " prompt"]]:
    """Return each prompt's rows without their mean and of length one, and whether every row has a direction then.

    A row that is the mean but for rounding has none.
    """
    scaled, _ = scale_to_one(batch)
    varying = scaled.rows - scaled.rows.mean(dim=1, keepdim=True)
    norms = torch.linalg.vector_norm(varying, dim=2)
    directed = norms > EPS * varying.shape[1] * varying.shape[2] ** 0.5
    norms = torch.where(directed, norms, 1.0)
    units = batch._replace(rows=varying / norms[:, :, None], rounded=scaled.rounded / norms)
    return units, directed.all(dim=1)
