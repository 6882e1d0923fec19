"""Training batches: a pure function of seed and step, so that a resumed run sees what an uninterrupted one would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pythiageo.probes.encoding import CharacterTokenizer, Encoded, encode_example
from pythiageo.probes.probeset import TRAIN_STREAM, Example, draw, stream
from pythiageo.probes.task import GeneratorTask
from pythiageo.probes.tokenizer import BOS, PAD
from pythiageo.synthetic.exposure import is_held_out

IGNORED = -100
"""Target of positions that are not scored (torch's own convention)."""


class Batch(NamedTuple):
    """One optimiser step's examples, padded at the end to the longest.

    ``targets`` are ``IGNORED`` where nothing is scored. ``tokens``: ids that are not padding; ``scored``: targets that
    are not ignored, the loss's denominator. ``prompts``: of the tasks' examples, in any order.
    """

    ids: Int[Tensor, "example position"]
    targets: Int[Tensor, "example position"]
    tokens: int
    scored: int
    prompts: tuple[str, ...] = ()


Batches = Callable[[int], Batch]
"""From the number of optimiser steps taken to the next batch."""
_TOKENIZER = CharacterTokenizer()


@dataclass(frozen=True)
class TaskMix:
    """The (task, level) combinations that examples are drawn from, uniformly.

    ``shuffled`` tasks have the answer of another example of the same task and level, so that nothing can be learned of
    them but how answers are distributed: a control. ``holdout``: share of all prompts that are never drawn, by
    ``is_held_out``: an example that is one of them is drawn anew.
    """

    tasks: tuple[GeneratorTask, ...]
    levels: tuple[str, ...]
    shuffled: frozenset[str] = frozenset()
    holdout: float = 0.0

    def examples(self, count: int, rng: np.random.Generator) -> Batch:
        """Return ``count`` examples, padded to the longest; only answers are scored."""
        combinations = [(task, level) for task in self.tasks for level in self.levels]
        chosen = rng.integers(len(combinations), size=count)
        examples = [self._draw_example(combinations[i], rng) for i in chosen]
        batch = pad([encode_example(example, _TOKENIZER) for example in examples])
        return batch._replace(prompts=tuple(example.prompt for example in examples))

    def _draw_example(self, combination: tuple[GeneratorTask, str], rng: np.random.Generator) -> Example:
        task, level = combination
        example = draw(task, level, rng)
        while is_held_out(example.prompt, self.holdout):
            example = draw(task, level, rng)
        if task.name not in self.shuffled:
            return example
        return example._replace(answer=draw(task, level, rng).answer)


def task_batches(mix: TaskMix, batch_size: int, seed: int) -> Batches:
    """Return batches of examples of tasks."""
    return lambda step: mix.examples(batch_size, stream(seed, TRAIN_STREAM, step))


def pad(examples: list[Encoded]) -> Batch:
    """Return examples as one batch."""
    width = max(len(example.ids) for example in examples)
    ids = np.full((len(examples), width), PAD, dtype=np.int64)
    targets = np.full((len(examples), width), IGNORED, dtype=np.int64)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = example.ids
        targets[row, list(example.answer_positions)] = example.targets
    return Batch(
        ids=torch.from_numpy(ids),
        targets=torch.from_numpy(targets),
        tokens=sum(len(example.ids) for example in examples),
        scored=sum(len(example.targets) for example in examples),
    )


def text_batches(stored: np.ndarray, context: int, batch_size: int, seed: int) -> Batches:
    """Return windows of running text, ``[BOS]`` and ``context - 1`` characters; every next token is scored.

    ``stored`` (token): the text's ids. Windows begin anywhere, uniformly.
    """

    def batch(step: int) -> Batch:
        starts = stream(seed, TRAIN_STREAM, step).integers(len(stored) - context + 1, size=batch_size)
        return cut_windows(stored, starts, context)

    return batch


def mixed_batches(mix: TaskMix, stored: np.ndarray, context: int, batch_size: int, share: float, seed: int) -> Batches:
    """Return batches whose every example is one of the tasks' with probability ``share``, else a window of text.

    Each kind is drawn as ``task_batches`` and ``text_batches`` draw it. All scored tokens count the same: with ``a``
    of them in a mean answer, the tasks have ``share a / (share a + (1 - share) context)`` of the loss.
    """

    def batch(step: int) -> Batch:
        rng = stream(seed, TRAIN_STREAM, step)
        count = int((rng.random(batch_size) < share).sum())
        parts = [mix.examples(count, rng)] if count else []
        starts = rng.integers(len(stored) - context + 1, size=batch_size - count)
        parts += [cut_windows(stored, starts, context)] if len(starts) else []
        return Batch(
            ids=_stack([part.ids for part in parts], PAD),
            targets=_stack([part.targets for part in parts], IGNORED),
            tokens=sum(part.tokens for part in parts),
            scored=sum(part.scored for part in parts),
            prompts=tuple(prompt for part in parts for prompt in part.prompts),
        )

    return batch


def _stack(parts: list[Tensor], filler: int) -> Tensor:
    """Return matrices under one another, filled up at the end to one width."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1]), value=filler) for part in parts])


def cut_windows(stored: np.ndarray, starts: np.ndarray, context: int) -> Batch:
    """Return the windows of ``stored`` that begin at ``starts``, each behind a ``[BOS]``."""
    targets = stored[starts[:, None] + np.arange(context)].astype(np.int64)
    ids = np.concatenate([np.full((len(starts), 1), BOS, dtype=np.int64), targets[:, :-1]], axis=1)
    return Batch(torch.from_numpy(ids), torch.from_numpy(targets), ids.size, targets.size)
