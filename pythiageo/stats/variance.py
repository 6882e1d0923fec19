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
