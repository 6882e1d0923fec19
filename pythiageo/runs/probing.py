"""The probe sets of a run, tokenized and laid out once, and read from any model that answers as a ``Reader``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.errors import UserError
from pythiageo.geometry.readout import Layout
from pythiageo.probes.encoding import Encoded, Tokenizer, encode_probe_set, longest
from pythiageo.probes.probeset import ProbeSet, make_probe_set
from pythiageo.probes.task import MIXED, Task, get_levels, get_task, load_tasks
from pythiageo.runs.config import ProbeConfig

ALGORITHMIC = ("COPY", "REV", "CMP", "PAR", "ADD", "MOD", "SORT", "MUL")
"""The study's eight tasks: what is probed and trained on when a config names none."""
SCORE, GEOMETRY = "score", "geometry"


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
    """Return the tasks of these names (none: the eight algorithmic ones)."""
    tasks = load_tasks(config.tasks_folder)
    return [get_task(tasks, name) for name in (names or ALGORITHMIC)]


def choose_probes(config: ProbeConfig) -> list[Probe]:
    """Return the probe sets of a run: each task and level to be scored, each task with mixed levels for geometry.

    A level that a task does not have is an error unless another task that was chosen has it.

    Raises:
        UserError: unknown task or level, or too few fixed items.
    """
    tasks = choose_tasks(config.tasks, config)
    probes = []
    for level in config.levels:
        if all(level not in task.levels for task in tasks):
            get_levels(tasks[0], level)
    for task in tasks:
        for level in config.levels:
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
            "hash": probe.probe_set.sha,
            "examples": len(probe.probe_set.examples),
            "chance": probe.probe_set.chance,
        }
        for probe in probes
    ]


@dataclass(frozen=True)
class Prepared:
    """A probe, tokenized for one tokenizer."""

    probe: Probe
    encoded: list[Encoded]
    layout: Layout
    targets: Int[Tensor, " answer_token"]
    example: Int[Tensor, " answer_token"]
    """Which example each answer token belongs to."""


def prepare(probes: list[Probe], tokenizer: Tokenizer, context: int | None) -> list[Prepared]:
    """Tokenize the probe sets and find their positions.

    Raises:
        UserError: an example is longer than the model's ``context``, or cannot be split into prompt and answer.
    """
    prepared = []
    for probe in probes:
        encoded = encode_probe_set(probe.probe_set, tokenizer)
        if context is not None and longest(encoded) > context:
            raise UserError(
                f"task {probe.probe_set.task}, level {probe.probe_set.level}: an example takes {longest(encoded)} "
                f"positions, but the model's context is {context}"
            )
        prepared.append(
            Prepared(
                probe=probe,
                encoded=encoded,
                layout=Layout.of(
                    [len(e.ids) for e in encoded],
                    [e.answer_positions for e in encoded],
                    [e.equals_position for e in encoded],
                ),
                targets=torch.tensor([target for e in encoded for target in e.targets]),
                example=torch.tensor([i for i, e in enumerate(encoded) for _ in e.targets]),
            )
        )
    return prepared


def _batches(prepared: Prepared, batch_tokens: int) -> Iterator[list[int]]:
    """Yield indices of examples of equal length, so that nothing is padded, ``batch_tokens`` at most together."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, example in enumerate(prepared.encoded):
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
    for indices in _batches(prepared, batch_tokens):
        ids = torch.tensor([prepared.encoded[i].ids for i in indices])
        read, _ = reader.read(ids, sites, None)
        rows = (starts[indices][:, None] + torch.arange(ids.shape[1])).flatten()
        for site, values in read.items():
            if site not in states:
                states[site] = torch.empty(int(lengths.sum()), values.shape[-1])
            states[site][rows] = values.flatten(0, 1)
    return states


def read_logits(reader: Reader, prepared: Prepared, batch_tokens: int) -> Float[Tensor, "answer_token vocab"]:
    """Return the logits at every answer position, the examples one after another."""
    first = torch.searchsorted(prepared.example, torch.arange(len(prepared.encoded)))
    logits: Tensor | None = None
    for indices in _batches(prepared, batch_tokens):
        ids = torch.tensor([prepared.encoded[i].ids for i in indices])
        wanted = sorted({p for i in indices for p in prepared.encoded[i].answer_positions})
        _, values = reader.read(ids, [], torch.tensor(wanted))
        assert values is not None
        column = {position: k for k, position in enumerate(wanted)}
        if logits is None:
            logits = torch.empty(len(prepared.targets), values.shape[-1])
        for row, index in enumerate(indices):
            positions = prepared.encoded[index].answer_positions
            start = int(first[index])
            logits[start : start + len(positions)] = values[row, [column[p] for p in positions]]
    assert logits is not None
    return logits
