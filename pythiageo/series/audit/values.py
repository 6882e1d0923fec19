"""Whether the weights of steps are what their names say, as far as a few rows of two matrices tell.

A pure function from samples to findings, each with the numbers that led to it; docs/audit_errors.md has the rules, and
how often they are wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch

from pythiageo.series.audit.continuity import Misplaced, find_misplaced
from pythiageo.series.audit.relations import Relations, relate
from pythiageo.series.audit.rules import WARM_UP, name_steps
from pythiageo.series.audit.samples import Sample, Samples
from pythiageo.series.audit.start import Start, describe_start
from pythiageo.series.audit.weights import WeightRow, measure_rows

FINDINGS = (
    "not-read",
    "another-shape",
    "not-finite",
    "another-step",
    "another-initialisation",
    "out-of-order",
    "trained-start",
)
UNREAD, SHAPE, NONFINITE, REPEATED, UNRELATED, MISPLACED, TRAINED = FINDINGS
RELATED = 6.0
"""Standard deviations above which two matrices have an initialisation in common: of a million pairs that have none,
fewer than one lies there."""
_ROUNDING = 1e-6
"""Of a matrix's size: distances below it are of rounding."""
_LESS = 1.25
"""Step 0 was trained where its largest singular value stands out so much more than that of the next step."""

Stages = Mapping[int, str | None]


class Finding(NamedTuple):
    """What the values of a step say against its name. ``doubted``: whether the step is to be looked at for it.

    ``matrix``: of which matrix, ``None`` for all that were read. ``numbers``: what led to it, by name.
    """

    step: int
    kind: str
    matrix: str | None
    doubted: bool
    reason: str
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class ValueAudit:
    """What reading a few rows of each step has shown."""

    findings: tuple[Finding, ...]
    start: Mapping[str, Start]
    """By matrix what step 0 looks like; empty where there is none."""
    rows: tuple[WeightRow, ...]
    steps_read: int
    read_bytes: int

    def notes(self) -> list[str]:
        """Return what there is to say of the series as a whole."""
        notes = [f"{self.steps_read} steps were read by value, {self.read_bytes / 1e6:.1f} MB of them now"]
        if self.start and all(one.looks_initial for one in self.start.values()):
            each = ", ".join(f"{role} {one.shape}, sd {one.sd:.4g}" for role, one in self.start.items())
            notes.append(f"step 0 looks like an initialisation ({each})")
        return notes

    def only(self, steps: Collection[int]) -> ValueAudit:
        """Return what concerns these steps alone."""
        return replace(
            self,
            findings=tuple(one for one in self.findings if one.step in steps),
            rows=tuple(one for one in self.rows if one.step in steps),
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "steps_read": self.steps_read,
            "read_bytes": self.read_bytes,
            "findings": [{**one._asdict(), "numbers": dict(one.numbers)} for one in self.findings],
            "start": {role: one._asdict() for role, one in self.start.items()},
            "weights": [one._asdict() for one in self.rows],
        }


def judge_values(samples: Samples, stages: Stages | None = None) -> ValueAudit:
    """Return what a few rows of each step say; ``stages``: of steps, each stage judged for its own order.

    Order is told within a stage alone: a stage may begin anywhere on the way of the one before it. That a step is
    another's, or of another initialisation, is told over all.
    """
    findings = [Finding(step, UNREAD, None, False, f"not read by value: {why}", {}) for step, why in
                samples.unread.items()]  # fmt: skip
    kept, odd = _comparable(samples.by_step)
    findings += odd
    roles = sorted({role for sample in kept.values() for role in sample})
    steps = sorted(kept)
    relations = {role: relate([kept[step][role].values for step in steps]) for role in roles} if steps else {}
    repeated = list(_find_repeated(steps, kept, relations, stages or {}))
    findings += repeated
    gone = {one.step for one in repeated if one.doubted}
    strangers = list(_find_unrelated(steps, relations, gone))
    findings += strangers
    gone |= {one.step for one in strangers if one.matrix is None}
    findings += _find_disorder(steps, relations, gone | _same_as_before(steps, relations), stages or {})
    start = {role: describe_start(kept[0][role].values) for role in roles} if 0 in kept else {}
    findings += _judge_start(steps, kept, start, relations)
    order = sorted(findings, key=lambda one: (one.step, one.kind, one.matrix or ""))
    return ValueAudit(tuple(order), start, tuple(measure_rows(steps, kept, relations)), len(kept), samples.read_bytes)


def _comparable(by_step: Mapping[int, Sample]) -> tuple[dict[int, Sample], list[Finding]]:
    """Return the steps whose matrices have the shapes that most have and finite entries, and findings on the others."""
    shapes = {step: tuple((role, rows.shape) for role, rows in sorted(sample.items())) for step, sample in
              by_step.items()}  # fmt: skip
    found, kept = [], {}
    usual = Counter(shapes.values()).most_common(1)[0] if shapes else ((), 0)
    for step, sample in by_step.items():
        if shapes[step] != usual[0]:
            reason = f"its {_listed(shapes[step])}, and {usual[1]} others have {_listed(usual[0])}"
            found.append(Finding(step, SHAPE, None, True, reason, {"others": usual[1]}))
        elif bad := [role for role, rows in sample.items() if not bool(torch.isfinite(rows.values.float()).all())]:
            found.append(Finding(step, NONFINITE, bad[0], False, f"its {bad[0]} holds NaN or infinity", {}))
        else:
            kept[step] = sample
    return kept, found


def _find_repeated(
    steps: Sequence[int], kept: Mapping[int, Sample], relations: Mapping[str, Relations], stages: Stages
) -> Iterator[Finding]:
    """Yield the steps whose rows are those of another one; where that has a better claim, they alone.

    A stage may begin with the last weights of the one before it, and a training with steps that change nothing.

    Of one type they must be equal bit by bit, of two types as near as rounding to the coarser one leaves them.
    """
    equal = np.ones((len(steps), len(steps)), dtype=bool)
    for role, matrix in relations.items():
        types = [kept[step][role].values.dtype for step in steps]
        room = np.array([torch.finfo(dtype).eps for dtype in types]) * matrix.rms / 4
        other = np.array([[a != b for b in types] for a in types])
        equal &= matrix.distance <= np.where(other, np.maximum(room[:, None], room[None]), 0)
    seen: set[int] = set()
    for index in range(len(steps)):
        group = [int(other) for other in np.flatnonzero(equal[index])]
        if index in seen or len(group) < 2:
            continue
        seen.update(group)
        if group == list(range(len(group))) and steps[0] == 0 and steps[group[-1]] <= WARM_UP:
            continue
        if group == [index, index + 1] and stages.get(steps[index]) != stages.get(steps[index + 1]):
            continue
        costs = {one: _own_cost(one, [k for k in range(len(steps)) if k == one or k not in group], relations)
                 for one in group}  # fmt: skip
        least = min(costs.values())
        best = [one for one in group if costs[one] <= 1.5 * least]
        for one in group:
            others = [steps[other] for other in group if other != one]
            told = one not in best or len(best) > 1
            if told:
                why = f", where they fit best at step {steps[best[0]]}" if len(best) == 1 else ""
                reason = f"its rows are those of {name_steps(others)}{why}"
                yield Finding(steps[one], REPEATED, None, True, reason, {"cost": costs[one], "least_cost": least})


def _own_cost(index: int, among: Sequence[int], relations: Mapping[str, Relations]) -> float:
    """Return by how much visiting a step in its place makes the way through others longer, over all matrices."""
    place = among.index(index)
    near = [among[other] for other in (place - 1, place + 1) if 0 <= other < len(among)]
    total = 0.0
    for one in relations.values():
        cost = sum(float(one.distance[index, other]) for other in near)
        total += cost - (float(one.distance[near[0], near[1]]) if len(near) == 2 else 0)
    return total


def _same_as_before(steps: Sequence[int], relations: Mapping[str, Relations]) -> set[int]:
    """Return the steps that hold the rows of the one before: one observation, which counts once."""
    pairs = zip(range(len(steps)), range(1, len(steps)), strict=False)
    return {steps[b] for a, b in pairs if all(one.distance[a, b] == 0 for one in relations.values())}


def _find_unrelated(steps: Sequence[int], relations: Mapping[str, Relations], gone: set[int]) -> Iterator[Finding]:
    """Yield the steps that no chain of common initialisations joins to the others; then those of single matrices."""
    indices = [index for index, step in enumerate(steps) if step not in gone]
    if len(indices) < 2:
        return
    z = np.maximum.reduce([one.z for one in relations.values()])
    parts = _components(z > RELATED, indices)
    main = max(parts, key=lambda part: (len(part), part[-1]))
    for part in parts:
        for index in part if part is not main else ():
            near = min(main, key=lambda other: abs(other - index))
            cosine = max(float(one.cosine[index, near]) for one in relations.values())
            others = f" and {len(main) - 1} others" if len(main) > 1 else ""
            reason = (
                f"its weights have nothing in common with those of step {steps[near]}{others}: they do not come from "
                f"one initialisation"
            )
            yield Finding(steps[index], UNRELATED, None, True, reason,
                          {"nearest_step": steps[near], "cosine": cosine, "z": float(z[index, near])})  # fmt: skip
    for role, one in relations.items():
        for before, index, after in zip(main, main[1:], main[2:], strict=False):
            if max(one.z[before, index], one.z[index, after]) < RELATED < one.z[before, after]:
                reason = f"its {role} has nothing in common with those of the steps around it, which have"
                yield Finding(steps[index], UNRELATED, role, True, reason,
                              {"z": float(one.z[before, index]), "z_around": float(one.z[before, after])})  # fmt: skip


def _components(joined: np.ndarray, indices: Sequence[int]) -> list[list[int]]:
    parts: list[list[int]] = []
    left = set(indices)
    while left:
        part, waiting = set(), [min(left)]
        while waiting:
            one = waiting.pop()
            if one not in part:
                part.add(one)
                waiting += [other for other in left if joined[one, other] and other not in part]
        left -= part
        parts.append(sorted(part))
    return parts


def _find_disorder(
    steps: Sequence[int], relations: Mapping[str, Relations], gone: set[int], stages: Stages
) -> Iterator[Finding]:
    indices = [index for index, step in enumerate(steps) if step not in gone]
    for _, part in groupby(indices, key=lambda index: stages.get(steps[index])):
        stage = list(part)
        for role, one in relations.items():
            if not one.rms[stage].any():  # zeros throughout
                continue
            distance = one.distance[np.ix_(stage, stage)]
            for found in find_misplaced(distance, _ROUNDING * float(one.rms.max())):
                yield from _tell_misplaced(role, found, [steps[index] for index in stage], float(one.rms[stage].mean()))


def _tell_misplaced(role: str, found: Misplaced, steps: Sequence[int], size: float) -> Iterator[Finding]:
    step = steps[found.at]
    numbers = {"cost": found.cost / size, "best_cost": found.best / size}
    own = found.before == found.at - 1 and found.after == found.at + 1
    ratio = f"{found.cost / found.best:.1f} times" if found.best > 0 else "far more than"
    if own:
        reason = f"its {role} lies far off the way from step {steps[found.at - 1]} to {steps[found.at + 1]}: a "
        reason += f"detour of {ratio} the distance between these"
        yield Finding(step, MISPLACED, role, True, reason, numbers)
        return
    places = [None if place is None else steps[place] for place in (found.before, found.after)]
    where = (
        f"before step {places[1]}" if places[0] is None else
        f"after step {places[0]}" if places[1] is None else f"between steps {places[0]} and {places[1]}"
    )  # fmt: skip
    reason = f"its {role} fits {where}, and its own place costs {ratio} that one"
    yield Finding(step, MISPLACED, role, True, reason, numbers)
    neighbour = found.at + 1 if found.before == found.at + 1 else found.at - 1
    if neighbour in (found.before, found.after):
        told = f"its {role} and that of step {step} fit better the other way round"
        yield Finding(steps[neighbour], MISPLACED, role, True, told, numbers)


def _judge_start(
    steps: Sequence[int], kept: Mapping[int, Sample], start: Mapping[str, Start], relations: Mapping[str, Relations]
) -> Iterator[Finding]:
    same = _same_as_before(steps, relations)
    later = next((step for step in steps[1:] if step not in same), None)
    for role, one in start.items():
        if one.looks_initial:
            continue
        after = None if later is None else describe_start(kept[later][role].values)
        doubted = after is None or after.looks_initial or one.edge > _LESS * after.edge
        known = "" if doubted else "; so does the next step: training began from trained weights, or step 0 is later"
        reason = f"its {role} does not look like an initialisation: entries are not independent{known}"
        yield Finding(0, TRAINED, role, doubted, reason, {k: float(v) for k, v in one._asdict().items()})


def _listed(shapes: Sequence[tuple[str, tuple[int, ...]]]) -> str:
    return " and ".join(f"{role} is {' x '.join(map(str, shape))}" for role, shape in shapes)
