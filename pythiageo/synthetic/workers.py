"""Several processes that train one model: each computes its share of every batch, all take the same step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor

from pythiageo.synthetic.batches import Batch


@dataclass(frozen=True)
class Workers:
    """This process among ``count``; the process group is the caller's to set up."""

    rank: int
    count: int

    def share(self, batch: Batch) -> Batch:
        """Return this process's examples; ``tokens`` and ``scored`` stay those of the whole batch, the loss's scale.

        Raises:
            ValueError: fewer examples than processes.
        """
        if len(batch.ids) < self.count:
            raise ValueError(f"a batch of {len(batch.ids)} examples cannot be shared by {self.count} processes")
        mine = slice(self.rank, None, self.count)
        return batch._replace(ids=batch.ids[mine], targets=batch.targets[mine])

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            torch.distributed.barrier()


ALONE = Workers(0, 1)
BARRIER_TIMEOUT = timedelta(hours=12)
"""How long the others wait while the first process measures a checkpoint."""


def count_processes() -> int:
    """Return the number of processes that a launcher says it started, 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join_workers() -> Workers:
    """Return this process among those started together, after all have found one another (gloo, on the CPU)."""
    if count_processes() == 1:
        return ALONE
    from accelerate import PartialState  # noqa: PLC0415 - takes a second, and is rarely wanted

    state = PartialState(cpu=True, timeout=BARRIER_TIMEOUT)
    return Workers(state.process_index, state.num_processes)
