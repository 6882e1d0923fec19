"""Resampling: bootstrap weights, permutations of labels, intervals over models, Kendall's tau over layers."""

from __future__ import annotations

from itertools import permutations as every_order
from math import factorial

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]

MIN_CLUSTERS = 3
"""An interval over fewer models than this is a guess."""
EXACT_UP_TO = 7
"""All orders of so many labels are tried (5,040); of more, as many as there are resamples."""


def bootstrap_weights(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of ``n`` units is drawn, ``(resamples, n)``."""
    return rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float) if n else np.zeros((resamples, 0))


def smooth_weights(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return weights of mean 1 of ``n`` units, equal ones first: ``(1 + resamples, n)``, of a Bayesian bootstrap.

    No unit is ever left out, so that a fit which needs every group has every group in each draw.

    Source: Rubin, The Bayesian Bootstrap, Annals of Statistics 9, 1981.
    """
    return np.vstack([np.ones(n), n * rng.dirichlet(np.ones(n), size=resamples)])


def label_orders(n: int, resamples: int, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """Return orders of ``n`` labels, the given one among them, ``(orders, n)``; and whether they are all there are."""
    if n == 0:
        return np.zeros((1, 0), dtype=int), True
    if n <= EXACT_UP_TO:
        return np.array(list(every_order(range(n))), dtype=int).reshape(factorial(n), n), True
    drawn = np.argsort(rng.random((resamples, n)), axis=1)
    return np.vstack([np.arange(n), drawn]), False


def percentile_interval(draws: np.ndarray) -> tuple[float, float] | None:
    """Return the middle 95% of the finite draws; ``None`` where fewer than half are finite."""
    finite = draws[np.isfinite(draws)]
    if finite.size < max(2, draws.size / 2):
        return None
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def cluster_interval(means: np.ndarray) -> tuple[float, float] | None:
    """Return the t interval of the mean over models; ``None`` for fewer than ``MIN_CLUSTERS``."""
    if means.size < MIN_CLUSTERS:
        return None
    half = float(stdtrit(means.size - 1, 0.975) * means.std(ddof=1) / np.sqrt(means.size))
    return float(means.mean()) - half, float(means.mean()) + half


def kendall_scores(depth: np.ndarray, steps: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Return Kendall's tau-b of depth against ``steps[order]`` for every order.

    tau-b = sum over pairs of sign(depth) sign(step) / sqrt(pairs untied in depth * pairs untied in steps).

    Args:
        depth: ``(layers,)``.
        steps: ``(layers,)``.
        orders: ``(orders, layers)``, indices.

    Returns:
        ``(orders,)``; 0 where all steps are equal: no order either way.
    """
    upper = np.triu_indices(depth.size, 1)
    of_depth = np.sign(depth[upper[1]] - depth[upper[0]])
    moved = steps[orders]
    of_steps = np.sign(moved[:, upper[1]] - moved[:, upper[0]])
    scale = np.sqrt(np.count_nonzero(of_depth) * np.count_nonzero(of_steps, axis=1))
    return np.divide(of_steps @ of_depth, scale, out=np.zeros(len(orders)), where=scale > 0)


def upper_p(drawn: np.ndarray, observed: float) -> float:
    """Return the share of draws at least as large as the observed one. The observed one is among them."""
    finite = drawn[np.isfinite(drawn)]
    # draws that are equal in exact arithmetic may differ in the last bit
    reached = int(np.count_nonzero(finite >= observed - 1e-12))
    return reached / finite.size


def both_tails(drawn: np.ndarray, observed: float) -> tuple[float, float]:
    """Return the share of draws at least, and at most, as large as the observed one, which is among them.

    >>> both_tails(np.array([1.0, 2.0, 3.0]), 1.0)
    (1.0, 0.3333333333333333)
    """
    return upper_p(drawn, observed), upper_p(-drawn, -observed)
