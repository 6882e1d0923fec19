"""InfoNCE, DiME and LiDAR of augmented views: closed forms, dense references, invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pythiageo.geometry import dime, infonce, lidar
from pythiageo.no_value import NoValueError


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def entropy(gram: np.ndarray) -> float:
    values = np.linalg.eigvalsh(gram)
    p = values[values > 0] / values[values > 0].sum()
    return float(-(p * np.log(p)).sum())


def test_infonce_of_known_views() -> None:
    """One prompt of n matches with similarity 1, all others with 0: log n - log(1 + (n - 1) exp(-1 / temperature))."""
    for n, temperature in ((4, 0.1), (9, 1.0), (50, 0.5)):
        found = infonce(torch.eye(n), torch.eye(n), temperature)
        assert found == pytest.approx(math.log(n) - math.log1p((n - 1) * math.exp(-1 / temperature)), rel=1e-12)
    alike = torch.ones(7, 3)
    assert infonce(alike, alike) == pytest.approx(0, abs=1e-12)
    # the view of another prompt is the nearest
    assert infonce(torch.eye(4), torch.eye(4).roll(1, 0)) < -1


def test_infonce_against_a_sum_over_all_pairs() -> None:
    first, second = normal(11, 5) / 3, normal(11, 5, seed=1) / 3
    loss = 0.0
    for i in range(11):
        scores = [float(first[i] @ second[j]) / 0.1 for j in range(11)]
        loss += (math.log(math.fsum(math.exp(score) for score in scores)) - scores[i]) / 11
    assert infonce(first, second) == pytest.approx(math.log(11) - loss, rel=1e-12)
    turn = torch.linalg.qr(normal(5, 5, seed=2)).Q
    assert infonce(first @ turn, second @ turn) == pytest.approx(infonce(first, second), rel=1e-9)


def test_dime_is_the_mean_over_all_permutations_in_the_limit() -> None:
    """Four prompts have 24 permutations: the mean over 4,000 draws is within 3% of the mean over all."""
    from itertools import permutations

    first, second = normal(4, 6) + 1, normal(4, 6, seed=1) + 1
    one, other = ((view @ view.T).numpy() for view in (first, second))
    every = [entropy(one * other[np.ix_(order, order)]) for order in permutations(range(4))]
    expected = float(np.mean(every)) - entropy(one * other)
    assert dime(first, second, 4000) == pytest.approx(expected, abs=0.03 * max(every))
    assert dime(100 * first, 0.01 * second) == pytest.approx(dime(first, second), rel=1e-9, abs=1e-12)
    assert dime(first, second, seed=1) == dime(first, second, seed=1)


def test_dime_tells_pairs_that_share_clusters_from_pairs_that_share_nothing() -> None:
    clusters = torch.eye(5).repeat_interleave(8, dim=0).double()
    shared = dime(clusters, clusters)
    # block matrices: log 5 with true pairs; the shuffled product keeps about 1 in 5 of each block's pairs
    assert entropy((clusters @ clusters.T).numpy()) == pytest.approx(math.log(5), rel=1e-9)
    assert shared > 1
    assert abs(dime(normal(40, 30), normal(40, 30, seed=1))) < 0.1


def test_lidar_of_planted_scatters() -> None:
    """Means along r axes with equal spread, noise of one size: r; noise that drowns an axis takes it away."""
    means = torch.cat([torch.eye(3), -torch.eye(3)]).double() @ torch.eye(3, 8, dtype=torch.float64)
    apart = torch.tensor([1.0, -1.0]).double()[:, None] * torch.ones(8, dtype=torch.float64)
    assert lidar(means[:, None] + 1e-3 * apart) == pytest.approx(3, rel=1e-3)
    noise = torch.zeros(8, dtype=torch.float64)
    noise[0] = 1e3
    assert lidar(means[:, None] + torch.tensor([1.0, -1.0]).double()[:, None] * noise) == pytest.approx(2, rel=1e-3)


def test_lidar_against_the_papers_equations() -> None:
    views = normal(9, 4, 6) + 2 * normal(9, 1, 6, seed=1)
    states = views.numpy()
    means = states.mean(axis=1)
    between = sum(np.outer(m - means.mean(axis=0), m - means.mean(axis=0)) for m in means) / 9
    within = sum(np.outer(states[i, j] - means[i], states[i, j] - means[i]) for i in range(9) for j in range(4)) / 36
    values, vectors = np.linalg.eigh(within + 1e-4 * np.eye(6))
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    assert lidar(views) == pytest.approx(math.exp(entropy(root @ between @ root)), rel=1e-9)
    turn = torch.linalg.qr(normal(6, 6, seed=2)).Q
    assert lidar(views @ turn) == pytest.approx(lidar(views), rel=1e-9)
    assert 1 <= lidar(views) <= 6


def test_what_is_no_pair_of_views_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected two views .* got \(3, 2\) and \(4, 2\)"):
        infonce(torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match="temperature above 0, got 0"):
        infonce(torch.eye(3), torch.eye(3), 0.0)
    with pytest.raises(ValueError, match="at least one permutation, got 0"):
        dime(torch.eye(3), torch.eye(3), 0)
    with pytest.raises(ValueError, match=r"two views or more, got \(5, 1, 3\)"):
        lidar(torch.ones(5, 1, 3))
    with pytest.raises(NoValueError, match="NaN or infinity"):
        infonce(torch.eye(3), torch.full((3, 3), math.nan))
    with pytest.raises(NoValueError, match="a view are zero"):
        dime(torch.zeros(3, 3), torch.eye(3))
    with pytest.raises(NoValueError, match="do not vary"):
        lidar(torch.ones(4, 2, 3))
