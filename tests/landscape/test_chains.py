"""Agreement and sizes of chains: against arviz-stats, the formulas of the paper, and closed forms of AR(1)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy.stats import multivariate_normal, norm, rankdata
from test_llc import autoregressive

from pythiageo.landscape.chains import bulk_draws, chain_sd, effective_draws, r_hat, standard_error, tail_draws


def heavy_tails(seed: int, chains: int = 4, draws: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).standard_cauchy((chains, draws))


@pytest.mark.parametrize("draws", [heavy_tails(0), autoregressive(0.9, 4, 401, 0), autoregressive(0.3, 2, 100, 1)])
def test_r_hat_of_several_chains_is_the_librarys(draws: np.ndarray) -> None:
    assert r_hat(draws) == pytest.approx(float(array_stats.rhat(draws, method="rank")), rel=1e-12)


def test_r_hat_by_the_formulas_of_the_paper() -> None:
    """Vehtari et al. 2021, equations 1 to 4 and 14: by hand, of a single chain, which the library refuses."""
    draws = autoregressive(0.8, 1, 100, 2)

    def ratio(values: np.ndarray) -> float:
        z = norm.ppf((rankdata(values) - 3 / 8) / (values.size + 1 / 4)).reshape(2, 50)
        within = (z[0].var(ddof=1) + z[1].var(ddof=1)) / 2
        between = (z[0].mean() - z[1].mean()) ** 2 / 2
        return math.sqrt((within * 49 / 50 + between) / within)

    assert r_hat(draws) == pytest.approx(max(ratio(draws), ratio(np.abs(draws - np.median(draws)))), rel=1e-12)


def test_r_hat_sees_what_means_and_variances_do_not() -> None:
    """One chain of the same mean is wider; another lies apart where draws have no variance."""
    alike = np.random.default_rng(0).normal(size=(4, 400))
    wider = alike * np.array([1, 1, 1, 4])[:, None]
    assert np.ptp(wider.mean(axis=1)) < 0.5
    assert (r_hat(alike) or 0) < 1.02
    assert (r_hat(wider) or 0) > 1.1
    apart = heavy_tails(1) + np.array([0, 0, 0, 5])[:, None]
    assert (r_hat(heavy_tails(1)) or 0) < 1.05
    assert (r_hat(apart) or 0) > 1.1


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_bulk_and_tail_of_an_autoregressive_chain(rho: float) -> None:
    """Normal scores of a Gaussian chain are the chain; a quantile's indicators are correlated as the orthants say."""
    draws = autoregressive(rho, 4, 10_000, 3)
    assert bulk_draws(draws) == pytest.approx(40_000 * (1 - rho) / (1 + rho), rel=0.15)
    low = norm.ppf(0.05)
    lags = rho ** np.arange(1, 100)
    both = [float(multivariate_normal([0, 0], [[1, r], [r, 1]]).cdf([low, low])) for r in lags[lags > 1e-4]]
    time = 1 + 2 * sum((each - 0.05**2) / (0.05 * 0.95) for each in both)
    assert tail_draws(draws) == pytest.approx(40_000 / time, rel=0.15)


def test_sizes_do_not_depend_on_the_scale_of_the_draws() -> None:
    """The library takes draws within 1e-15 of one another for equal ones."""
    draws = autoregressive(0.8, 2, 400, 4)
    for scale in (1e-25, 1e12):
        for size in (effective_draws, bulk_draws, tail_draws, r_hat):
            assert size(3 * scale + scale * draws) == pytest.approx(size(3 + draws), rel=1e-6)


@pytest.mark.parametrize("shape", [(1, 2), (1, 3), (4, 3), (3, 7), (1, 400)])
def test_what_has_no_answer_has_none(shape: tuple[int, int]) -> None:
    constant, few = np.ones(shape), shape[1] < 4
    assert (r_hat(constant), bulk_draws(constant), tail_draws(constant), standard_error(constant)) == (
        None,
        None,
        None,
        0,
    )
    draws = np.random.default_rng(0).normal(size=shape)
    assert (bulk_draws(draws) is None) == (tail_draws(draws) is None) == few
    assert (r_hat(draws) is None) == (shape[1] < 8)
    assert math.isfinite(standard_error(draws))
    stuck = np.arange(float(shape[0]))[:, None] * np.ones(shape)
    assert r_hat(stuck) is None  # nothing within halves to compare with
    assert math.isfinite(effective_draws(stuck))
    two = np.where(draws > 0, 1.0, -1.0)
    assert r_hat(two) is None or math.isfinite(r_hat(two) or 0)


def test_the_spread_of_chains_is_the_standard_error_of_one() -> None:
    draws = autoregressive(0.9, 400, 1000, 5)
    one = math.sqrt((1 + 0.9) / (1 - 0.9) / 1000)
    assert chain_sd(draws) == pytest.approx(one, rel=0.1)  # sd of 400 values: 3.5%
    assert chain_sd(draws[:1]) is None
    assert standard_error(draws) == pytest.approx(one / 20, rel=0.1)
