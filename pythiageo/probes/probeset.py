"""Probe sets: the fixed examples of a task at a level, and the random streams they and training batches come from."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pythiageo.errors import UserError
from pythiageo.probes.generators import GENERATORS
from pythiageo.probes.kinds import EXACT, MINIMAL_PAIR, TEXT, DatasetTask, GeneratorTask, Item, Task
from pythiageo.probes.passages import Passages
from pythiageo.probes.rows import read_rows
from pythiageo.probes.task import get_levels

TRAIN_STREAM, PROBE_STREAM = 0, 1
"""First word of every stream's key: a training draw and a probe draw never share a stream."""


class Example(NamedTuple):
    """The text before the answer, the separating space included, and the answer; running text is all answer.

    ``wrong``: the other continuations that the answer is compared with. ``place``: the answer's index among the options
    that the prompt lists, -1 where it lists none.
    """

    prompt: str
    answer: str
    wrong: tuple[str, ...] = ()
    place: int = -1


@dataclass(frozen=True)
class ProbeSet:
    """The fixed examples of one task at one level.

    ``sha`` is the content hash: sha256 over task name, version, level and every example's text, over the rule where it
    is not ``exact``, and over ``passages`` where there are any; first 12 hex digits. It does not depend on the
    tokenizer, so runs of different models can be compared by it. ``chance`` is ``None`` for running text.
    ``generated``: drawn by a generator. ``levels`` says which level each example of a mixed set was drawn at; empty
    means that all are of one. ``asked``: how many examples were to be taken, where there are fewer. ``passages``: how
    running texts are fed, where a run asks for it.
    """

    task: str
    level: str
    rule: str
    examples: tuple[Example, ...]
    chance: float | None
    sha: str
    generated: bool = False
    levels: tuple[str, ...] = ()
    asked: int | None = None
    passages: Passages | None = None

    @property
    def fewer(self) -> str | None:
        """That there are fewer examples than were to be taken, as a sentence; ``None`` where there are not."""
        if self.asked is None:
            return None
        parts = " in equal parts of its levels" if self.levels else ""
        return (
            f"task {self.task}, level {self.level}: {len(self.examples)} examples, as many as there are{parts}, "
            f"not {self.asked}"
        )

    @property
    def majority_rate(self) -> float | None:
        """Share of the most common answer among the examples, or of its most common place where that is larger.

        ``None`` for running text, which has no answers.
        """
        return None if self.rule == TEXT else get_majority_rate(self.examples)


def get_majority_rate(examples: Sequence[Example]) -> float:
    """Return how often the best constant reply is right: one answer's text, or one place in a list of options.

    >>> get_majority_rate([Example("2 + 2 = ", "4"), Example("1 + 3 = ", "4"), Example("1 + 1 = ", "2")])
    0.6666666666666666
    """
    texts = Counter(example.answer for example in examples)
    places = Counter(example.place for example in examples if example.place >= 0)
    return max([*texts.values(), *places.values()]) / len(examples)


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
    """Draw one example of a generated task; with shots, solved examples of other inputs come before it.

    Raises:
        UserError: the level has too few different inputs for that many shots.
    """
    generator, settings = GENERATORS[task.generator], task.settings(level)
    shown, result = generator.function(rng, settings)
    asked = task.prompt.format(input=shown)
    solved: dict[str, str] = {}
    for _ in range(1000 * task.shots):
        if len(solved) == task.shots:
            break
        other, solution = generator.function(rng, settings)
        if other != shown:
            solved[other] = task.prompt.format(input=other) + task.answer.format(output=solution) + task.separator
    if len(solved) < task.shots:
        raise UserError(
            f"task {task.name} asks for {task.shots} shots beside the scored example, but level {level} has too few "
            f"different inputs: lower shots"
        )
    return Example("".join(solved.values()) + asked, task.answer.format(output=result))


def count_domain(task: Task, level: str) -> int | None:
    """Return how many different questions a generated task has at a level; ``None`` for other kinds.

    Of few-shot prompts: how many different ones are asked, whatever is shown before them.
    """
    if not isinstance(task, GeneratorTask):
        return None
    return GENERATORS[task.generator].count(task.settings(level))


def make_probe_set(
    task: Task, level: str, examples: int, seed: int, exactly: bool = True, passages: Passages | None = None
) -> ProbeSet:
    """Return the probe set of ``task`` at ``level`` (or ``mixed``), fixed by its arguments.

    A mixed set takes its levels in turn. Generated examples are drawn with replacement; a level of fixed items or of a
    data set gives its first ones. Where it has too few, as many are taken as there are, of all levels in equal parts;
    or none, if ``exactly`` this number is wanted. ``passages``: for running text alone.

    Raises:
        UserError: unknown level, no example asked for, ``exactly`` more than there are, or a data set that cannot be
            read.
        MachineError: a data set that cannot be fetched.
    """
    if examples < 1:
        raise UserError(f"a probe set needs at least one example, got {examples}")
    levels = get_levels(task, level)
    columns = [_take(task, name, _share(examples, i, len(levels)), seed) for i, name in enumerate(levels)]
    # a level's share of n examples is in it where n is at most this
    fitting = [len(levels) * len(column) + i for i, column in enumerate(columns)]
    lacking = [i for i, column in enumerate(columns) if len(column) < _share(examples, i, len(levels))]
    asked, examples = examples, min([examples, *(fitting[i] for i in lacking)])
    if lacking and (exactly or not examples):
        scarce = min(lacking, key=lambda i: fitting[i])
        raise UserError(
            f"task {task.name} has {len(columns[scarce])} items at level {levels[scarce]}, but "
            f"{_share(asked, scarce, len(levels))} were asked for"
            + (f": lower the number of examples to {examples} or fewer" if examples else "")
        )
    counts = [_share(examples, i, len(levels)) for i in range(len(levels))]
    turns = [(name, i) for i in range(max(counts)) for name, count in zip(levels, counts, strict=True) if i < count]
    chosen = tuple(columns[levels.index(name)][i] for name, i in turns)
    # a constant reply to a mixed set is right at most as often as the best replies to its levels together
    chances = [(task.chance(name), count) for name, count in zip(levels, counts, strict=True)]
    known = [chance * count for chance, count in chances if chance is not None]
    passages = passages if task.rule == TEXT else None
    content: list[Any] = [task.name, task.version, level, [_content(example) for example in chosen]]
    content += [] if task.rule == EXACT else [task.rule]
    content += [] if passages is None else [passages.as_json()]
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return ProbeSet(
        task=task.name,
        level=level,
        rule=task.rule,
        examples=chosen,
        chance=sum(known) / examples if known else None,
        sha=hashlib.sha256(text.encode()).hexdigest()[:12],
        generated=isinstance(task, GeneratorTask),
        levels=tuple(name for name, _ in turns) if len(levels) > 1 else (),
        asked=asked if examples < asked else None,
        passages=passages,
    )


def _share(examples: int, place: int, levels: int) -> int:
    """Return how many of all examples are of the level at this place."""
    return examples // levels + (place < examples % levels)


def _content(example: Example) -> list[str | list[str]]:
    wrong = [list(example.wrong)] if example.wrong else []
    return [example.prompt, example.answer, *wrong]


def _take(task: Task, level: str, count: int, seed: int) -> Sequence[Example]:
    """Return the first examples of a level; fewer, where there are not as many."""
    if isinstance(task, GeneratorTask):
        rng = stream(seed, PROBE_STREAM, task.name, level)
        return [draw(task, level, rng) for _ in range(count)]
    if isinstance(task, DatasetTask):
        return [Example(*row) for row in read_rows(task, level, count)]
    return [to_example(item, task) for item in task.levels[level].items[:count]]


def to_example(item: Item, task: Task) -> Example:
    """Return an item as an example of its task."""
    if task.rule == TEXT:
        return Example("", item.text or "")
    prompt, answer = item.prompt or "", item.answer or ""
    if task.rule == MINIMAL_PAIR:
        return Example(prompt, answer, (item.wrong or "",))
    wrong = tuple(option for option in item.options if option != answer)
    return Example(prompt, answer, wrong, item.options.index(answer) if task.listed else -1)
