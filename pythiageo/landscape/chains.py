"""What several Markov chains say together: a standard error, and whether they agree."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtri, stdtrit  # type: ignore[import-untyped]
from scipy.stats import rankdata  # type: ignore[import-untyped]

FEWEST_DRAWS = 4
"""Of a chain, for its autocorrelations to be looked at."""
TAILS = (0.05, 0.95)
"""Quantiles whose effective number of draws is that of the tails."""
FEWEST = 3.0
"""Stretches of draws, each as long as draws are correlated, below which no standard error is believed.

A higher limit would not be safer: where draws are as correlated, it lets those pass whose correlation is underrated."""


def effective_draws(chains: np.ndarray) -> float:
    """Return the number of independent draws whose mean has this one's standard error, for ``chains`` (chain, draw).

    By autocorrelations, chains together, summed in pairs up to the first pair below zero and made monotone (Geyer 1992;
    Vehtari et al. 2021, arXiv 1903.08008). Chains that disagree count as correlated draws. Draws that do not vary count
    as one, fewer than 4 of a chain as one a chain.
    """
    found = _effective(chains, "identity")
    return found or (1.0 if chains.shape[1] >= FEWEST_DRAWS else float(len(chains)))


def bulk_draws(chains: np.ndarray) -> float | None:
    """Return the effective number of draws for the centre of their distribution.

    That of the draws' normal scores, halves of chains apart, so that heavy tails do not decide it (Vehtari et al.).
    None with fewer than 4 draws a chain, or draws that do not vary.
    """
    return _effective(chains, "bulk")


def tail_draws(chains: np.ndarray) -> float | None:
    """Return the effective number of draws for their 5% or 95% quantile, the fewer; None as ``bulk_draws``."""
    return _effective(chains, "tail", TAILS)


def _effective(chains: np.ndarray, method: str, prob: tuple[float, float] | None = None) -> float | None:
    if chains.shape[1] < FEWEST_DRAWS or not np.ptp(chains) > 0:
        return None
    from arviz_stats.base import array_stats  # noqa: PLC0415 - takes most of a second

    # it takes draws that differ by less than 1e-15, of whatever size they are, for equal ones
    scaled = (chains - chains.min()) / np.ptp(chains)
    return float(array_stats.ess(scaled, chain_axis=0, draw_axis=1, method=method, prob=prob))


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


def standard_error(chains: np.ndarray) -> float:
    """Return the Monte Carlo standard error of the mean over all draws."""
    return float(chains.std(ddof=1)) / math.sqrt(effective_draws(chains))


def chain_sd(chains: np.ndarray) -> float | None:
    """Return the standard deviation over chains of each chain's own mean; None of a single chain.

    Where chains sample one distribution it is the standard error of one of them.
    """
    return float(chains.mean(axis=1).std(ddof=1)) if len(chains) > 1 else None


def interval_error(chains: np.ndarray) -> float | None:
    """Return half a 95% interval of the mean over all draws, over 1.96; None where draws are too correlated for one.

    A chain's own mean takes slow movements off its autocorrelations, the more the fewer stretches of correlated draws
    it has, and a standard error from few of them errs: both are made up for, the second by Student's t.
    """
    count, draws = chains.shape
    covariances = _covariances(np.asarray(chains, dtype=np.float64))
    if draws < FEWEST_DRAWS:
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
    """Return the rank-normalised split R-hat of ``chains`` (chain, draw): 1 where halves of all chains agree.

    The ratio of the pooled standard deviation to that within halves, of the draws' normal scores or of their distances'
    from the median, whichever is larger: so chains of one mean and different spreads are seen, and heavy tails do not
    hide what is apart (Vehtari et al. 2021). Of a single chain, its two halves. None with fewer than 4 draws in half a
    chain, or halves that do not vary.
    """
    half = chains.shape[1] // 2
    halves = np.concatenate([chains[:, :half], chains[:, -half:]])
    if half < FEWEST_DRAWS or not np.ptp(halves, axis=1).any():
        return None
    from arviz_stats.base import array_stats  # noqa: PLC0415 - takes most of a second

    # the library's own split refuses a single chain
    with np.errstate(invalid="ignore"):  # of two values alone, distances from the median are equal
        found = [
            float(array_stats.rhat(_normal_scores(each), chain_axis=0, draw_axis=1, method="identity"))
            for each in (halves, np.abs(halves - np.median(halves)))
        ]
    return float(np.nanmax(found))


def _normal_scores(draws: np.ndarray) -> np.ndarray:
    """Return the normal quantiles of the draws' ranks among all of them (Blom 1958)."""
    return np.asarray(ndtri((rankdata(draws).reshape(draws.shape) - 3 / 8) / (draws.size + 1 / 4)))


def drift(chains: np.ndarray) -> float:
    """Return how far the last third of the draws lies above the first, in standard errors of the difference.

    Geweke's comparison (1992), over all chains.
    """
    difference, error = _rise(chains)
    return difference / error if error > 0 else 0.0


def _rise(chains: np.ndarray) -> tuple[float, float]:
    """Return how far the last third of the draws lies above the first, and the standard error of that."""
    third = chains.shape[1] // 3
    if third < FEWEST_DRAWS:
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
