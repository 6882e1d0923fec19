"""Eigenvalues that a single Krylov space passes over or sees once: each value that is ok is right, over many seeds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pythiageo.landscape.hessian import Hessian
from pythiageo.landscape.lanczos import Eigenvalues, SpectralDensity, spectral_density, top_eigenvalues


class Planted(Hessian):
    """A matrix with these eigenvalues, as the operator that a Hessian is."""

    def __init__(self, eigenvalues: Tensor, seed: int, dtype: torch.dtype = torch.float64) -> None:
        noise = torch.randn(len(eigenvalues), len(eigenvalues), generator=seeded(seed), dtype=torch.float64)
        rotation = torch.linalg.qr(noise).Q
        matrix = (rotation * eigenvalues.double()) @ rotation.T
        self.matrix = ((matrix + matrix.T) / 2).to(dtype)
        self.size = len(eigenvalues)
        self.gradient = torch.zeros(self.size, dtype=dtype)
        self.products = 0

    def product(self, vector: Tensor) -> Tensor:
        self.products += 1
        return self.matrix @ vector.to(self.matrix.dtype)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def joined(*parts: list[float] | Tensor) -> Tensor:
    return torch.cat([torch.as_tensor(part, dtype=torch.float64) for part in parts])


def spread(low: float, high: float, count: int) -> Tensor:
    return torch.linspace(low, high, count, dtype=torch.float64)


SPECTRA = {
    "negative and wide": (joined([0.5, 0.4, 0.3, 0.2, 0.1], spread(-1000, -100, 45)), 5),
    "a few far below": (joined([0.5, 0.4, 0.3, 0.2, 0.1], spread(-1000, -100, 10), spread(-0.05, 0.05, 105)), 5),
    "small beside large": (joined([1e4, 1, 0.9, 0.8, 0.7], spread(-0.1, 0.1, 115)), 4),
    "positive above negative": (joined([5, 4, 3, 2, 1], spread(-10, -1, 95)), 5),
    "five times": (joined([2.0] * 5, [1.0, 0.5], spread(-0.1, 0.1, 113)), 5),
    "in the middle three times": (joined([5, 3, 3, 3, 1], spread(-0.1, 0.1, 115)), 5),
    "all many times": (joined([1.5e-2] * 60, [6e-3] * 60, [2e-3] * 60, [0.0] * 20), 5),
    "pairs apart by a thousandth": (joined([10, 9.99, 9, 8.99, 8, 7.99], spread(-1, 1, 114)), 5),
    "slowly falling": (joined(100 / torch.arange(1, 91) ** 0.5, -20 / torch.arange(1, 31)), 5),
    "two and zeros": (joined([5.0, 3.0], [0.0] * 118), 5),
}
ENDS = {"largest": lambda x: x, "smallest": lambda x: -x, "magnitude": torch.abs}


def wanted(eigenvalues: Tensor, which: str, k: int) -> Tensor:
    return eigenvalues[ENDS[which](eigenvalues).argsort(descending=True)[:k]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, torch.float64) for name in SPECTRA]
    + [(name, torch.float32) for name in ("small beside large", "five times", "two and zeros")],
)
def test_a_value_that_is_ok_is_right(name: str, dtype: torch.dtype) -> None:
    eigenvalues, k = SPECTRA[name]
    truth = wanted(eigenvalues, "largest", k)
    for seed in range(20):
        operator = Planted(eigenvalues, seed, dtype)
        found = top_eigenvalues(operator, k, seeded(100 + seed))
        assert isinstance(found, Eigenvalues)
        for value, true, status in zip(found.values, truth, found.statuses, strict=True):
            assert status == ("ok" if true else "imprecise"), (seed, found)  # zero is never known to a share of itself
            assert float(abs(value - true)) <= 1e-3 * float(true.abs()) + 1e-6 * (status == "imprecise")


@pytest.mark.slow
@pytest.mark.parametrize("which", ["smallest", "magnitude"])
def test_other_ends_of_the_spectrum(which: str) -> None:
    eigenvalues = joined([9, -9, 7, -8, -8, -8], spread(-1, 1, 194))
    for seed in range(20):
        operator = Planted(eigenvalues, seed)
        found = top_eigenvalues(operator, 4, seeded(seed), which)
        assert isinstance(found, Eigenvalues)
        assert found.converged
        assert ENDS[which](found.values).tolist() == pytest.approx(
            [9, 8, 8, 8] if which == "smallest" else [9, 9, 8, 8], rel=1e-3
        )


@pytest.mark.parametrize("products", [12, 25, 40])
def test_too_few_products_cost_a_status_and_never_a_value(products: int) -> None:
    eigenvalues = joined([5, 3, 3, 3, 1, 0.95], spread(-4, 0.9, 194))
    truth = wanted(eigenvalues, "largest", 5)
    for seed in range(20):
        operator = Planted(eigenvalues, seed)
        found = top_eigenvalues(operator, 5, seeded(seed), max_products=products)
        assert isinstance(found, Eigenvalues)
        assert found.products <= products
        assert set(found.statuses) <= {"ok", "not_converged"}
        for value, true, status in zip(found.values, truth, found.statuses, strict=True):
            assert status != "ok" or float(value) == pytest.approx(float(true), rel=5e-3)
        assert products > 12 or not found.converged


def test_the_certificate_costs_few_products() -> None:
    """A network's spectrum. A search that certifies nothing took 22."""
    eigenvalues = joined(100 / torch.arange(1, 201), -20 / torch.arange(1, 101))
    counts = []
    for seed in range(20):
        operator = Planted(eigenvalues, seed)
        found = top_eigenvalues(operator, 5, seeded(seed))
        assert isinstance(found, Eigenvalues)
        assert found.converged
        counts.append(found.products)
    assert sum(counts) / 20 < 30


def test_with_and_without_room_the_same() -> None:
    eigenvalues = joined([4.0] * 3, [3.9, 3.0], spread(-2, 2, 195))
    for seed in range(6):
        for basis in (9, 16, None):
            operator = Planted(eigenvalues, seed)
            found = top_eigenvalues(operator, 5, seeded(seed), basis=basis, max_products=120)
            assert isinstance(found, Eigenvalues)
            for value, true, status in zip(found.values, [4, 4, 4, 3.9, 3], found.statuses, strict=True):
                assert status != "ok" or float(value) == pytest.approx(true, rel=5e-3)
            assert basis == 9 or found.converged


@pytest.mark.parametrize(
    ("eigenvalues", "vectors", "steps"),
    [
        (joined(spread(0, 1, 60), spread(4, 5, 40)), 8, 8),
        (joined([50, 30, 10], spread(-1, 1, 97)), 6, 10),
        (joined([5, 3, 1], [0.0] * 50, spread(-1, -0.5, 47)), 3, 9),
    ],
)
def test_the_interval_of_a_share_covers_it(eigenvalues: Tensor, vectors: int, steps: int) -> None:
    """At zero too, where eigenvalues are zero but for rounding."""
    points = torch.cat(
        [eigenvalues.quantile(torch.tensor([0.1, 0.3, 0.5, 0.8, 0.97]).double()), torch.zeros(1).double()]
    )
    truth = (eigenvalues <= points[:, None] + 1e-12).double().mean(1)
    covered = torch.zeros(len(points))
    operator = Planted(eigenvalues, 1)
    for seed in range(200):
        found = spectral_density(operator, vectors, steps, seeded(seed))
        assert isinstance(found, SpectralDensity)
        share, low, high = found.below(points)
        assert bool(((low <= share) & (share <= high)).all())
        covered += (low <= truth) & (truth <= high)
    assert float(covered.min()) >= 0.93 * 200
