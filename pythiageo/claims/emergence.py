"""Emergence map: when each task and level is acquired, and whether easy ones come before hard ones."""

from __future__ import annotations

import numpy as np
import polars as pl

from pythiageo.claims.evidence import Evidence
from pythiageo.claims.register import EVENT, declare
from pythiageo.claims.result import ClaimResult, Specification, judge, leave_undecided, single_ones
from pythiageo.events.find import FOUND, NOT_REACHED
from pythiageo.events.trajectory import RUN_KEY
from pythiageo.stats.resampling import bootstrap_weights, both_tails, label_orders, percentile_interval

CLAIM = "easy tasks are acquired before hard ones"
RULE = (
    "estimate: share of easy-hard pairs (same run and level) in which the easy task is acquired first, a tie half; "
    "supported: its 95% interval over tasks and runs lies above 0.5 and a permutation of class labels gives p <= 0.05; "
    "contradicted: below 0.5, and the same from below; else not decidable"
)


@declare("emergence", 1, EVENT)
def emergence(evidence: Evidence, specification: Specification) -> ClaimResult:
    """Return the emergence map (a row a run, task and level) and how easy and hard tasks are ordered in it.

    A task that was not acquired comes after every one that was; two such are no pair.
    """
    events = evidence.acquisitions(specification)
    kinds = pl.col("task").map_elements(specification.task_class, return_dtype=pl.String).alias("class")
    table = events.with_columns(kinds).select(
        *RUN_KEY, "task", "level", "class", "step", "tokens", "value", "status", "reason", "n_checkpoints"
    )
    known = table.filter(pl.col("status").is_in([FOUND, NOT_REACHED]))
    acquired = known.filter(pl.col("status") == FOUND).height
    note = f"{acquired} of {known.height} runs, tasks and levels acquired"
    ordered, tasks = acquisition_order(known)
    easy = np.array([specification.task_class(task) == "easy" for task in tasks], dtype=bool)
    hard = np.array([specification.task_class(task) == "hard" for task in tasks], dtype=bool)
    used = easy | hard
    ordered, easy = ordered[:, used][:, :, used], easy[used]
    pairs = int(np.isfinite(ordered[:, easy][:, :, ~easy]).sum())
    if not pairs:
        return leave_undecided(
            "emergence", CLAIM, RULE, f"{note}; no pair of an easy and a hard task", specification, table
        )
    rng = np.random.default_rng(specification.seed)
    estimate = _first(ordered, easy)
    orders, _ = label_orders(easy.size, specification.resamples, rng)
    p, p_below = both_tails(_first_of_orders(ordered, easy[orders]), estimate)
    weights = bootstrap_weights(easy.size, specification.resamples, rng)
    value, there = np.nan_to_num(ordered)[:, easy][:, :, ~easy], np.isfinite(ordered[:, easy][:, :, ~easy])
    led = np.einsum("re,beh,rh->r", weights[:, easy], value, weights[:, ~easy])
    total = np.einsum("re,beh,rh->r", weights[:, easy], there.astype(float), weights[:, ~easy])
    interval = percentile_interval(np.divide(led, total, out=np.full(total.size, np.nan), where=total > 0))
    single = single_ones(
        model=known.select(RUN_KEY).unique().height, easy_task=int(easy.sum()), hard_task=int((~easy).sum())
    )
    return ClaimResult(
        "emergence", CLAIM, table, judge(interval, 0.5, p, p_below), RULE, estimate, interval, 0.5, p, pairs, note,
        specification, rests_on=single,
    )  # fmt: skip


def acquisition_order(known: pl.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Return for every run and level which of two tasks was acquired first, ``(blocks, tasks, tasks)``, and the tasks.

    1: the first of the two; 0: the second; 0.5: at the same step; NaN: neither, or not known.
    """
    tasks = known["task"].unique().sort().to_list()
    blocks = known.sort(*RUN_KEY, "level").partition_by([*RUN_KEY, "level"], maintain_order=True)
    result = np.full((len(blocks), len(tasks), len(tasks)), np.nan)
    for block, part in enumerate(blocks):
        steps = np.full(len(tasks), np.nan)
        for task, step in part.select("task", "step").iter_rows():
            steps[tasks.index(task)] = np.inf if step is None else step
        first, second = steps[:, None], steps[None, :]
        open_pair = np.isnan(first) | np.isnan(second) | (np.isinf(first) & np.isinf(second))
        result[block] = np.where(open_pair, np.nan, np.where(first < second, 1.0, np.where(first == second, 0.5, 0.0)))
    return result, tasks


def _first(ordered: np.ndarray, easy: np.ndarray) -> float:
    part = ordered[:, easy][:, :, ~easy]
    return float(np.nanmean(part)) if np.isfinite(part).any() else np.nan


def _first_of_orders(ordered: np.ndarray, easy: np.ndarray) -> np.ndarray:
    """Return ``_first`` for every row of class labels, ``(orders, tasks)``."""
    known, first = np.isfinite(ordered).sum(axis=0).astype(float), np.nansum(ordered, axis=0)
    is_easy = easy.astype(float)
    led = ((is_easy @ first) * (1 - is_easy)).sum(axis=1)
    total = ((is_easy @ known) * (1 - is_easy)).sum(axis=1)
    return np.divide(led, total, out=np.full(len(easy), np.nan), where=total > 0)
