"""Prediction: do floors order tasks as their acquisitions do, within a model and between sizes?"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from pythiageo.claims.emergence import acquisition_order
from pythiageo.claims.evidence import Evidence, counted_events, edge_note
from pythiageo.claims.register import EVENT, PLACE, declare
from pythiageo.claims.result import ALPHA, TIES, ClaimResult, Specification, judge, leave_undecided, single_ones
from pythiageo.events.find import FOUND, NOT_REACHED
from pythiageo.events.trajectory import RUN_KEY
from pythiageo.stats.resampling import bootstrap_weights, both_tails, label_orders, percentile_interval

GROUPS = ("across", "easy", "hard")
CLAIM = {
    "across": "of an easy and a hard task, the one with the lower floor is acquired first",
    "easy": "of two easy tasks, the one with the lower floor is acquired first",
    "hard": "of two hard tasks, the one with the lower floor is acquired first",
}
RULE = (
    "estimate: share of pairs (same run and level) that the floor orders as acquisition does, a lower floor being "
    "earlier; ties by the specification's rule; supported: its 95% bootstrap interval over tasks and runs lies above "
    "0.5 and a permutation of the floors over tasks gives p <= 0.05; contradicted (the opposite sign holds): below "
    "0.5, and the same from below; else not decidable"
)
SWAP_CLAIM = "where two tasks change places between two sizes, their floors do too"
SWAP_RULE = (
    "estimate: share of pairs of tasks acquired in opposite order at two sizes whose floors order both sizes "
    "rightly; null: its mean when floors are permuted over tasks, alike at all sizes (floors that do not swap "
    "predict no swap, so that 0.5 is no null), of the pairs that then have all four floors, as the estimate is; "
    "supported: 95% bootstrap interval over tasks above it and p <= 0.05; contradicted: below it, and the same from "
    "below; else not decidable"
)
PAIR_SCHEMA: dict[str, pl.DataType] = {
    "group": pl.String(), "ties": pl.String(), "concordant": pl.Int64(), "discordant": pl.Int64(), "tied": pl.Int64(),
    "pairs": pl.Int64(), "concordance": pl.Float64(), "opposite": pl.Float64(), "low": pl.Float64(),
    "high": pl.Float64(), "p": pl.Float64(),
}  # fmt: skip


def tie_rates(concordant: float, discordant: float, tied: float) -> dict[str, float | None]:
    """Return the concordance under each rule of ``TIES``: a tie an error, half right, or no pair."""
    pairs, untied = concordant + discordant + tied, concordant + discordant
    return {
        "error": concordant / pairs if pairs else None,
        "half": (concordant + tied / 2) / pairs if pairs else None,
        "dropped": concordant / untied if untied else None,
    }


@declare("prediction", 8, (*EVENT, *PLACE, "ties"))
def prediction(evidence: Evidence, specification: Specification) -> list[ClaimResult]:
    """Return three results: pairs across classes, within easy, within hard (``prediction-across`` and so on).

    ``table`` (the same for all three): every group under every tie rule with its counts. A pair is tied when the floors
    or the acquisition steps are equal. A task not acquired comes after every one that was; two such are no pair.
    """
    later, tasks = _orders(evidence, specification)
    floor = _floors(evidence, specification, tasks)
    if floor is None or not len(later):
        reason = f"no floor of {specification.measure} beside an acquisition"
        return [leave_undecided(f"prediction-{name}", CLAIM[name], RULE, reason, specification) for name in GROUPS]
    kinds = np.array([specification.task_class(task) for task in tasks], dtype=str)
    easy, hard = kinds == "easy", kinds == "hard"
    masks = {
        "across": np.outer(easy, hard) | np.outer(hard, easy),
        "easy": np.outer(easy, easy),
        "hard": np.outer(hard, hard),
    }
    asked = ("concordance", replace(specification, ties="dropped"))
    if asked not in evidence.memory:
        evidence.memory[asked] = {
            group: {ties: _concordance(later, floor, mask, ties, specification) for ties in TIES}
            for group, mask in masks.items()
        }
    rows, found = [], {}
    for group, tests in evidence.memory[asked].items():
        found[group] = tests[specification.ties]
        rows += [[group, ties, *_row(test)] for ties, test in tests.items()]
    table = pl.DataFrame(rows, schema=PAIR_SCHEMA, orient="row")
    results = []
    for group, test in found.items():
        name = f"prediction-{group}"
        if test["rate"] is None:
            results.append(leave_undecided(name, CLAIM[group], RULE, "no pair to be ordered", specification, table))
            continue
        counts = f"{test['concordant']} right, {test['discordant']} wrong, {test['tied']} tied ({specification.ties})"
        few = f"the floors have {test['orders']} orders, so that p is never {ALPHA} or less: too few tasks"
        notes = [counts, *([few] if test["orders"] * ALPHA < 1 else [])]
        note = "; ".join([*notes, *edge_note(evidence.moves(specification), specification)])
        verdict = judge(test["interval"], 0.5, test["p"], test["p_below"])
        figures = (test["rate"], test["interval"], 0.5, test["p"], test["n"])
        single = single_ones(model=test["models"], pair_of_tasks=test["pairs"])
        results.append(
            ClaimResult(name, CLAIM[group], table, verdict, RULE, *figures, note, specification, rests_on=single)
        )
    return results


def _row(test: dict[str, Any]) -> list[Any]:
    counts = [test["concordant"], test["discordant"], test["tied"]]
    opposite = tie_rates(counts[1], counts[0], counts[2])[test["ties"]]
    low, high = test["interval"] or (None, None)
    return [*counts, sum(counts), test["rate"], opposite, low, high, test["p"]]


def _orders(evidence: Evidence, specification: Specification) -> tuple[dict[tuple[Any, ...], np.ndarray], list[str]]:
    """Return ``run -> (levels, tasks, tasks)``, 1 where the first of two is acquired later, -1 earlier, 0 together.

    Levels are those of all acquisitions, in order; NaN where a run lacks one.
    """
    every = evidence.acquisitions(specification)
    levels = every["level"].unique().sort().to_list()
    events = every.filter(pl.col("status").is_in([FOUND, NOT_REACHED]))
    tasks = events["task"].unique().sort().to_list()
    result = {}
    for key, part in events.partition_by(RUN_KEY, as_dict=True).items():
        orders, known = acquisition_order(part)
        whole = np.full((len(levels), len(tasks), len(tasks)), np.nan)
        places = [tasks.index(task) for task in known]
        taken = [levels.index(level) for level in part["level"].unique().sort().to_list()]
        whole[np.ix_(taken, places, places)] = 1 - 2 * orders
        result[key] = whole
    return result, tasks


def _floors(
    evidence: Evidence, specification: Specification, tasks: list[str]
) -> dict[tuple[Any, ...], np.ndarray] | None:
    """Return ``run -> (tasks,)`` floors at the specification's site, NaN where there is none."""
    moves = counted_events(evidence.moves(specification), specification)
    result: dict[tuple[Any, ...], np.ndarray] = {}
    for *run, task, value in moves.select(*RUN_KEY, "task", "value").iter_rows():
        if task in tasks:
            result.setdefault(tuple(run), np.full(len(tasks), np.nan))[tasks.index(task)] = value
    return result or None


def _concordance(
    later: dict[tuple[Any, ...], np.ndarray],
    floor: dict[tuple[Any, ...], np.ndarray],
    mask: np.ndarray,
    ties: str,
    specification: Specification,
) -> dict[str, Any]:
    """Return counts, rate, interval and p of one group of pairs under one tie rule."""
    runs = sorted(later.keys() & floor.keys(), key=str)
    rng = np.random.default_rng(specification.seed)
    if not runs:
        nothing: dict[str, Any] = {"rate": None, "interval": None, "p": None, "p_below": None}
        nothing |= {"concordant": 0, "discordant": 0, "tied": 0}
        return nothing | {"n": 0, "ties": ties, "models": 0, "pairs": 0}
    above = np.array([_signs(floor[run]) for run in runs])  # (runs, tasks, tasks)
    # the same pair at several levels counts at each
    moved = [np.where(mask & np.triu(np.ones_like(mask), 1), later[run], np.nan) for run in runs]
    later_total = {code: np.array([(each == code).sum(axis=0) for each in moved]) for code in (-1, 0, 1)}
    counts = _counts(above, later_total)
    summed = [each.sum() for each in counts]
    rate = tie_rates(*summed)[ties]
    size = mask.shape[0]
    used = np.flatnonzero(mask.any(axis=0))
    by_task = bootstrap_weights(size, specification.resamples, rng)
    by_run = bootstrap_weights(len(runs), specification.resamples, rng) if len(runs) > 1 else None
    right, wrong, tied = (_weighted(each, by_task, by_run) for each in counts)
    draws = _rates(right, wrong, tied, ties)
    orders, _ = label_orders(used.size, specification.resamples, rng)
    whole = np.tile(np.arange(size), (len(orders), 1))
    whole[:, used] = used[orders]
    rates = _rates(*_permuted(above, later_total, whole), ties)
    p, p_below = (None, None) if rate is None else both_tails(rates, rate)
    seen = np.sum(counts, axis=0) > 0
    return {
        "rate": rate, "interval": percentile_interval(draws), "p": p, "p_below": p_below,
        "orders": len(orders), "models": int(seen.any(axis=(1, 2)).sum()), "pairs": int(seen.any(axis=0).sum()),
        "concordant": int(summed[0]), "discordant": int(summed[1]), "tied": int(summed[2]), "n": int(sum(summed)),
        "ties": ties,
    }  # fmt: skip


def _signs(values: np.ndarray) -> np.ndarray:
    return np.sign(values[:, None] - values[None, :])


def _counts(above: np.ndarray, later: dict[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return concordant, discordant and tied pairs, ``(runs, tasks, tasks)`` each."""
    right = np.where(above > 0, later[1], 0) + np.where(above < 0, later[-1], 0)
    wrong = np.where(above > 0, later[-1], 0) + np.where(above < 0, later[1], 0)
    tied = np.where(above == 0, later[1] + later[-1], 0) + np.where(np.isfinite(above), later[0], 0)
    return right, wrong, tied


def _permuted(
    above: np.ndarray, later: dict[int, np.ndarray], orders: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return concordant, discordant and tied pairs over all runs, floors in other orders, ``(orders,)`` each."""
    right, wrong, tied = (np.zeros(len(orders)) for _ in range(3))
    for signs, later_in, together, earlier_in in zip(above, later[1], later[0], later[-1], strict=True):
        moved = signs[orders[:, :, None], orders[:, None, :]]
        up, down, level = moved > 0, moved < 0, moved == 0
        right += (up * later_in + down * earlier_in).sum(axis=(1, 2))
        wrong += (up * earlier_in + down * later_in).sum(axis=(1, 2))
        tied += (level * (later_in + earlier_in) + np.isfinite(moved) * together).sum(axis=(1, 2))
    return right, wrong, tied


def _weighted(counts: np.ndarray, by_task: np.ndarray, by_run: np.ndarray | None) -> np.ndarray:
    by_run = np.ones((len(by_task), len(counts))) if by_run is None else by_run
    return np.einsum("rm,mij,ri,rj->r", by_run, counts.astype(float), by_task, by_task, optimize=True)


def _rates(right: np.ndarray, wrong: np.ndarray, tied: np.ndarray, ties: str) -> np.ndarray:
    top = right + (tied / 2 if ties == "half" else 0)
    bottom = right + wrong + (0 if ties == "dropped" else tied)
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)


@declare("prediction-swap", 9, (*EVENT, *PLACE))
def swap(evidence: Evidence, specification: Specification) -> ClaimResult:
    """Return the pairs of tasks whose order of acquisition reverses between two sizes, and what their floors do.

    A row a pair of runs of different size (the same seed where both have one), level and pair of tasks. ``predicted``:
    at both sizes the task with the lower floor is acquired first.
    """
    later, tasks = _orders(evidence, specification)
    levels = evidence.acquisitions(specification)["level"].unique().sort().to_list()
    floor = _floors(evidence, specification, tasks) or {}
    size, seed = RUN_KEY.index("size"), RUN_KEY.index("seed")
    rows = []
    rng = np.random.default_rng(specification.seed)
    orders, _ = label_orders(len(tasks), specification.resamples, rng)
    led, known = np.zeros(len(orders)), np.zeros(len(orders))
    runs = sorted(later.keys() & floor.keys(), key=str)
    for a, b in combinations(runs, 2):
        if a[size] == b[size] or (a[seed] != b[seed]) or later[a].shape != later[b].shape:
            continue
        for level, here, there in zip(levels, later[a], later[b], strict=True):
            for i, j in zip(*np.nonzero(np.triu(here * there == -1, 1)), strict=True):
                first, second = (np.sign(floor[run][i] - floor[run][j]) for run in (a, b))
                if np.isfinite(first) and np.isfinite(second):
                    right = bool(first == here[i, j] and second == there[i, j])
                    one, other = (np.sign(floor[run][orders[:, i]] - floor[run][orders[:, j]]) for run in (a, b))
                    led += (one == here[i, j]) & (other == there[i, j])
                    # a floor that a task does not have is no miss of another task's: the estimate drops it too
                    known += np.isfinite(one) & np.isfinite(other)
                    rows.append(
                        [a[0], b[0], a[size], b[size], level, tasks[i], tasks[j], bool(first * second < 0), right]
                    )
    schema = {
        "run_a": pl.String(), "run_b": pl.String(), "size_a": pl.String(), "size_b": pl.String(), "level": pl.String(),
        "task_a": pl.String(), "task_b": pl.String(), "floors_swap": pl.Boolean(), "predicted": pl.Boolean(),
    }  # fmt: skip
    table = pl.DataFrame(rows, schema=schema, orient="row")
    if not rows:
        reason = "no two tasks change places between two sizes of one seed"
        return leave_undecided("prediction-swap", SWAP_CLAIM, SWAP_RULE, reason, specification, table)
    hits = table["predicted"].cast(pl.Float64).to_numpy()
    names = sorted({*table["task_a"], *table["task_b"]})
    first_task, second_task = (
        np.array([names.index(task) for task in table[column]]) for column in ("task_a", "task_b")
    )
    weights = bootstrap_weights(len(names), specification.resamples, rng)
    pairs = weights[:, first_task] * weights[:, second_task]
    total = pairs.sum(axis=1)
    interval = percentile_interval(np.divide(pairs @ hits, total, out=np.full(total.size, np.nan), where=total > 0))
    drawn = np.divide(led, known, out=np.full(led.size, np.nan), where=known > 0)
    estimate, null = float(hits.mean()), float(np.nanmean(drawn))
    p, p_below = both_tails(drawn, estimate)
    verdict = judge(interval, null, p, p_below)
    models = table.select("run_a", "run_b").unique().height
    single = single_ones(pair_of_models=models, pair_of_tasks=table.select("task_a", "task_b").unique().height)
    return ClaimResult(
        "prediction-swap", SWAP_CLAIM, table, verdict, SWAP_RULE, estimate, interval, null, p, hits.size,
        f"the floors swap at all in {table['floors_swap'].sum()}", specification, rests_on=single,
    )  # fmt: skip
