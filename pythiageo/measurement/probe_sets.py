"""The probe sets of a run, chosen, tokenized and laid out once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pythiageo.config.tables import ProbeConfig
from pythiageo.errors import UserError, nearest
from pythiageo.geometry.readout import Layout
from pythiageo.probes.encoding import Encoded, Tokenizer, encode_probe_set, encode_wrong, longest
from pythiageo.probes.probeset import ProbeSet, make_probe_set
from pythiageo.probes.task import MIXED, Task, get_levels, get_task, load_tasks
from pythiageo.study.tasks import DIAGNOSTIC, TASKS

GROUPS: dict[str, tuple[str, ...]] = {
    "algorithmic": TASKS,
    "algorithmic-fewshot": tuple(f"{name}-fewshot" for name in TASKS),
    "diagnostic": DIAGNOSTIC,
    "benchmarks": ("logical-deduction", "lambada", "sciq", "arc-easy", "piqa"),
}
"""Names that stand for several tasks. ``benchmarks`` are data sets on the Hub."""
SCORE, GEOMETRY = "score", "geometry"


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
