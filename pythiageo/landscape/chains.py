"""What several Markov chains say together: a standard error, and whether they agree."""

from __future__ import annotations

import math

import numpy as np


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
    deviation = chains - chains.mean(axis=1, keepdims=True)
    padded = 2 << draws.bit_length()  # twice the draws or more: the sums must not wrap around
    spectrum = np.abs(np.fft.rfft(deviation, n=padded, axis=1)) ** 2
    covariance = np.fft.irfft(spectrum, n=padded, axis=1)[:, :draws] / draws
    within = float(covariance[:, 0].mean()) * draws / (draws - 1)
    pooled = pooled_variance(chains)
    if pooled <= 0:
        return 1.0
    rho = 1 - (within - covariance.mean(axis=0) * draws / (draws - 1)) / pooled
    rho[0] = 1
    pairs = rho[: draws // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs < 0)
    pairs = np.minimum.accumulate(pairs[: negative[0]] if len(negative) else pairs)
    time = max(2 * float(pairs.sum()) - 1, 1 / math.log10(count * draws + 10))
    return count * draws / time


def pooled_variance(chains: np.ndarray) -> float:
    """Return the variance of the chains' common distribution, overestimated where they disagree."""
    count, draws = chains.shape
    within = float(chains.var(axis=1, ddof=1).mean())
    between = float(chains.mean(axis=1).var(ddof=1)) if count > 1 else 0.0
    return within * (draws - 1) / draws + between


def standard_error(chains: np.ndarray) -> float:
    """Return the standard error of the mean over all draws."""
    return math.sqrt(max(pooled_variance(chains), 0.0) / effective_draws(chains))


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
    third = chains.shape[1] // 3
    if third < 2:
        return 0.0
    early, late = chains[:, :third], chains[:, -third:]
    error = math.hypot(standard_error(early), standard_error(late))
    difference = float(late.mean() - early.mean())
    return difference / error if error > 0 else 0.0
