"""Components of variance against planted ones, and the coverage of their interval."""

from __future__ import annotations

import numpy as np
import pytest

from pythiageo.stats.variance import share_within


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
