"""Components of variance against planted ones, and the coverage of their interval."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from pythiageo.stats.resampling import percentile_interval, smooth_weights
from pythiageo.stats.variance import crossed_shares, residual_variances, share_within


@pytest.mark.parametrize(("groups", "members"), [(8, 2), (20, 3)])
def test_a_planted_share_is_covered_in_95_of_100(groups: int, members: int) -> None:
    """Within 1, between 9: a share of 0.1. Of 1,000 tables, 950 +- 4 standard errors (6.9 each) hold it."""
    rng = np.random.default_rng(0)
    found = [share_within(3 * rng.normal(size=(groups, 1)) + rng.normal(size=(groups, members))) for _ in range(1000)]
    held = sum(each is not None and each[1][0] <= 0.1 <= each[1][1] for each in found)
    assert abs(held - 950) < 4 * 6.9
    # a share of the sums of squares would have a median of 0.05 with two members
    assert np.median([each[0] for each in found if each]) == pytest.approx(0.1, rel=0.15)


def test_ends() -> None:
    assert share_within(np.array([[1.0, 1.0], [2.0, 2.0]])) == (0.0, (0.0, 0.0))
    assert share_within(np.array([[0.0, 1.0], [1.0, 0.0]])) is not None
    assert share_within(np.array([[0.0, 1.0], [1.0, 0.0]]))[0] == 1.0  # type: ignore[index]
    assert share_within(np.ones((3, 2))) is None
    assert share_within(np.ones((1, 2))) is None


GRID = np.array(list(product((0.0, 1.0), (0.0, 1.0, 2.0), (0.0, 1.0, 2.0))) * 2)
"""Two seeds of every combination of three settings: 36 runs."""
NOTHING = np.empty((len(GRID), 0))


def dummies(column: np.ndarray) -> np.ndarray:
    return (column[:, None] == np.unique(column)[None, 1:]).astype(float)


def share(values: np.ndarray, predictors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    left, whole = (residual_variances(values, each, weights).sum(axis=1) for each in (predictors, NOTHING))
    return np.asarray(1 - left / whole)


def draw(rng: np.random.Generator, by_setting: float, by_accuracy: float, tasks: int = 4) -> tuple[np.ndarray, ...]:
    """Return values of which a setting and a covariate make these shares; half of the rest is one for all tasks."""
    accuracy = rng.normal(size=(len(GRID), tasks))
    noise = np.sqrt(0.5) * (rng.normal(size=(len(GRID), 1)) + rng.normal(size=(len(GRID), tasks)))
    setting = (GRID[:, 2:] - 1) / GRID[:, 2].std()
    parts = zip((by_setting, by_accuracy, 1 - by_setting - by_accuracy), (setting, accuracy, noise), strict=True)
    return sum((np.sqrt(each) * of for each, of in parts), np.zeros_like(noise)), accuracy


def test_a_share_is_an_adjusted_r_squared() -> None:
    """Against numpy's own least squares, with equal weights; a column that others make up changes nothing."""
    rng = np.random.default_rng(0)
    values, predictors = rng.normal(size=(36, 1)), rng.normal(size=(36, 3))
    whole = np.column_stack([np.ones(36), predictors])
    squares = float(np.linalg.lstsq(whole, values, rcond=None)[1][0])
    adjusted = 1 - squares / 32 / values.var(ddof=1)
    for columns in (predictors, np.column_stack([predictors, predictors.sum(axis=1), np.full(36, 0.7)])):
        assert share(values, columns, np.ones((1, 36)))[0] == pytest.approx(adjusted, abs=1e-12)


def test_a_run_of_no_weight_is_one_left_out() -> None:
    rng = np.random.default_rng(1)
    values, predictors = rng.normal(size=(12, 1)), rng.normal(size=(12, 2))
    weights = np.array([[2.0] * 6 + [1e-12] * 6])
    once = residual_variances(values[:6], predictors[:6], np.ones((1, 6)))
    assert residual_variances(values, predictors, weights) == pytest.approx(once, rel=1e-9)


@pytest.mark.parametrize(("by_setting", "by_accuracy"), [(0.0, 0.0), (0.4, 0.2), (0.7, 0.1)])
def test_planted_shares_are_found_and_covered(by_setting: float, by_accuracy: float) -> None:
    """Of 100 tables, the mean share is the planted one within 4 standard errors (of their own spread), in noise too,
    and the 95% interval holds it in 85 at least: it is a bootstrap of 36 runs, 90 to 99% in simulations of 200.
    """
    rng = np.random.default_rng(2)
    settings = np.column_stack([dummies(GRID[:, at]) for at in range(3)])
    found = []
    for _ in range(100):
        values, accuracy = draw(rng, by_setting, by_accuracy)
        weights = smooth_weights(len(GRID), 199, rng)
        of_accuracy = 1 - np.sum(
            [residual_variances(values[:, [at]], accuracy[:, [at]], weights) for at in range(4)], axis=0
        )[:, 0] / residual_variances(values, NOTHING, weights).sum(axis=1)
        shares = share(values, dummies(GRID[:, 2]), weights), share(values, settings, weights), of_accuracy
        found.append([(each[0], *(percentile_interval(each[1:]) or (np.nan, np.nan))) for each in shares])
    for at, truth in enumerate((by_setting, by_setting, by_accuracy)):
        estimate, low, high = np.array(found)[:, at].T
        # a ratio of unbiased variances is biased by their spread over n: 0.01 here
        assert abs(estimate.mean() - truth) < 4 * estimate.std() / 10 + 0.01
        assert ((low <= truth) & (truth <= high)).mean() >= 0.85


def test_components_of_runs_and_tasks() -> None:
    """Task 5, run 2, the two together 3: of 400 tables of 30 runs and 8 tasks, means within 4 standard errors."""
    rng = np.random.default_rng(3)
    truth = np.array([5.0, 2.0, 3.0])
    found = []
    for _ in range(400):
        parts = rng.normal(size=(1, 8)), rng.normal(size=(30, 1)), rng.normal(size=(30, 8))
        values = sum((np.sqrt(each) * of for each, of in zip(truth, parts, strict=True)), np.zeros((30, 8)))
        found.append(crossed_shares(values, np.ones((1, 30)))[0])
    shares = np.array(found)
    assert shares.sum(axis=1) == pytest.approx(1)
    # the mean of a ratio is not the ratio of means: the task's part has seven degrees of freedom, 0.04 here
    assert (np.abs(np.median(shares, axis=0) - truth / 10) < 4 * shares.std(axis=0) / 20 + 0.04).all()
