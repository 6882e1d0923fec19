"""The standard error of a share of examples, of none and of all of them too."""

from __future__ import annotations

import math

Z = 1.959963984540054
"""The 97.5% point of the standard normal distribution."""


def wilson_half_width(rate: float, n: int) -> float:
    """Return half the width of Wilson's 95% interval of a rate seen in ``n`` independent examples.

    z / (1 + z^2 / n) sqrt(rate (1 - rate) / n + z^2 / (4 n^2)): above zero at rates of 0 and 1, where the interval runs
    from the rate to twice this.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    >>> round(2 * wilson_half_width(0.0, 200), 3)
    0.019
    """
    return Z / (1 + Z**2 / n) * math.sqrt(max(rate * (1 - rate), 0.0) / n + (Z / (2 * n)) ** 2)


def rate_stderr(rate: float, spread: float, n: int) -> float:
    """Return the standard error of a rate whose ``n`` independent examples have the standard error ``spread``.

    It is ``spread``, but for examples that are all alike (none right, or all): they show none, and the rate's error is
    not zero. There it is Wilson's half width over 1.96.

    >>> rate_stderr(0.5, 0.1, 25)
    0.1
    >>> round(rate_stderr(1.0, 0.0, 200), 4)
    0.0048
    """
    return spread if spread > 1e-12 else wilson_half_width(abs(rate), n) / Z
