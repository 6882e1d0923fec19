"""Probe sets: the fixed examples of a task at a level, and the random streams they and training batches come from."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pythiageo.errors import UserError
from pythiageo.probes.generators import GENERATORS
from pythiageo.probes.task import MIXED, GeneratorTask, Task, get_levels

TRAIN_STREAM, PROBE_STREAM = 0, 1
"""First word of every stream's key: a training draw and a probe draw never share a stream."""


class Example(NamedTuple):
    """The text before the answer, the separating space included, and the answer."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class ProbeSet:
    """The fixed examples of one task at one level.

    ``sha`` is the content hash: sha256 over task name, version, level and every example's text, first 12 hex digits.
    It does not depend on the tokenizer, so runs of different models can be compared by it.
    """

    task: str
    level: str
    examples: tuple[Example, ...]
    chance: float
    sha: str

    @property
    def majority_rate(self) -> float:
        """Share of the most common answer among the examples."""
        return Counter(example.answer for example in self.examples).most_common(1)[0][1] / len(self.examples)


def stream(seed: int, *key: int | str) -> np.random.Generator:
    """Return the random stream of ``seed`` and ``key``; different keys give independent streams.

    Words are keyed by the first 8 bytes of their sha256, so that names can be part of a key.
    """
    numbers = [
        int.from_bytes(hashlib.sha256(part.encode()).digest()[:8], "big") if isinstance(part, str) else part
        for part in key
    ]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *numbers])))


def draw(task: GeneratorTask, level: str, rng: np.random.Generator) -> Example:
    """Draw one example of a generated task."""
    generator = GENERATORS[task.generator]
    shown, result = generator.function(rng, task.settings(level))
    return Example(task.prompt.format(input=shown), task.answer.format(output=result))


def make_probe_set(task: Task, level: str, examples: int, seed: int) -> ProbeSet:
    """Return the probe set of ``task`` at ``level`` (or ``mixed``), fixed by its arguments.

    A mixed set takes its levels in turn. Generated examples are drawn with replacement; a level of fixed items gives
    its first ones, and must have enough.

    Raises:
        UserError: unknown level, no example asked for, or more examples than a task of fixed items has.
    """
    if examples < 1:
        raise UserError(f"a probe set needs at least one example, got {examples}")
    levels = get_levels(task, level)
    counts = [examples // len(levels) + (i < examples % len(levels)) for i in range(len(levels))]
    columns = [_take(task, name, count, seed) for name, count in zip(levels, counts, strict=True)]
    chosen = tuple(column[i] for i in range(max(counts)) for column in columns if i < len(column))
    # a constant reply to a mixed set is right at most as often as the best replies to its levels together
    chance = sum(task.chance(name) * count for name, count in zip(levels, counts, strict=True)) / examples
    content = json.dumps([task.name, task.version, level, chosen], ensure_ascii=True, separators=(",", ":"))
    return ProbeSet(task.name, level, chosen, chance, hashlib.sha256(content.encode()).hexdigest()[:12])


def _take(task: Task, level: str, count: int, seed: int) -> list[Example]:
    if isinstance(task, GeneratorTask):
        rng = stream(seed, PROBE_STREAM, task.name, level)
        return [draw(task, level, rng) for _ in range(count)]
    items = task.levels[level].items
    if len(items) < count:
        raise UserError(
            f"task {task.name} has {len(items)} items at level {level}, but {count} were asked for: "
            f"lower the number of examples to {len(items) * (len(task.levels) if level == MIXED else 1)} or fewer"
        )
    return [Example(item.prompt, item.answer) for item in items[:count]]
