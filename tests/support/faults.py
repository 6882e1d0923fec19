"""Faults planted in a series: what is put where, and which steps are then not what their names say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from trajectories import Sample

from pythiageo.series.audit.samples import Samples
from pythiageo.series.audit.values import Stages, judge_values
from pythiageo.series.files.slices import EMBEDDING

Series = Mapping[int, Sample]


class Planted(NamedTuple):
    series: dict[int, Sample]
    wrong: frozenset[int]


class Others(NamedTuple):
    """Other trainings with the same steps: of another seed, and of the same initialisation on other data."""

    seed: Series | None
    data: Series | None


Fault = Callable[[Series, Others, torch.Generator], Planted | None]


def doubted(series: Series, stages: Stages | None = None) -> set[int]:
    """Return the steps that an audit by value doubts."""
    found = judge_values(Samples(series, {}, 0), stages)
    return {one.step for one in found.findings if one.doubted}


def cast(series: Series, dtype: torch.dtype) -> dict[int, Sample]:
    return {
        step: {role: rows._replace(values=rows.values.to(dtype)) for role, rows in sample.items()}
        for step, sample in series.items()
    }


def pick(series: Series, draw: torch.Generator, count: int, least: int = 1) -> list[int]:
    """Return some steps of at least ``least``, ascending."""
    there = [step for step in sorted(series) if step >= least]
    return sorted(there[int(one)] for one in torch.randperm(len(there), generator=draw)[:count])


def exchange(series: Series, others: Others, draw: torch.Generator) -> Planted:
    a, b = pick(series, draw, 2, 8)
    return Planted({**series, a: series[b], b: series[a]}, frozenset({a, b}))


def exchange_neighbours(series: Series, others: Others, draw: torch.Generator) -> Planted:
    steps = [step for step in sorted(series) if step >= 8]
    at = int(torch.randint(len(steps) - 1, (), generator=draw))
    a, b = steps[at : at + 2]
    return Planted({**series, a: series[b], b: series[a]}, frozenset({a, b}))


def repeat(series: Series, others: Others, draw: torch.Generator) -> Planted:
    (a,), last = pick(series, draw, 1, 8), max(series)
    b = next(one for one in (*pick(series, draw, 9, 8), last) if one != a)
    return Planted({**series, a: series[b]}, frozenset({a}))


def repeat_in_another_type(series: Series, others: Others, draw: torch.Generator) -> Planted:
    found = repeat(series, others, draw)
    [a] = found.wrong
    return Planted({**found.series, a: cast({a: found.series[a]}, torch.bfloat16)[a]}, found.wrong)


def end_first_shard(series: Series, others: Others, draw: torch.Generator) -> Planted:
    (a,) = (pick({**series, max(series): {}}, draw, 2, 8))[:1]
    return Planted({**series, a: {**series[a], EMBEDDING: series[max(series)][EMBEDDING]}}, frozenset({a}))


def take(of: str, to: str) -> Fault:
    """Return a fault that puts a step of another training (``of``) at an inner step, or its last one at step 0."""

    def plant(series: Series, others: Others, draw: torch.Generator) -> Planted | None:
        other = getattr(others, of) if of != "own" else series
        steps = sorted(series)
        if other is None or steps[0] != 0:
            return None
        if to == "start":
            return Planted({**series, 0: other[steps[-1]]}, frozenset({0}))
        if to == "all but the start":
            return Planted({**other, 0: series[0]}, frozenset({0}))
        (a,) = pick({step: series[step] for step in steps[1:-1]}, draw, 1, 64)
        return Planted({**series, a: other[a]}, frozenset({a}))

    return plant


FAULTS: dict[str, Fault] = {
    "two steps exchanged": exchange,
    "two neighbours exchanged": exchange_neighbours,
    "another step's weights": repeat,
    "another step's weights, in another type": repeat_in_another_type,
    "the last step's embedding": end_first_shard,
    "a step of another seed": take("seed", "inside"),
    "a step of the same initialisation, other data": take("data", "inside"),
    "step 0: the last step": take("own", "start"),
    "step 0: the last step of another seed": take("seed", "start"),
    "step 0: the last step of other data": take("data", "start"),
    "step 0 of another seed": take("seed", "all but the start"),
}
