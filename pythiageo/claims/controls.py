"""Controls: how often the precursor statistic says "leads" where nothing can lead."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from pythiageo.claims.crosscorrelation import block_rates, differences_correlation, lag_peaks, peaks_of
from pythiageo.claims.evidence import Evidence, edge_note
from pythiageo.claims.precursor import MIN_CORRELATION, Pairing, align_leads, pairings, rate_test
from pythiageo.claims.register import EVENT, PLACE, declare
from pythiageo.claims.result import RULES, ClaimResult, Specification, judge, leave_undecided, single_ones
from pythiageo.errors import UserError
from pythiageo.events.trajectory import RUN_KEY
from pythiageo.stats.resampling import bootstrap_weights, both_tails, label_orders, percentile_interval, upper_p

CLAIM = "a task's own measure leads its acquisition more often than that of a task the model was never trained on"
RULE = (
    "estimate: rate of leads over trained tasks less the rate at which untrained tasks' measures lead the same "
    "acquisitions; supported: its 95% bootstrap interval over tasks lies above 0 and a permutation of all tasks' "
    "measures, trained and not, gives p <= 0.05; contradicted: below 0, and the same from below; else not decidable"
)
SCHEMA: dict[str, pl.DataType] = {
    "control": pl.String(), "rule": pl.String(), "measure": pl.String(), "rate": pl.Float64(),
    "null_rate": pl.Float64(), "null_pairs": pl.Int64(), "p": pl.Float64(), "status": pl.String(),
    "reason": pl.String(),
}  # fmt: skip
CONTROLS = ("other tasks", "untrained tasks", "other seeds", "blocks")


def _answer_in_curve(evidence: Evidence, asked: Specification) -> ClaimResult:
    return controls(evidence, asked, [asked.rule], surrogates=False)


@declare("controls", 7, (*EVENT, *PLACE, "rule"), _answer_in_curve)
def controls(
    evidence: Evidence, specification: Specification, rules: Sequence[str] = RULES, surrogates: bool = True
) -> ClaimResult:
    """Return the rate of leads beside its rate under every control (``SCHEMA``), for these rules.

    - ``other tasks``: a task's measure against another task's acquisition in the same run; p by permuting task labels.
    - ``untrained tasks``: the measure of tasks in the table that are not in ``specification.trained`` (never trained,
      or with shuffled answers) against the acquisitions of trained ones; p by permuting all tasks' measures.
    - ``other seeds``: a task's measure against the same task's acquisition in a run of the same size and regime and
      another seed.
    - ``blocks`` (v1 alone): the accuracy's differences in blocks of random order.
    """
    rows: list[list[Any]] = []
    verdict: ClaimResult | None = None
    for rule in rules:
        asked = Specification(**{**vars(specification), "rule": rule})
        try:
            found = pairings(evidence, asked, specification.measure)
        except UserError as error:
            return leave_undecided("controls", CLAIM, RULE, str(error), specification, pl.DataFrame(schema=SCHEMA))
        own = rate_test(found, asked, {task for each in found for task in each.tasks})
        head = [rule, specification.measure]
        if own.rate is None:
            nothing = [None, None, 0, None, "undefined", "no acquisition with a transition"]
            rows += [[control, *head, *nothing] for control in CONTROLS]
            continue
        missing = None if own.null is not None else "one task alone"
        rows.append(["other tasks", *head, own.rate, own.null, own.null_pairs, own.p, _status(missing), missing])
        difference, row = _untrained(found, asked, own.rate)
        rows.append(["untrained tasks", *head, *row])
        if rule == specification.rule and difference is not None:
            verdict = difference
        rows.append(["other seeds", *head, own.rate, *_seeds(evidence, asked, found)])
        if rule == "v1" and surrogates:
            rates = block_rates(lag_peaks(evidence, asked, specification.measure), asked, MIN_CORRELATION)
            p = upper_p(np.append(rates, own.rate), own.rate)
            rows.append(["blocks", *head, own.rate, float(np.nanmean(rates)), rates.size, p, "ok", None])
        else:
            only = "not asked for" if rule == "v1" else "only a series can be cut into blocks, a step can not"
            rows.append(["blocks", *head, own.rate, None, 0, None, "undefined", only])
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    if verdict is None:
        at = table.filter((pl.col("control") == "untrained tasks") & (pl.col("rule") == specification.rule))
        return leave_undecided("controls", CLAIM, RULE, at["reason"][0] or "no control", specification, table)
    notes = [] if specification.rule == "v1" else edge_note(evidence.moves(specification), specification)
    reason = "; ".join([*filter(None, [verdict.reason]), *notes]) or None
    return ClaimResult(**{**vars(verdict), "table": table, "reason": reason})


def _status(reason: str | None) -> str:
    return "ok" if reason is None else "undefined"


def _untrained(found: list[Pairing], specification: Specification, rate: float) -> tuple[ClaimResult | None, list[Any]]:
    """Return the claim's result without its table, and the control's row from ``rate`` on."""
    every = sorted({task for each in found for task in each.tasks})
    trained = every if specification.trained is None else [task for task in every if task in specification.trained]
    rest = [task for task in every if task not in trained]
    if not rest or not trained:
        reason = "every task in the table was trained" if not rest else "no task was trained"
        if specification.trained is None:
            reason = "which tasks were trained was not said, so all count as trained"
        return None, [rate, None, 0, None, "undefined", reason]
    leads = align_leads(found, [*trained, *rest])
    count = len(trained)
    own = leads[:, range(count), range(count)]
    # of the acquisitions that have a measure of their own, and no others
    across = np.where(np.isfinite(own)[:, None, :], leads[:, count:, :count], np.nan)
    pairs = int(np.isfinite(across).sum())
    if not pairs:
        return None, [rate, None, 0, None, "undefined", "no untrained task has a transition"]
    rng = np.random.default_rng(specification.seed)
    orders, _ = label_orders(len(leads[0]), specification.resamples, rng)
    null = float(np.nanmean(across))
    drawn = _differences(leads[:, :, :count], orders)
    p, p_below = both_tails(drawn, float(drawn[0]))
    by_task = bootstrap_weights(count, specification.resamples, rng)
    by_rest = bootstrap_weights(len(rest), specification.resamples, rng)
    top = _weighted("bt,rt->r", own, by_task)
    bottom = _weighted("but,ru,rt->r", across, by_rest, by_task)
    interval = percentile_interval(top - bottom)
    names = f"{', '.join(rest[:6])}{' ...' if len(rest) > 6 else ''}"
    note = f"{len(rest)} untrained tasks ({names}) lead at a rate of {null:.2f}"
    known = np.isfinite(own)
    models = len({each.run for each, some in zip(found, known.any(axis=1), strict=True) if some})
    single = single_ones(model=models, trained_task=int(known.any(axis=0).sum()), untrained_task=len(rest))
    result = ClaimResult(
        "controls", CLAIM, pl.DataFrame(), judge(interval, 0.0, p, p_below), RULE, rate - null, interval, 0.0, p,
        int(known.sum()), note, specification, rests_on=single,
    )  # fmt: skip
    return result, [rate, null, pairs, p, "ok", None]


def _differences(leads: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Return the rate of the trained less that of the untrained, the measures of all tasks in each of these orders.

    ``leads`` is ``(blocks, measures, trained acquisitions)``, ``orders`` ``(orders, measures)``: the first measures of
    an order stand for the trained tasks' own, the others for the untrained tasks'.
    """
    count = leads.shape[2]
    moved = leads[:, orders]  # (blocks, orders, measures, acquisitions)
    own = moved[:, :, range(count), range(count)]
    across = np.where(np.isfinite(own)[:, :, None, :], moved[:, :, count:], np.nan)
    return _rate(own, (0, 2)) - _rate(across, (0, 2, 3))


def _rate(values: np.ndarray, over: tuple[int, ...]) -> np.ndarray:
    known = np.isfinite(values).sum(axis=over).astype(float)
    return np.divide(np.nansum(values, axis=over), known, out=np.full(known.shape, np.nan), where=known > 0)


def _weighted(rule: str, values: np.ndarray, *weights: np.ndarray) -> np.ndarray:
    total = np.einsum(rule, np.isfinite(values).astype(float), *weights)
    led = np.einsum(rule, np.nan_to_num(values), *weights)
    return np.divide(led, total, out=np.full(total.shape, np.nan), where=total > 0)


def _seeds(evidence: Evidence, specification: Specification, found: list[Pairing]) -> list[Any]:
    """Return the control's row from ``null_rate`` on: pairs of runs that differ in the seed alone."""
    regime, size = RUN_KEY.index("regime"), RUN_KEY.index("size")
    led: list[bool] = []
    if specification.rule == "v1":
        peaks = lag_peaks(evidence, specification, specification.measure)
        for x, y in combinations(peaks, 2):
            same = (x.run[regime], x.run[size], x.level, x.tasks) == (y.run[regime], y.run[size], y.level, y.tasks)
            if not same or x.run == y.run or x.measured.shape != y.measured.shape or x.spacing != y.spacing:
                continue
            for one, other in ((x, y), (y, x)):
                r, lags = peaks_of(differences_correlation(one.measured, other.scored))
                led += list(((np.abs(r) > MIN_CORRELATION) & (lags < 0)).diagonal()[other.acquired])
    else:
        for a, b in combinations(found, 2):
            if (a.run[regime], a.run[size], a.level) != (b.run[regime], b.run[size], b.level) or a.run == b.run:
                continue
            led += _crossed(a, b, specification, evidence) + _crossed(b, a, specification, evidence)
    if not led:
        return [None, 0, None, "undefined", "no second seed of the same size with the same tasks"]
    return [float(np.mean(led)), len(led), None, "ok", "too few seeds to permute, so no p"]


def _crossed(a: Pairing, b: Pairing, specification: Specification, evidence: Evidence) -> list[bool]:
    """Return whether the measure in run ``a`` moves before the acquisition in run ``b``, for every task of both."""
    moved, acquired = a.moved, b.acquired
    timeline = evidence.timelines[b.run]
    led = []
    for index, task in enumerate(a.tasks):
        if task not in b.tasks:
            continue
        first, then = moved[index], acquired[b.tasks.index(task)]
        if then <= a.not_before[index]:
            led.append(False)
        if np.isnan(first) or np.isnan(then):
            continue
        places = np.searchsorted(timeline, [first, then])
        led.append(bool(first < then if specification.rule == "v4" else places[1] - places[0] > specification.k))
    return led
