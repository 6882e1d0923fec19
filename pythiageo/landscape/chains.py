"""What several Markov chains say together: a standard error, and whether they agree."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]

FEWEST = 3.0
"""Stretches of draws, each as long as draws are correlated, below which no standard error is believed.

A higher limit would not be safer: where draws are as correlated, it lets those pass whose correlation is underrated."""


def effective_draws(chains: np.ndarray) -> float:
    """Return the effective number of independent draws in ``chains`` (chain, draw).

    By autocorrelations, chains together, summed in pairs up to the first pair below zero and made monotone (Geyer
    1992; Gelman et al., Bayesian Data Analysis, 3rd edition, section 11.5). Chains that disagree count as correlated
    draws. Constant chains count as one draw.
    """
    chains = np.asarray(chains, dtype=np.float64)
    count, draws = chains.shape
    if draws < 4:
        return float(count)
    within = _covariances(chains) * draws / (draws - 1)
    pooled = pooled_variance(chains)
    if pooled <= 0:
        return 1.0
    rho = 1 - (within[0] - within) / pooled
    rho[0] = 1
    time = max(2 * float(_positive_pairs(rho).sum()) - 1, 1 / math.log10(count * draws + 10))
    return count * draws / time


def _covariances(chains: np.ndarray) -> np.ndarray:
    """Return autocovariances by lag, each chain's about its own mean, averaged over chains."""
    draws = chains.shape[1]
    deviation = chains - chains.mean(axis=1, keepdims=True)
    padded = 2 << draws.bit_length()  # twice the draws or more: the sums must not wrap around
    spectrum = np.abs(np.fft.rfft(deviation, n=padded, axis=1)) ** 2
    return (np.fft.irfft(spectrum, n=padded, axis=1)[:, :draws] / draws).mean(axis=0)


def _positive_pairs(rho: np.ndarray) -> np.ndarray:
    """Return sums of pairs of lags up to the first below zero, made monotone."""
    pairs = rho[: len(rho) // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs < 0)
    return np.minimum.accumulate(pairs[: negative[0]] if len(negative) else pairs)


def pooled_variance(chains: np.ndarray) -> float:
    """Return the variance of the chains' common distribution, overestimated where they disagree."""
    count, draws = chains.shape
    within = float(chains.var(axis=1, ddof=1).mean())
    between = float(chains.mean(axis=1).var(ddof=1)) if count > 1 else 0.0
    return within * (draws - 1) / draws + between


def standard_error(chains: np.ndarray) -> float:
    """Return the standard error of the mean over all draws."""
    return math.sqrt(max(pooled_variance(chains), 0.0) / effective_draws(chains))


def interval_error(chains: np.ndarray) -> float | None:
    """Return half a 95% interval of the mean over all draws, over 1.96; None where draws are too correlated for one.

    A chain's own mean takes slow movements off its autocorrelations, the more the fewer stretches of correlated draws
    it has, and a standard error from few of them errs: both are made up for, the second by Student's t.
    """
    count, draws = chains.shape
    covariances = _covariances(np.asarray(chains, dtype=np.float64))
    if draws < 4:
        return None
    if covariances[0] <= 0:
        return standard_error(chains)
    pairs = _positive_pairs(covariances / covariances[0])
    length = max(1, 2 * len(pairs))
    stretches, left = count * draws / length, 1 - length / draws
    if stretches < FEWEST or left <= 0:
        return None
    own = covariances[0] * max(2 * float(pairs.sum()) - 1, 0.0) / (count * draws)
    error = max(math.sqrt(own / left), standard_error(chains))
    return error * float(stdtrit(stretches, 0.975)) / 1.96


def r_hat(chains: np.ndarray) -> float | None:
    """Return split R-hat of ``chains`` (chain, draw): 1 where both halves of all chains agree.

    The ratio of the pooled standard deviation to that within halves (Gelman et al., section 11.4). None with fewer
    than 4 draws, or draws that do not vary.
    """
    half = chains.shape[1] // 2
    if half < 2:
        return None
    halves = np.concatenate([chains[:, :half], chains[:, -half:]])
    within = float(halves.var(axis=1, ddof=1).mean())
    return math.sqrt(pooled_variance(halves) / within) if within > 0 else None


def drift(chains: np.ndarray) -> float:
    """Return how far the last third of the draws lies above the first, in standard errors of the difference.

    Geweke's comparison (1992), over all chains.
    """
    difference, error = _rise(chains)
    return difference / error if error > 0 else 0.0


def _rise(chains: np.ndarray) -> tuple[float, float]:
    """Return how far the last third of the draws lies above the first, and the standard error of that."""
    third = chains.shape[1] // 3
    if third < 2:
        return 0.0, 0.0
    early, late = chains[:, :third], chains[:, -third:]
    return float(late.mean() - early.mean()), math.hypot(standard_error(early), standard_error(late))


def unfinished(chains: np.ndarray, rate: float | None) -> float:
    """Return by how much the mean may be off because the slowest movement, of this rate a draw, has not ended.

    What is left of it, from the rise of the last third over the first as far as that is more than noise; all of the
    rise where no rate is known.
    """
    difference, error = _rise(chains)
    more = math.sqrt(max(0.0, difference**2 - error**2))
    if not rate:
        return more
    span = rate * chains.shape[1]
    left = -math.expm1(-span) / span
    return more * left / (math.expm1(-span / 3) / (span / 3) * math.expm1(-2 * span / 3))


def whole_error(chains: np.ndarray, bias: float, rate: float | None) -> float | None:
    """Return ``interval_error`` together with what is ``unfinished`` and with a known ``bias`` of either sign."""
    drawn = interval_error(chains)
    return None if drawn is None else math.hypot(drawn, bias, unfinished(chains, rate))
