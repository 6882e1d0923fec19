"""The probe sets of a run, chosen, tokenized and laid out once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from pythiageo.config.tables import ProbeConfig
from pythiageo.errors import UserError, nearest, shorten
from pythiageo.geometry.readout import Layout
from pythiageo.probes.context import cut_left, windows
from pythiageo.probes.cut_passages import Cut, cut_probe_set
from pythiageo.probes.encoding import Encoded, Tokenizer, encode_compared, encode_example, longest
from pythiageo.probes.kinds import TEXT
from pythiageo.probes.probeset import Example, ProbeSet, make_probe_set
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
_REASONS = 3
"""Items whose reason is told, of those that are left out; all of them are named by number."""


@dataclass(frozen=True)
class Probe:
    """A probe set and what is taken from it: ``score`` or ``geometry``."""

    probe_set: ProbeSet
    purpose: str

    @property
    def key(self) -> tuple[str, str]:
        """Task and level, by which a run tells its probes apart."""
        return self.probe_set.task, self.probe_set.level


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
        UserError: unknown task or level, fewer items than the config says itself, or a data set that cannot be read.
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
                probes.append(Probe(_probe_set(task, level, config, "score_examples"), SCORE))
        probes.append(Probe(_probe_set(task, MIXED, config, "geometry_examples"), GEOMETRY))
    return probes


def _probe_set(task: Task, level: str, config: ProbeConfig, key: str) -> ProbeSet:
    """Return a probe set of the number of examples under ``key``; of fewer only if nobody chose that number."""
    exactly = key in config.model_fields_set
    return make_probe_set(task, level, getattr(config, key), config.seed, exactly, config.passages)


def list_prompts(probes: list[Probe]) -> list[str]:
    """Return the different prompts of the generated probe sets: those that training on tasks may meet."""
    sets = [probe.probe_set for probe in probes if probe.probe_set.generated]
    return list(dict.fromkeys(example.prompt for probe_set in sets for example in probe_set.examples))


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
            "asked": probe.probe_set.asked or len(probe.probe_set.examples),
            "chance": probe.probe_set.chance,
            "majority_rate": probe.probe_set.majority_rate,
            **({"passages": cut.as_json()} if (cut := probe.probe_set.passages) is not None else {}),
        }
        for probe in probes
    ]


@dataclass(frozen=True)
class LeftOut:
    """An item that cannot be measured with a tokenizer and a context; ``number``: its place in its set, from 1."""

    number: int
    reason: str


@dataclass(frozen=True)
class Prepared:
    """A probe, tokenized for one tokenizer."""

    probe: Probe
    encoded: list[Encoded]
    """Every example that is kept with its right answer fed: what the geometry is taken of."""
    layout: Layout
    """Where the states that are kept lie."""
    wrong: list[list[Encoded]]
    """Each example with each of its wrong continuations fed; used for scores alone."""
    kept: tuple[int, ...]
    """Which of the probe set's examples these are, from 0; of packed texts, for each passage the one it begins in."""
    left_out: tuple[LeftOut, ...] = ()
    cut: tuple[int, ...] = ()
    """Numbers, from 1, of the items that are longer than the context and scored all the same."""
    owner: tuple[int, ...] | None = None
    """Which example each of ``encoded`` belongs to, where a long text is read in several windows or passages."""
    passages: Cut | None = None
    """How the texts were cut into passages, where they were."""
    places: Int[Tensor, " kept"] | None = None
    """The positions of whose states anything is read, flat; ``None``: all. Only they are kept, and in ``layout``."""

    def thin_out(self, positions: Collection[str] | None) -> Prepared:
        """Return it with the states kept that some positions take, all for ``None``; see ``Layout.thin_out``."""
        if positions is None or self.probe.purpose == SCORE or not self.encoded:
            return self
        places, layout = self.layout.thin_out("answer" in positions)
        return self if len(places) == self.tokens else replace(self, layout=layout, places=places)

    @property
    def lengths(self) -> Int[Tensor, " example"]:
        """Number of positions of each of ``encoded``."""
        return torch.tensor([len(one.ids) for one in self.encoded], dtype=torch.long)

    @property
    def tokens(self) -> int:
        """Number of positions of all of ``encoded``."""
        return sum(len(one.ids) for one in self.encoded)

    @property
    def examples(self) -> tuple[Example, ...]:
        """The examples that are kept."""
        return tuple(self.probe.probe_set.examples[index] for index in self.kept)

    @property
    def options(self) -> list[Encoded]:
        """All wrong continuations, example by example."""
        return [option for options in self.wrong for option in options]

    @property
    def loss(self) -> str | None:
        """Which items are left out and why, ``None`` if none is."""
        if not self.left_out:
            return None
        names = name_items([item.number for item in self.left_out])
        reasons: dict[str, int] = {}
        for item in self.left_out:
            reasons.setdefault(item.reason, item.number)
        said = [f"item {number}: {shorten(reason, 300)}" for reason, number in list(reasons.items())[:_REASONS]]
        more = f"; and {len(reasons) - _REASONS} reasons more" if len(reasons) > _REASONS else ""
        of = f"{len(self.left_out)} of {len(self.probe.probe_set.examples)}"
        return f"{of} items left out ({names}); {'; '.join(said)}{more}"

    @property
    def cuts(self) -> str | None:
        """Which items are not fed whole, ``None`` if all are; of texts that are cut into passages, how."""
        if self.passages is not None:
            return self.passages.summary if self.passages.told else None
        if not self.cut:
            return None
        how = "texts are read in windows of" if self.probe.probe_set.rule == TEXT else "prompts are cut on the left to"
        return f"{len(self.cut)} of {len(self.kept)} {how} the model's context ({name_items(self.cut)})"


def prepare(probes: list[Probe], tokenizer: Tokenizer, context: int | None, strict: bool = True) -> list[Prepared]:
    """Tokenize the probe sets and find their positions.

    Texts are cut into passages if their probe set says how. Where it is not ``strict``, an item that cannot be measured
    is left out, and one longer than ``context`` is scored as lm-evaluation-harness does: a prompt is cut on the left, a
    running text is read in windows. Items of a generator are left out then, and all from geometry.

    Raises:
        UserError: ``strict``, and an example is longer than the model's ``context``, cannot be split into prompt and
            answer, or holds a text that the tokenizer cannot read.
    """
    return [_prepare(probe, tokenizer, context, strict) for probe in probes]


def _prepare(probe: Probe, tokenizer: Tokenizer, context: int | None, strict: bool) -> Prepared:
    if probe.probe_set.passages is not None:
        return _prepare_passages(probe, tokenizer, context, strict)
    encoded: list[Encoded] = []
    wrong: list[list[Encoded]] = []
    owner, kept, cut = list[int](), list[int](), list[int]()
    left_out: list[LeftOut] = []
    for index, example in enumerate(probe.probe_set.examples):
        try:
            parts, others, whole = _encode(probe, example, tokenizer, context, strict)
        except (UserError, ValueError) as error:
            if strict:
                raise _refusal(probe, index + 1, error) from None
            left_out.append(LeftOut(index + 1, str(error)))
            continue
        owner += [len(kept)] * len(parts)
        kept.append(index)
        encoded += parts
        wrong += [others] if others else []
        cut += [] if whole else [index + 1]
    windowed = tuple(owner) if len(owner) > len(kept) else None
    return Prepared(probe, encoded, _lay_out(encoded), wrong, tuple(kept), tuple(left_out), tuple(cut), windowed)


def _prepare_passages(probe: Probe, tokenizer: Tokenizer, context: int | None, strict: bool) -> Prepared:
    cut = cut_probe_set(probe.probe_set, tokenizer, context)
    left_out = tuple(LeftOut(number + 1, reason) for number, reason in sorted(cut.refused.items()))
    if strict and left_out:
        raise _refusal(probe, left_out[0].number, UserError(left_out[0].reason))
    return Prepared(probe, cut.encoded, _lay_out(cut.encoded), [], cut.kept, left_out, (), cut.owner, cut)


def _lay_out(encoded: list[Encoded]) -> Layout:
    lengths, equals = [len(one.ids) for one in encoded], [one.equals_position for one in encoded]
    return Layout.of(lengths, [one.answer_positions for one in encoded], equals)


def _encode(
    probe: Probe, example: Example, tokenizer: Tokenizer, context: int | None, strict: bool
) -> tuple[list[Encoded], list[Encoded], bool]:
    """Return the right answer (in several windows, for a long text), the wrong ones, and whether all is fed whole.

    Raises:
        UserError, ValueError: it cannot be measured so.
    """
    rule = probe.probe_set.rule
    wrong: list[Encoded] = []
    if probe.purpose == SCORE and example.wrong:
        right, wrong = encode_compared(example, tokenizer, rule)
    else:
        right = encode_example(example, tokenizer, rule)
    greatest = longest([right, *wrong])
    if context is None or greatest <= context:
        return [right], wrong, True
    if strict or probe.purpose != SCORE or probe.probe_set.generated:
        raise UserError(f"takes {greatest} positions, but the model's context is {context}")
    if rule == TEXT:
        return list(windows(right, context)), wrong, False
    return [cut_left(right, context)], [cut_left(one, context) for one in wrong], False


def _refusal(probe: Probe, number: int, error: Exception) -> UserError:
    where = f"task {probe.probe_set.task}, level {probe.probe_set.level}"
    if not isinstance(error, UserError):
        return UserError(f"{where} cannot be read by this model's tokenizer: {error} (item {number})")
    return UserError(f"{where}, item {number}: {error}")


def check_left(prepared: Sequence[Prepared]) -> None:
    """Refuse probe sets of which nothing is left.

    Raises:
        UserError: the first one.
    """
    for one in prepared:
        if not one.kept:
            probe_set = one.probe.probe_set
            where = f"task {probe_set.task}, level {probe_set.level}"
            raise UserError(f"{where}: this model can take none of its items: {one.loss}")


def notes(prepared: Sequence[Prepared]) -> list[str]:
    """Return where there are fewer items than are usual, and which are left out or not fed whole, a sentence each."""
    found = too_few([one.probe for one in prepared])
    for one in prepared:
        where = f"task {one.probe.probe_set.task}, level {one.probe.probe_set.level}, {one.probe.purpose}"
        found += [f"{where}: {said}" for said in (one.loss, one.cuts) if said is not None]
    return found


def too_few(probes: Sequence[Probe]) -> list[str]:
    """Return where there are fewer items than are usual, a sentence each."""
    return [fewer for probe in probes if (fewer := probe.probe_set.fewer) is not None]


def name_items(numbers: Sequence[int]) -> str:
    """Return ascending numbers of items, with ranges where they follow one another: ``items 2, 5-9``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    shown = ", ".join(f"{low}" if low == high else f"{low}-{high}" for low, high in ranges)
    return f"item {shown}" if len(numbers) == 1 else f"items {shown}"
