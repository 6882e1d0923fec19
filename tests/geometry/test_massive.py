"""Massive activations: the Gram matrix stays right, is not left, and on a device nothing of the states comes off it."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from activations import plant_states
from torch import Tensor

from pythiageo.geometry import spectrum as module
from pythiageo.geometry.deflation import split
from pythiageo.geometry.matrix import EPS, centre, distinct, take_mean_off
from pythiageo.geometry.measure import load_measures
from pythiageo.geometry.reductions import Gram, Tridiagonal, find_squares_on_device
from pythiageo.geometry.spectrum import Spectra, Spectrum

MEASURES = load_measures()
RANKS = ("rankme", "covariance_effective_rank", "participation_ratio", "stable_rank")


def exact(states: Tensor, centred: bool) -> Spectrum:
    matrix = centre(states) if centred else states.double()
    return Spectrum(torch.linalg.svdvals(matrix), *states.shape, "svd")


def check(spectra: Spectra, states: Tensor, tolerance: float = 1e-8) -> None:
    for centred in (True, False):
        found, truth = spectra.of(centred), exact(states, centred)
        assert found.method == "gram"
        for name in RANKS:
            # measured 4e-9 at most; the stated bound is 1e-6, of more than 512 values 1e-4
            assert MEASURES[name].function(found) == pytest.approx(MEASURES[name].function(truth), rel=tolerance), name


@pytest.mark.parametrize("shape", [(200, 768), (768, 200), (300, 300), (640, 520)])
@pytest.mark.parametrize("massive", [0, 1e2, 1e3, 1e5])
def test_massive_activations_leave_the_gram_matrix_right(shape: tuple[int, int], massive: float) -> None:
    states = plant_states(*shape, massive=massive)
    check(Spectra(states), states)


@pytest.mark.parametrize("shape", [(150, 90), (90, 150)])
@pytest.mark.parametrize("kind", ["mean", "rows", "dimensions", "equal rows"])
@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_whatever_is_massive(shape: tuple[int, int], kind: str, decay: float) -> None:
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rotation = torch.linalg.qr(normal(shape[1], shape[1])).Q
    base = normal(*shape) * torch.arange(1, shape[1] + 1, dtype=torch.float64) ** -decay @ rotation
    for size in (1e2, 1e3, 1e5):
        states = base.clone()
        if kind == "mean":
            states += size * normal(shape[1])
        elif kind == "rows":
            states[::30] += size * normal(shape[1])
        elif kind == "dimensions":
            states[:, [3, 7]] += size * normal(shape[0], 2)
        else:
            states[::10] = size * normal(shape[1])
        check(Spectra(states.float()), states.float())


def test_small_values_beside_a_massive_direction_hold_their_digits() -> None:
    """Against 60 digits: with a direction 10^6 times the rest no plain Gram matrix would hold any of them."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(40, 24, generator=generator, dtype=torch.float64)
    states[::5] += 1e6 * torch.randn(24, generator=generator, dtype=torch.float64)
    with mpmath.workdps(60):
        matrix = mpmath.matrix(states.tolist())
        truth = sorted(
            (float(mpmath.sqrt(v)) for v in mpmath.eigsy(matrix.T * matrix, eigvals_only=True)), reverse=True
        )
    found = Spectra(states, every_value=True).of(False)
    assert found.method == "gram"
    assert found.sigma[1:].tolist() == pytest.approx(truth[1:], rel=1e-7)
    assert float(found.sigma[0]) == pytest.approx(truth[0], rel=1e-14)


def test_a_split_says_how_far_it_is_off() -> None:
    states = plant_states(200, 300, massive=1000).double()
    parts = split(states)
    assert parts is not None
    sigma = torch.linalg.svdvals(states)
    assert parts.sigma == pytest.approx(sigma[: len(parts.sigma)], rel=1e-12)
    rest = torch.linalg.svdvals(parts.rest)[: 200 - len(parts.sigma)]
    off = (rest.square() - sigma[len(parts.sigma) :].square()).abs().max()
    assert float(off) <= parts.coupled + 2 * parts.rounded * float(rest[0])
    assert split(torch.randn(60, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)) is None
    assert split(states[:10]) is None


@pytest.mark.parametrize("shape", [(120, 50), (50, 120)])
@pytest.mark.parametrize("mean", [0.0, 1.0, 1e3])
def test_both_reductions_have_the_same_squares(shape: tuple[int, int], mean: float) -> None:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(*shape, generator=generator, dtype=torch.float64) + mean
    matrix, ones = distinct(torch.cat([states, states[:9]]))
    varying = take_mean_off(matrix, ones)
    fast = Tridiagonal(varying.rows.numpy(), ones.numpy(), varying.mean.numpy())
    plain = Gram(varying.rows, ones, varying.mean)
    for centred in (True, False):
        few = min(len(fast.squares(centred)), len(plain.squares(centred)))
        off = (fast.squares(centred)[:few] - plain.squares(centred)[:few]).abs().max()
        assert float(off) <= fast.error(centred) + plain.error(centred)
        truth = torch.linalg.svdvals(varying.rows if centred else matrix)[:few]
        # taking a large mean off rounds, and so does the reference
        rounded = 2 * float(truth[1]) * 4 * EPS * float(matrix.norm())
        assert float((fast.squares(centred)[:few] - truth.square())[1:].abs().max()) <= fast.error(centred) + rounded


@pytest.mark.parametrize("massive", [0, 1000])
def test_on_a_device_only_the_values_leave_it(massive: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a GPU, taken on the CPU: nothing becomes an array of NumPy, and what is copied are single vectors."""
    states = plant_states(260, 300, massive=massive)
    copied: list[torch.Size] = []
    cpu = Tensor.cpu

    def note(self: Tensor) -> Tensor:
        copied.append(self.shape)
        return cpu(self)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an array on the host")

    monkeypatch.setattr(module, "reduce", Gram)
    monkeypatch.setattr(module, "find_squares", find_squares_on_device)
    monkeypatch.setattr(module, "tries_gram_first", lambda _: True)
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "cpu", note)
        for name in ("numpy", "tolist", "__array__"):
            patch.setattr(Tensor, name, refuse)
        spectra = Spectra(states)
        found = [spectra.of(centred) for centred in (True, False)]
    assert len(copied) == 2
    assert all(len(shape) == 1 for shape in copied)
    assert math.isfinite(float(found[0].sigma.sum()))
    check(spectra, states)
