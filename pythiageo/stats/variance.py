"""How a variance divides between groups and within them."""

from __future__ import annotations

import numpy as np
from scipy import stats  # type: ignore[import-untyped]


def share_within(values: np.ndarray) -> tuple[float, tuple[float, float]] | None:
    """Return the share of the variance that lies within groups, ``(groups, members)``, and its 95% interval.

    w / (w + b), with the components of a one-way random-effects analysis: w = MSW, b = (MSB - MSW) / members, not
    below 0. The share of the sums of squares would be low by (members - 1) / members. The interval is exact for
    normal effects: MSB / MSW over 1 + members b / w has an F distribution. ``None`` where nothing varies, or with
    fewer than two groups or two members.

    Source: Searle, Casella & McCulloch, Variance Components, 1992, section 3.6.

    >>> share_within(np.array([[0.0, 2.0], [4.0, 6.0]]))[0]  # MSW 2, MSB 16: 2 / (2 + 7)
    0.2222222222222222
    """
    groups, members = values.shape
    if groups < 2 or members < 2:
        return None
    means = values.mean(axis=1)
    freedom = groups - 1, groups * (members - 1)
    between = members * float(((means - means.mean()) ** 2).sum()) / freedom[0]
    within = float(((values - means[:, None]) ** 2).sum()) / freedom[1]
    if between + within == 0:
        return None
    if within == 0:
        return 0.0, (0.0, 0.0)
    ratio = between / within
    low, high = (ratio / stats.f.ppf(q, *freedom) for q in (0.025, 0.975))
    share, least, greatest = (members / (members + max(each - 1, 0.0)) for each in (ratio, low, high))
    return share, (least, greatest)


def residual_variances(values: np.ndarray, predictors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the variance that a least-squares fit leaves, under each set of weights: ``(draws, columns)``.

    RSS / (n - tr((X'WX)^-1 X'W^2 X)) with a constant among the columns of X: without bias for errors of one variance,
    whatever the weights. So a fit of noise leaves all of the variance on average, in every draw of a bootstrap too.
    Equal weights give RSS / (n - rank). Columns that others make up count once.

    Args:
        values: ``(runs, columns)``, each column fitted by itself.
        predictors: ``(runs, predictors)``, without the constant; none for the variance itself.
        weights: ``(draws, runs)``, positive, of mean 1.

    >>> residual_variances(np.array([[1.0], [2.0], [6.0]]), np.empty((3, 0)), np.ones((1, 3)))  # 14 / 2
    array([[7.]])
    """
    basis = orthonormal_columns(predictors)
    gram, squared = (np.einsum("np,dn,nq->dpq", basis, each, basis, optimize=True) for each in (weights, weights**2))
    moment = np.einsum("np,dn,nk->dpk", basis, weights, values, optimize=True)
    residuals = values[None] - np.einsum("np,dpk->dnk", basis, np.linalg.solve(gram, moment))
    freedom = weights.sum(axis=1) - np.trace(np.linalg.solve(gram, squared), axis1=1, axis2=2)
    return np.einsum("dn,dnk->dk", weights, residuals**2) / freedom[:, None]


def orthonormal_columns(predictors: np.ndarray) -> np.ndarray:
    """Return orthonormal columns with the span of the predictors and a constant, ``(runs, rank)``."""
    centred = predictors - predictors.mean(axis=0)
    size = np.linalg.norm(centred, axis=0)
    kept = size > 1e-12 * np.maximum(np.abs(predictors).max(axis=0, initial=0), 1e-300)
    constant = np.ones((len(predictors), 1))
    whole = np.column_stack([constant / np.linalg.norm(constant), centred[:, kept] / size[kept]])
    left, singular, _ = np.linalg.svd(whole, full_matrices=False)
    return np.asarray(left[:, singular > 1e-9 * singular[0]])


def crossed_shares(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return which shares of a variance go with the column, with the row and with the two together: ``(draws, 3)``.

    Components of a two-way random-effects analysis of ``(runs, tasks)`` with one value each, by moments: with W the
    mean variance within a task and M that of the runs' means over k tasks, run = (k M - W) / (k - 1), run and task =
    W - run, task = variance of the tasks' means - (run and task) sum w^2 / n^2. A share may come out below 0.

    Source: Searle, Casella & McCulloch, Variance Components, 1992, section 4.

    Args:
        values: ``(runs, tasks)``, two of each at least.
        weights: ``(draws, runs)``, positive, of mean 1.
    """
    runs, tasks = values.shape
    nothing = np.empty((runs, 0))
    within = residual_variances(values, nothing, weights).mean(axis=1)
    of_means = residual_variances(values.mean(axis=1, keepdims=True), nothing, weights)[:, 0]
    run = (tasks * of_means - within) / (tasks - 1)
    means = np.einsum("dn,nk->dk", weights, values) / weights.sum(axis=1, keepdims=True)
    noise = (weights**2).sum(axis=1) / weights.sum(axis=1) ** 2
    task = means.var(axis=1, ddof=1) - (within - run) * noise
    return np.asarray(np.stack([task, run, within - run], axis=1) / (task + within)[:, None])
