"""Batches drawn ahead by other processes: drawing one takes longer than a GPU takes for a step of a small model."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from pythiageo.synthetic.batches import Batch, Batches

PROCESSES = 4
"""Each draws some 700 batches of 64 examples a second."""
TOGETHER = 8
"""Batches that come in one message: one by one they take the receiver 0.5 ms each."""
AHEAD = 3
"""Messages that each process prepares ahead."""
_Plain = tuple[Any, ...]
"""A batch with arrays in place of tensors."""


class Prefetched:
    """``batches`` of consecutive steps, drawn ahead; asking for any other step begins anew there."""

    def __init__(self, batches: Batches, processes: int | None = None) -> None:
        self._messages = _Messages(batches)
        self._processes = processes or max(1, min(PROCESSES, (os.cpu_count() or 1) - 1))
        self._next = -1
        self._drawn: Iterator[Batch] = iter(())

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step."""
        if step != self._next:
            self._drawn = self._draw(step)
        self._next = step + 1
        return next(self._drawn)

    def _draw(self, step: int) -> Iterator[Batch]:
        messages = DataLoader(
            self._messages,
            batch_size=None,
            sampler=itertools.count(step, TOGETHER),
            num_workers=self._processes,
            prefetch_factor=AHEAD,
            collate_fn=_leave,
            multiprocessing_context="fork",  # batches are closures; these processes never touch the GPU
        )
        for message in messages:
            for ids, targets, *rest in message:
                yield Batch(torch.from_numpy(ids).long(), torch.from_numpy(targets).long(), *rest)


class _Messages(Dataset[list[_Plain]]):
    """Consecutive batches as arrays: tensors would each take a file descriptor to send."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __getitem__(self, step: int) -> list[_Plain]:
        drawn = [self._batches(number) for number in range(step, step + TOGETHER)]
        return [(ids.int().numpy(), targets.int().numpy(), *rest) for ids, targets, *rest in drawn]


def _leave(message: list[_Plain]) -> list[_Plain]:
    return message
