"""Precursor: does a task's measure move before that task is acquired, more often than before another task is?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pythiageo.claims.crosscorrelation import lag_peaks
from pythiageo.claims.evidence import Evidence, earliest_by_task, steps_by_task
from pythiageo.claims.result import Specification
from pythiageo.stats.resampling import bootstrap_weights, both_tails, label_orders, percentile_interval

LEADS, SYNCHRONOUS, LAGS, NO_RELATION = "leads", "synchronous", "lags", "no relation"
RELATIONS = (LEADS, SYNCHRONOUS, LAGS, NO_RELATION)
MIN_CORRELATION = 0.3
"""v1: a peak at or below this is no relation."""


@dataclass(frozen=True)
class Pairing:
    """One measure of every task against the acquisition of every task, within one run and level.

    ``relation[i, j]`` is an index of ``RELATIONS`` for the measure of task ``i`` and the acquisition of task ``j``, or
    -1 where one of them was not found. ``lead_steps`` and ``lead_checkpoints`` say by how much (positive: the measure
    is first), ``peak`` is v1's correlation at that lag (NaN under the other rules). All are ``(tasks, tasks)``.
    ``moved`` and ``acquired``, ``(tasks,)``, are the two steps (NaN under v1, which knows none). ``not_before``,
    ``(tasks,)``: the step before which a transition that was not seen certainly was not, NaN elsewhere. An acquisition
    up to it is not led: it counts as ``lags``, without an amount.
    """

    run: tuple[Any, ...]
    level: str | None
    measure: str
    tasks: tuple[str, ...]
    relation: np.ndarray
    lead_steps: np.ndarray
    lead_checkpoints: np.ndarray
    peak: np.ndarray
    moved: np.ndarray
    acquired: np.ndarray
    not_before: np.ndarray


def pairings(evidence: Evidence, specification: Specification, measure: str) -> list[Pairing]:
    """Return the pairings of one measure, one a run and level, under the specification's rule."""
    if specification.rule == "v1":
        return _correlated(evidence, specification, measure)
    transitions = evidence.moves(specification, measure)
    moved = steps_by_task(transitions, specification)
    unseen = earliest_by_task(transitions, specification, evidence.timelines)
    acquired = steps_by_task(evidence.acquisitions(specification), specification)
    result = []
    for run in sorted((moved.keys() | unseen.keys()) & acquired.keys(), key=str):
        timeline = evidence.timelines[run]
        for level in sorted({level for _, level in acquired[run]}, key=str):
            here, late = moved.get(run, {}), unseen.get(run, {})
            named = {task for task, _ in (*here, *late)} | {task for task, at in acquired[run] if at == level}
            tasks = tuple(sorted(named))
            first = np.array([_of(here, task, level) for task in tasks], dtype=float)
            bound = np.array([_of(late, task, level) for task in tasks], dtype=float)
            bound[np.isfinite(first)] = np.nan
            then = np.array([acquired[run].get((task, level), np.nan) for task in tasks], dtype=float)
            steps = then[None, :] - first[:, None]
            places = _place(timeline, then)[None, :] - _place(timeline, first)[:, None]
            apart = steps if specification.rule == "v4" else places
            window = 0 if specification.rule == "v4" else specification.k
            after = then[None, :] <= bound[:, None]
            relation = np.select([after, np.isnan(apart), apart > window, apart < -window], [2, -1, 0, 2], 1)
            peak = np.full_like(steps, np.nan)
            result.append(Pairing(run, level, measure, tasks, relation, steps, places, peak, first, then, bound))
    return result


def _of(found: dict[tuple[str, str | None], int], task: str, level: str | None) -> float:
    """Return the transition of a task: of this level, else of its levels mixed, else the only one it has."""
    at = {known: step for (name, known), step in found.items() if name == task}
    if level in at:
        return at[level]
    if "mixed" in at:
        return at["mixed"]
    return next(iter(at.values())) if len(at) == 1 else np.nan


def _place(timeline: np.ndarray, steps: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(steps), np.nan, np.searchsorted(timeline, np.nan_to_num(steps)))


def _correlated(evidence: Evidence, specification: Specification, measure: str) -> list[Pairing]:
    result = []
    for peaks in lag_peaks(evidence, specification, measure):
        weak = ~(np.abs(peaks.r) > MIN_CORRELATION)
        relation = np.select([weak, peaks.lags < 0, peaks.lags > 0], [3, 0, 2], 1)
        relation = np.where(peaks.acquired[None, :], relation, -1)
        places = np.where(weak, np.nan, -peaks.lags)
        steps = np.where(weak, np.nan, -peaks.lags * peaks.spacing)
        unknown = np.full(len(peaks.tasks), np.nan)
        parts = (relation, steps, places, peaks.r, unknown, unknown, unknown)
        result.append(Pairing(peaks.run, peaks.level, measure, peaks.tasks, *parts))
    return result


@dataclass(frozen=True)
class RateTest:
    """How often a measure leads its own task's acquisition, and how often another task's.

    ``rate`` over ``n`` own pairs, its bootstrap ``interval`` over tasks and models; ``null`` over pairs of different
    tasks, of the very acquisitions that have an own pair; ``p`` and ``p_below``: share of permutations of the task
    labels whose rate over these acquisitions is at least, and at most, as high.
    """

    rate: float | None
    interval: tuple[float, float] | None
    null: float | None
    null_pairs: int
    p: float | None
    n: int
    models: int
    tasks: int = 0
    p_below: float | None = None


def rate_test(found: list[Pairing], specification: Specification, of: set[str]) -> RateTest:
    """Return the rate of ``leads`` among acquisitions of the tasks ``of``, against a permutation of task labels.

    Labels are exchanged among the trained tasks that have both a transition and an acquisition somewhere, the same
    way in every run and level: the cases of a model are not taken for independent ones.
    """
    trained = specification.trained
    tasks = sorted({task for each in found for task in each.tasks if trained is None or task in trained})
    leads = align_leads(found, tasks)
    if not tasks or not leads.size:
        return RateTest(None, None, None, 0, None, 0, 0)
    # a task that never has an own pair would be permuted in as a hole
    whole = np.isfinite(leads[:, range(len(tasks)), range(len(tasks))]).any(axis=0)
    tasks = [task for task, known in zip(tasks, whole, strict=True) if known]
    leads = leads[:, whole][:, :, whole]
    wanted = np.array([task in of for task in tasks], dtype=bool)
    own = leads[:, range(len(tasks)), range(len(tasks))][:, wanted]
    n = int(np.isfinite(own).sum())
    if not n:
        return RateTest(None, None, None, 0, None, 0, 0)
    rng = np.random.default_rng(specification.seed)
    rate = float(np.nanmean(own))
    like = np.isfinite(own)
    across = np.where(like[:, None, :], leads[:, :, wanted], np.nan)
    other = across[:, ~np.eye(len(tasks), dtype=bool)[:, wanted]]
    others = int(np.isfinite(other).sum())
    orders, _ = label_orders(len(tasks), specification.resamples, rng)
    columns = np.flatnonzero(wanted)
    drawn = leads[:, orders[:, columns], columns[None, :]]  # (blocks, orders, wanted)
    drawn[~np.broadcast_to(like[:, None, :], drawn.shape)] = np.nan
    known = np.isfinite(drawn).sum(axis=(0, 2))
    rates = np.divide(np.nansum(drawn, axis=(0, 2)), known, out=np.full(len(orders), np.nan), where=known > 0)
    runs = sorted({each.run for each in found}, key=str)
    block_run = np.array([runs.index(each.run) for each in found])
    p, p_below = both_tails(rates, rate) if others else (None, None)
    return RateTest(
        rate,
        _rate_interval(own, block_run, len(runs), specification.resamples, rng),
        float(np.nanmean(other)) if others else None,
        others,
        p,
        n,
        len({run for run, known in zip(block_run, like.any(axis=1), strict=True) if known}),
        int(like.any(axis=0).sum()),
        p_below,
    )


def align_leads(found: list[Pairing], tasks: list[str]) -> np.ndarray:
    """Return 1 where a measure leads, 0 where not, NaN where unknown: ``(pairings, tasks, tasks)``."""
    leads = np.full((len(found), len(tasks), len(tasks)), np.nan)
    for block, each in enumerate(found):
        kept = [(index, tasks.index(task)) for index, task in enumerate(each.tasks) if task in tasks]
        if kept:
            here, there = (np.array(side) for side in zip(*kept, strict=True))
            part = each.relation[np.ix_(here, here)]
            leads[block][np.ix_(there, there)] = np.where(part < 0, np.nan, part == 0)
    return leads


def _rate_interval(
    own: np.ndarray, block_run: np.ndarray, runs: int, resamples: int, rng: np.random.Generator
) -> tuple[float, float] | None:
    """Return the bootstrap interval of a rate: tasks drawn for all runs alike, runs drawn too where there are several.

    ``own`` is ``(blocks, tasks)``.
    """
    known, value = np.isfinite(own).astype(float), np.nan_to_num(own)
    if (known.sum(axis=0) > 0).sum() < 2:
        return None
    by_task = bootstrap_weights(own.shape[1], resamples, rng)
    by_run = bootstrap_weights(runs, resamples, rng) if runs > 1 else np.ones((resamples, 1))
    by_block = by_run[:, block_run]
    total = np.einsum("rb,bt,rt->r", by_block, known, by_task)
    led = np.einsum("rb,bt,rt->r", by_block, value, by_task)
    return percentile_interval(np.divide(led, total, out=np.full(resamples, np.nan), where=total > 0))
