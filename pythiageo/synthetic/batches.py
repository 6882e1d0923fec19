"""Training batches: a pure function of seed and step, so that a resumed run sees what an uninterrupted one would."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pythiageo.probes.encoding import CharacterTokenizer, Encoded, encode_example
from pythiageo.probes.probeset import TRAIN_STREAM, draw, stream
from pythiageo.probes.task import GeneratorTask
from pythiageo.probes.tokenizer import BOS, PAD

IGNORED = -100
"""Target of positions that are not scored (torch's own convention)."""


class Piece(NamedTuple):
    """Examples of similar length, padded to the longest; ``targets`` are ``IGNORED`` where nothing is scored."""

    ids: Int[Tensor, "example position"]
    targets: Int[Tensor, "example position"]


class Batch(NamedTuple):
    """One optimiser step's examples, in pieces so that little is padded.

    ``tokens``: ids that are not padding; ``scored``: targets that are not ignored, the loss's denominator.
    """

    pieces: list[Piece]
    tokens: int
    scored: int


PIECES = 4

Batches = Callable[[int], Batch]
"""From the number of optimiser steps taken to the next batch."""


def task_batches(tasks: list[GeneratorTask], levels: list[str], batch_size: int, seed: int) -> Batches:
    """Return batches of examples, each of a (task, level) combination drawn uniformly; only answers are scored."""
    combinations = [(task, level) for task in tasks for level in levels]
    tokenizer = CharacterTokenizer()

    def batch(step: int) -> Batch:
        rng = stream(seed, TRAIN_STREAM, step)
        chosen = rng.integers(len(combinations), size=batch_size)
        drawn = [draw(task, level, rng) for task, level in (combinations[i] for i in chosen)]
        return _in_pieces([encode_example(example, tokenizer) for example in drawn])

    return batch


def _in_pieces(examples: list[Encoded]) -> Batch:
    """Sort by length and cut: half of a batch padded whole would be padding (64 examples: 67 ms a step, not 113)."""
    ordered = sorted(examples, key=lambda example: len(example.ids))
    size = -(-len(ordered) // PIECES)
    return Batch(
        pieces=[_pad(ordered[start : start + size]) for start in range(0, len(ordered), size)],
        tokens=sum(len(example.ids) for example in ordered),
        scored=sum(len(example.targets) for example in ordered),
    )


def _pad(examples: list[Encoded]) -> Piece:
    width = max(len(example.ids) for example in examples)
    ids = np.full((len(examples), width), PAD, dtype=np.int64)
    targets = np.full((len(examples), width), IGNORED, dtype=np.int64)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = example.ids
        targets[row, list(example.answer_positions)] = example.targets
    return Piece(torch.from_numpy(ids), torch.from_numpy(targets))


def text_batches(stored: np.ndarray, context: int, batch_size: int, seed: int) -> Batches:
    """Return windows of running text, ``[BOS]`` and ``context - 1`` characters; every next token is scored.

    ``stored`` (token): the text's ids. Windows begin anywhere, uniformly.
    """

    def batch(step: int) -> Batch:
        starts = stream(seed, TRAIN_STREAM, step).integers(len(stored) - context + 1, size=batch_size)
        return windows(stored, starts, context)

    return batch


def windows(stored: np.ndarray, starts: np.ndarray, context: int) -> Batch:
    """Return the windows of ``stored`` that begin at ``starts``, each behind a ``[BOS]``."""
    targets = stored[starts[:, None] + np.arange(context)].astype(np.int64)
    ids = np.concatenate([np.full((len(starts), 1), BOS, dtype=np.int64), targets[:, :-1]], axis=1)
    return Batch([Piece(torch.from_numpy(ids), torch.from_numpy(targets))], ids.size, targets.size)
