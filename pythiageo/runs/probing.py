"""The probe sets of a run, tokenized and laid out once, and read from any model that answers as a ``Reader``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.errors import UserError, nearest
from pythiageo.geometry.readout import Layout
from pythiageo.probes.encoding import Encoded, Tokenizer, encode_probe_set, encode_wrong, longest
from pythiageo.probes.probeset import ProbeSet, make_probe_set
from pythiageo.probes.scoring import Options, Predictions, predict
from pythiageo.probes.task import MIXED, Task, get_levels, get_task, load_tasks
from pythiageo.runs.config import ProbeConfig

ALGORITHMIC = ("COPY", "REV", "CMP", "PAR", "ADD", "MOD", "SORT", "MUL")
"""The study's eight tasks: what is probed and trained on when a config names none."""
DIAGNOSTIC = (
    "syntactic-agreement",
    "analogies",
    "arithmetic-fewshot",
    "in-context-labels",
    "facts",
    "syllogisms",
    "running-text",
)
"""The seven sets for language models."""
GROUPS: dict[str, tuple[str, ...]] = {
    "algorithmic": ALGORITHMIC,
    "algorithmic-fewshot": tuple(f"{name}-fewshot" for name in ALGORITHMIC),
    "diagnostic": DIAGNOSTIC,
    "benchmarks": ("logical-deduction", "lambada", "sciq", "arc-easy", "piqa"),
}
"""Names that stand for several tasks. ``benchmarks`` are data sets on the Hub."""
SCORE, GEOMETRY = "score", "geometry"
SCORED = 4096
"""Greatest number of positions in one forward pass at which logits are taken: 50,304 columns of them take 0.8 GB."""


class Reader(Protocol):
    """A model that gives states at named sites and logits: through TransformerLens, or live while it trains."""

    def sites(self) -> dict[str, int]:
        """Return hook names, in order of depth, with their layers."""

    def read(
        self,
        ids: Int[Tensor, "example position"],
        sites: list[str],
        logit_positions: Int[Tensor, " scored"] | None,
    ) -> tuple[dict[str, Float[Tensor, "example position d_model"]], Float[Tensor, "example scored vocab"] | None]:
        """Run one forward pass over examples of equal length."""


@dataclass(frozen=True)
class Probe:
    """A probe set and what is taken from it: ``score`` or ``geometry``."""

    probe_set: ProbeSet
    purpose: str


def choose_tasks(names: tuple[str, ...], config: ProbeConfig) -> list[Task]:
    """Return the tasks of these names and groups, each once (none named: the eight algorithmic ones).

    Raises:
        UserError: unknown task or group, or a task file with the name of a group.
    """
    tasks = load_tasks(config.tasks_folder)
    for group in GROUPS:
        if group in tasks:
            raise UserError(f"a task file defines {group!r}, which is the name of a group of tasks: rename the task")
    for name in names:
        if name not in tasks and name not in GROUPS:
            known = [*tasks, *GROUPS]
            raise UserError(
                f"no task {name!r}{nearest(name, known)}; there are {', '.join(tasks)}; and groups {', '.join(GROUPS)}"
            )
    chosen = [member for name in names or ("algorithmic",) for member in GROUPS.get(name, (name,))]
    return [get_task(tasks, name) for name in dict.fromkeys(chosen)]


def choose_probes(config: ProbeConfig) -> list[Probe]:
    """Return the probe sets of a run: each task and level to be scored, each task with mixed levels for geometry.

    With no level named, each task has all of its own. A level that a task does not have is an error unless another
    task that was chosen has it.

    Raises:
        UserError: unknown task or level, too few fixed items, or a data set that cannot be read.
        MachineError: a data set that cannot be fetched.
    """
    tasks = choose_tasks(config.tasks, config)
    probes = []
    for level in config.levels:
        if all(level not in task.levels for task in tasks):
            get_levels(tasks[0], level)
    for task in tasks:
        for level in config.levels or task.levels:
            if level in task.levels:
                probes.append(Probe(make_probe_set(task, level, config.score_examples, config.seed), SCORE))
        probes.append(Probe(make_probe_set(task, MIXED, config.geometry_examples, config.seed), GEOMETRY))
    return probes


def describe_probes(probes: list[Probe]) -> list[dict[str, Any]]:
    """Return what the manifest says of the probe sets."""
    return [
        {
            "task": probe.probe_set.task,
            "level": probe.probe_set.level,
            "purpose": probe.purpose,
            "rule": probe.probe_set.rule,
            "hash": probe.probe_set.sha,
            "examples": len(probe.probe_set.examples),
            "chance": probe.probe_set.chance,
            "majority_rate": probe.probe_set.majority_rate,
        }
        for probe in probes
    ]


@dataclass(frozen=True)
class Prepared:
    """A probe, tokenized for one tokenizer."""

    probe: Probe
    encoded: list[Encoded]
    """Every example with its right answer fed: what the geometry is taken of."""
    layout: Layout
    wrong: list[list[Encoded]]
    """Each example with each of its wrong continuations fed; used for scores alone."""


def prepare(probes: list[Probe], tokenizer: Tokenizer, context: int | None) -> list[Prepared]:
    """Tokenize the probe sets and find their positions.

    Raises:
        UserError: an example is longer than the model's ``context``, cannot be split into prompt and answer, or holds
            a text that the tokenizer cannot read.
    """
    return [_prepare(probe, tokenizer, context) for probe in probes]


def _prepare(probe: Probe, tokenizer: Tokenizer, context: int | None) -> Prepared:
    probe_set = probe.probe_set
    where = f"task {probe_set.task}, level {probe_set.level}"
    try:
        encoded = encode_probe_set(probe_set, tokenizer)
        wrong = [
            encode_wrong(example, right, tokenizer)
            for example, right in zip(probe_set.examples, encoded, strict=True)
            if probe.purpose == SCORE and example.wrong
        ]
    except ValueError as error:
        raise UserError(f"{where} cannot be read by this model's tokenizer: {error}") from None
    greatest = longest([*encoded, *(option for options in wrong for option in options)])
    if context is not None and greatest > context:
        raise UserError(f"{where}: an example takes {greatest} positions, but the model's context is {context}")
    layout = Layout.of(
        [len(e.ids) for e in encoded],
        [e.answer_positions for e in encoded],
        [e.equals_position for e in encoded],
    )
    return Prepared(probe, encoded, layout, wrong)


def _batches(encoded: list[Encoded], batch_tokens: int) -> Iterator[list[int]]:
    """Yield indices of examples of equal length, so that nothing is padded, ``batch_tokens`` at most together."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, example in enumerate(encoded):
        by_length[len(example.ids)].append(index)
    for length, indices in sorted(by_length.items()):
        size = max(1, batch_tokens // length)
        yield from (indices[start : start + size] for start in range(0, len(indices), size))


def read_states(
    reader: Reader, prepared: Prepared, sites: list[str], batch_tokens: int
) -> dict[str, Float[Tensor, "token d_model"]]:
    """Return the states at each site at every position of every example, the examples one after another."""
    lengths = prepared.layout.lengths
    starts = lengths.cumsum(0) - lengths
    states: dict[str, Tensor] = {}
    for indices in _batches(prepared.encoded, batch_tokens):
        ids = torch.tensor([prepared.encoded[i].ids for i in indices])
        read, _ = reader.read(ids, sites, None)
        rows = (starts[indices][:, None] + torch.arange(ids.shape[1])).flatten()
        for site, values in read.items():
            if site not in states:
                states[site] = torch.empty(int(lengths.sum()), values.shape[-1])
            states[site][rows] = values.flatten(0, 1)
    return states


def read_predictions(reader: Reader, encoded: list[Encoded], batch_tokens: int) -> Predictions:
    """Return what the logits at every answer position say of its token, the examples one after another.

    Logits are used batch by batch and never kept: those of 200 paragraphs would take 3 GB.

    Raises:
        NonfiniteLogitsError: logits that are not finite.
    """
    counts = torch.tensor([len(example.targets) for example in encoded])
    first = counts.cumsum(0) - counts
    log_prob = torch.empty(int(counts.sum()), dtype=torch.float64)
    hit = torch.empty(len(log_prob), dtype=torch.bool)
    for batch in _batches(encoded, batch_tokens):
        for indices in _few_scored(batch, encoded):
            ids = torch.tensor([encoded[i].ids for i in indices])
            wanted = sorted({p for i in indices for p in encoded[i].answer_positions})
            _, values = reader.read(ids, [], torch.tensor(wanted))
            assert values is not None
            column = {position: k for k, position in enumerate(wanted)}
            for row, index in enumerate(indices):
                start, positions = int(first[index]), [column[p] for p in encoded[index].answer_positions]
                rows = slice(start, start + len(positions))
                log_prob[rows], hit[rows] = predict(values[row, positions], torch.tensor(encoded[index].targets))
    return Predictions(log_prob, hit, torch.repeat_interleave(torch.arange(len(encoded)), counts))


def _few_scored(indices: list[int], encoded: list[Encoded]) -> Iterator[list[int]]:
    """Cut a batch so that at most ``SCORED`` logits are taken at once."""
    scored = len({p for i in indices for p in encoded[i].answer_positions})
    size = max(1, SCORED // scored)
    yield from (indices[start : start + size] for start in range(0, len(indices), size))


def read_options(reader: Reader, prepared: Prepared, batch_tokens: int) -> Options | None:
    """Return what the logits say of the wrong continuations, ``None`` where there are none.

    Raises:
        NonfiniteLogitsError: logits that are not finite.
    """
    if not prepared.wrong:
        return None
    examples = prepared.probe.probe_set.examples
    flat = [option for options in prepared.wrong for option in options]
    return Options(
        predictions=read_predictions(reader, flat, batch_tokens),
        example=torch.tensor([i for i, options in enumerate(prepared.wrong) for _ in options]),
        characters=_lengths([text for example in examples for text in example.wrong]),
        right_characters=_lengths([example.answer for example in examples]),
    )


def _lengths(texts: list[str]) -> Float[Tensor, " text"]:
    return torch.tensor([len(text.strip()) for text in texts], dtype=torch.float64)
