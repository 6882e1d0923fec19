"""Order of floors: are tasks ordered alike at every size?"""

from __future__ import annotations

from itertools import combinations
from math import factorial

import numpy as np
import polars as pl
from scipy import stats  # type: ignore[import-untyped]

from pythiageo.claims.evidence import Evidence, counted_events, edge_note
from pythiageo.claims.register import PLACE, declare
from pythiageo.claims.result import ALPHA, ClaimResult, Specification, judge, leave_undecided
from pythiageo.errors import count_noun
from pythiageo.stats.resampling import both_tails, percentile_interval

CLAIM = "tasks have the same order of floors at every size"
LEVEL = ALPHA / 2
"""For each verdict, as at each end of the interval. From three sizes on the interval alone does not guard both ends: a
mean correlation of k sizes is -1 / (k - 1) at least, its draws are skewed, and where nothing is ordered a percentile
interval of 8 tasks lies below 0 in 7% of tables, and above it in 1%."""
RULE = (
    f"estimate: mean Spearman correlation over pairs of sizes; supported: p <= {LEVEL} when tasks are permuted at each "
    "size and the 95% bootstrap interval over tasks above 0; contradicted: below 0, and the same from below; else not "
    "decidable"
)
SCHEMA: dict[str, pl.DataType] = {
    "size_a": pl.String(), "size_b": pl.String(), "tasks": pl.Int64(), "spearman": pl.Float64(),
}  # fmt: skip


@declare("floor-order", 10, ("protocol", *PLACE))
def floor_order(evidence: Evidence, specification: Specification) -> ClaimResult:
    """Return Spearman's correlation of the floors of tasks for every pair of sizes (floors: means over seeds).

    A size whose floors are all equal orders nothing: its correlations are null, and count for nothing.
    """
    every = evidence.moves(specification)
    moves = counted_events(every, specification)
    by_size = moves.group_by("size", "task", maintain_order=True).agg(pl.col("value").mean()).sort("size", "task")
    sizes, tasks = by_size["size"].unique().sort().to_list(), by_size["task"].unique().sort().to_list()
    floor = np.full((len(sizes), len(tasks)), np.nan)
    for size, task, value in by_size.iter_rows():
        floor[sizes.index(size), tasks.index(task)] = value
    floor = floor[:, np.isfinite(floor).all(axis=0)]
    count = floor.shape[1]
    if len(sizes) < 2 or count < 4:
        there = count_noun(len(sizes), "size")
        reason = f"{there} with the floors of {count} tasks in common; two sizes and four tasks are needed"
        return leave_undecided("floor-order", CLAIM, RULE, reason, specification, pl.DataFrame(schema=SCHEMA))
    ranks = stats.rankdata(floor, axis=1)
    pairs = list(combinations(range(len(sizes)), 2))
    rhos = [_spearman(ranks[a], ranks[b]) for a, b in pairs]
    rows = [
        [sizes[a], sizes[b], count, None if np.isnan(rho) else rho] for (a, b), rho in zip(pairs, rhos, strict=True)
    ]
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    known = table["spearman"].drop_nulls()
    if not known.len():
        reason = "at all but one size the floors of all tasks are equal, and order nothing"
        return leave_undecided("floor-order", CLAIM, RULE, reason, specification, table)
    rng = np.random.default_rng(specification.seed)
    estimate = float(np.mean(known.to_numpy()))
    orders = np.array([[rng.permutation(count) for _ in ranks] for _ in range(specification.resamples)])
    drawn = _means(np.take_along_axis(ranks[None], orders, axis=2), pairs)
    picks = rng.integers(0, count, (specification.resamples, count))
    boots = _means(stats.rankdata(floor[:, picks], axis=2).swapaxes(0, 1), pairs)
    interval = percentile_interval(boots)
    p, p_below = both_tails(np.append(drawn, estimate), estimate)
    orders_there_are = factorial(count) ** (len(sizes) - 1)
    few = [f"one of {orders_there_are} orders has p > {LEVEL}"] if orders_there_are * LEVEL < 1 else []
    return ClaimResult(
        "floor-order", CLAIM, table, judge(interval, 0.0, p, p_below, LEVEL), RULE, estimate, interval, 0.0, p,
        known.len(), "; ".join([f"{count} tasks at {len(sizes)} sizes", *few, *edge_note(every, specification)]),
        specification,
    )  # fmt: skip


def _means(ranks: np.ndarray, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Return the mean correlation over the pairs that have one, NaN where none has: ``(draws,)``.

    ``ranks`` is ``(draws, sizes, tasks)``.
    """
    centred = ranks - ranks.mean(axis=2, keepdims=True)
    norm = np.sqrt((centred**2).sum(axis=2))
    total, known = np.zeros(len(ranks)), np.zeros(len(ranks))
    for a, b in pairs:
        scale = norm[:, a] * norm[:, b]
        moved = scale > 0
        total[moved] += (centred[moved, a] * centred[moved, b]).sum(axis=1) / scale[moved]
        known += moved
    return np.divide(total, known, out=np.full(len(ranks), np.nan), where=known > 0)


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation of two rows of ranks, NaN where all of one are equal."""
    x, y = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale else float("nan")
