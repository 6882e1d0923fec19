"""Cross-correlation of first differences, by checkpoint or on an even grid of steps, and surrogates for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
from scipy.linalg import cho_factor, cho_solve  # type: ignore[import-untyped]

from pythiageo.claims.evidence import Evidence
from pythiageo.claims.result import Specification
from pythiageo.events.find import FOUND
from pythiageo.events.trajectory import RUN_KEY

MAX_LAG = 20
MIN_POINTS = 8
"""Fewer differences than this make no correlation."""
MAX_GRID = 400
_LENGTHS = np.geomspace(0.01, 1.0, 12)
_NOISES = np.array([1e-6, 1e-3, 1e-2, 1e-1])


def differences_correlation(first: np.ndarray, second: np.ndarray, max_lag: int = MAX_LAG) -> np.ndarray:
    """Return the cross-correlation of first differences of every curve of ``first`` with every one of ``second``.

    ``r[l, i, j] = sum_t dx_i(t + lag) dy_j(t) / sqrt(sum dx_i^2 sum dy_j^2)``, d the first differences less their mean
    and lag from ``-max_lag`` to ``max_lag``, cut to what the series allow (a third of their length). A negative lag
    says that ``first`` moves first. A curve without movement correlates with nothing: 0.

    Args:
        first: ``(curves_a, points)``.
        second: ``(curves_b, points)``.
        max_lag: in points.

    Returns:
        ``(lags, curves_a, curves_b)``.
    """
    a, b = _standard(np.diff(first, axis=1)), _standard(np.diff(second, axis=1))
    points = a.shape[1]
    limit = min(max_lag, points // 3)
    result = np.empty((2 * limit + 1, len(a), len(b)))
    for index, lag in enumerate(range(-limit, limit + 1)):
        left = a[:, max(0, lag) : points + min(0, lag)]
        right = b[:, max(0, -lag) : points + min(0, -lag)]
        result[index] = left @ right.T
    return result


def _standard(moves: np.ndarray) -> np.ndarray:
    centred = moves - moves.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    # what rounding leaves of a straight line is no movement
    flat = norm <= 1e-9 * np.maximum(np.abs(moves).max(axis=1, keepdims=True), 1e-300)
    return np.divide(centred, norm, out=np.zeros_like(centred), where=~flat)


def interpolate(steps: np.ndarray, curves: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return curves on another grid: the mean of a Gaussian process with a Matern-5/2 kernel.

    k(d) = (1 + sqrt(5) d/l + 5 d^2 / (3 l^2)) exp(-sqrt(5) d/l), d in shares of the whole span. Length scale l (0.01
    to 1) and noise (1e-6 to 0.1 of the variance) are those of the largest marginal likelihood on a fixed grid, the
    variance in closed form; each curve less its mean. All curves share the factorisations.

    Args:
        steps: ``(points,)``, ascending.
        curves: ``(curves, points)``, finite.
        grid: ``(grid,)``.

    Returns:
        ``(curves, grid)``.
    """
    span = float(steps[-1] - steps[0])
    x, at = (steps - steps[0]) / span, (grid - steps[0]) / span
    means = curves.mean(axis=1, keepdims=True)
    y = (curves - means).T
    best = np.full(len(curves), -np.inf)
    result = np.repeat(means, grid.size, axis=1)
    for factor, determinant, across in _factors(x.tobytes(), at.tobytes()):
        weights = cho_solve((factor, True), y, check_finite=False)
        variance = np.einsum("pc,pc->c", y, weights) / x.size
        moving = variance > 0
        logs = np.log(variance, out=np.full(len(curves), -np.inf), where=moving)
        score = np.where(moving, -0.5 * x.size * logs - determinant, -np.inf)
        better = score > best
        best[better] = score[better]
        result[better] = means[better] + (across @ weights[:, better]).T
    return result


@lru_cache(maxsize=4)
def _factors(points: bytes, grid: bytes) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """Return, for every length scale and noise, a Cholesky factor, half its log-determinant and the kernel across.

    They depend on the checkpoints alone, and the curves of a run share those.
    """
    x, at = np.frombuffer(points), np.frombuffer(grid)
    result = []
    for length in _LENGTHS:
        kernel, across = matern(x[:, None] - x[None, :], length), matern(at[:, None] - x[None, :], length)
        for noise in _NOISES:
            factor, _ = cho_factor(kernel + noise * np.eye(x.size), lower=True)
            result.append((factor, float(np.log(np.diag(factor)).sum()), across))
    return result


def matern(distance: np.ndarray, length: float) -> np.ndarray:
    """Return the Matern-5/2 kernel of distances."""
    scaled = np.sqrt(5) * np.abs(distance) / length
    return (1 + scaled + scaled**2 / 3) * np.exp(-scaled)


@dataclass(frozen=True)
class Peaks:
    """Where the cross-correlation of every task's measure with every task's accuracy has its largest absolute value.

    ``r`` and ``lags`` (in points, negative: the measure is first) are ``(tasks, tasks)``; of equal peaks the one
    nearest to lag 0. ``spacing``: steps a point (median for checkpoints). ``acquired``: ``(tasks,)``. ``measured`` and
    ``scored`` are the curves, ``(tasks, points)``.
    """

    run: tuple[Any, ...]
    level: str | None
    tasks: tuple[str, ...]
    r: np.ndarray
    lags: np.ndarray
    spacing: float
    acquired: np.ndarray
    measured: np.ndarray
    scored: np.ndarray


def peaks_of(correlations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the correlation and the lag (in points) of the largest absolute value of ``(lags, a, b)``."""
    limit = len(correlations) // 2
    lags = np.arange(-limit, limit + 1)
    order = np.argsort(np.abs(lags), kind="stable")
    chosen = np.abs(correlations[order]).round(12).argmax(axis=0)
    r = np.take_along_axis(correlations[order], chosen[None], axis=0)[0]
    return r, lags[order][chosen]


def lag_peaks(evidence: Evidence, specification: Specification, measure: str) -> list[Peaks]:
    """Return the peaks of every run and level. Only checkpoints at which all tasks have both curves are used."""
    score = "accuracy" if specification.event == "acquisition" else "log_prob"
    asked = ("peaks", measure, specification.readout, specification.site, specification.axis, score)
    if asked not in evidence.memory:
        evidence.memory[asked] = _all_peaks(evidence, specification, measure, score)
    found = evidence.acquisitions(specification).filter(pl.col("status") == FOUND)
    acquired = {tuple(row) for row in found.select(*RUN_KEY, "level", "task").iter_rows()}
    known = [
        np.array([(*each.run, each.level, task) in acquired for task in each.tasks]) for each in evidence.memory[asked]
    ]
    return [replace(each, acquired=mask) for each, mask in zip(evidence.memory[asked], known, strict=True)]


def _all_peaks(evidence: Evidence, specification: Specification, measure: str, score: str) -> list[Peaks]:
    """Return the peaks of every run and level, every task taken for acquired."""
    curves = evidence.curves(specification, measure).select(*RUN_KEY, "task", "level", "step", "value")
    scores = evidence.observations.filter(pl.col("measure") == score).select(*RUN_KEY, "task", "level", "step", "value")
    result = []
    measured = _parts(curves)
    for (run, level), right in _by_level(scores).items():
        left = measured.get(run, {})
        tasks = tuple(sorted({task for task, _ in left} & right.keys()))
        lines = [left.get((task, level)) or left.get((task, "mixed")) or left.get((task, None)) for task in tasks]
        pairs = [(task, line) for task, line in zip(tasks, lines, strict=True) if line]
        if not pairs:
            continue
        tasks = tuple(task for task, _ in pairs)
        common = set.intersection(*(set(line) for _, line in pairs), *(set(right[task]) for task in tasks))
        steps = np.array(sorted(common), dtype=float)
        if steps.size <= MIN_POINTS:
            continue
        a = np.array([[line[step] for step in steps] for _, line in pairs])
        b = np.array([[right[task][step] for step in steps] for task in tasks])
        spacing = float(np.median(np.diff(steps)))
        if specification.axis == "steps":
            count = int(min(MAX_GRID, max(steps.size, round((steps[-1] - steps[0]) / spacing) + 1)))
            grid = np.linspace(steps[0], steps[-1], count)
            a, b, spacing = interpolate(steps, a, grid), interpolate(steps, b, grid), float(grid[1] - grid[0])
        r, lags = peaks_of(differences_correlation(a, b))
        result.append(Peaks(run, level, tasks, r, lags, spacing, np.ones(len(tasks), dtype=bool), a, b))
    return result


def block_rates(peaks: list[Peaks], specification: Specification, least: float, draws: int = 99) -> np.ndarray:
    """Return the rate of ``leads`` in surrogates: the accuracy's differences in blocks, the blocks in random order.

    Blocks of about the square root of the series' length keep what is local in it. The same order is used for all tasks
    of a run. (A circular shift would join the end of a trend to its start.)
    """
    rng = np.random.default_rng(specification.seed)
    rates = np.full(draws, np.nan)
    for draw in range(draws):
        led = total = 0
        for each in peaks:
            moves = np.diff(each.scored, axis=1)
            size = max(2, round(np.sqrt(moves.shape[1])))
            blocks = [np.arange(at, min(at + size, moves.shape[1])) for at in range(0, moves.shape[1], size)]
            order = np.concatenate([blocks[index] for index in rng.permutation(len(blocks))])
            mixed = np.concatenate([each.scored[:, :1], moves[:, order]], axis=1).cumsum(axis=1)
            r, lags = peaks_of(differences_correlation(each.measured, mixed))
            leads = ((np.abs(r) > least) & (lags < 0)).diagonal()[each.acquired]
            led, total = led + int(leads.sum()), total + leads.size
        if total:
            rates[draw] = led / total
    return rates


def _parts(curves: pl.DataFrame) -> dict[tuple[Any, ...], dict[tuple[str, str | None], dict[int, float]]]:
    result: dict[tuple[Any, ...], dict[tuple[str, str | None], dict[int, float]]] = {}
    for *run, task, level, step, value in curves.drop_nulls("value").iter_rows():
        result.setdefault(tuple(run), {}).setdefault((task, level), {})[step] = value
    return result


def _by_level(scores: pl.DataFrame) -> dict[tuple[tuple[Any, ...], str | None], dict[str, dict[int, float]]]:
    result: dict[tuple[tuple[Any, ...], str | None], dict[str, dict[int, float]]] = {}
    for *run, task, level, step, value in scores.drop_nulls("value").iter_rows():
        result.setdefault((tuple(run), level), {}).setdefault(task, {})[step] = value
    return result
