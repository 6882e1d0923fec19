"""Sketches and what is taken of them, against dense float64 numbers of the same float32 states.

A sketch rounds each centred row by about 6e-8 of its size. CKA and Procrustes distance are smooth in it and come out
within 1e-6; an angle moves by at most the rounding over the gap behind the subspace, which is above 1e-2 here: 1e-5.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes

from pythiageo.geometry import get_measures, linear_cka, single
from pythiageo.geometry.similarity import principal_angles, procrustes
from pythiageo.geometry.sketch import Sketch, choose_rows, count_values
from pythiageo.no_value import NoValueError


def states(rows: int, width: int, seed: int, mean: float = 0.0, massive: float = 1.0) -> torch.Tensor:
    """Rows that share a signal between seeds, beside noise of their own; a mean, and one row ``massive`` times."""
    shared, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    signal = torch.randn(rows, 12, generator=shared) * 0.5 ** torch.arange(12)
    found = signal @ torch.randn(12, width, generator=own) + 0.05 * torch.randn(rows, width, generator=own)
    found[0] *= massive
    return found + mean * torch.randn(width, generator=own)


SHAPES = [(200, 64), (64, 200), (50, 50), (2, 8), (9, 1)]


@pytest.mark.parametrize(("mean", "massive"), [(0.0, 1.0), (1e3, 1.0), (1.0, 1e3)])
@pytest.mark.parametrize(("rows", "width"), SHAPES)
def test_products_of_rows_are_kept(rows: int, width: int, mean: float, massive: float) -> None:
    matrix = states(rows, width, 1, mean, massive)
    sketch = Sketch.of(matrix)
    dense = matrix.double()
    centred = dense - dense.mean(dim=0)
    assert len(sketch.values) == count_values(rows, width)
    size = centred.norm(dim=1)
    bound = 4e-7 * size[:, None] * size[None] + 1e-300
    assert bool(((sketch.centred @ sketch.centred.T - centred @ centred.T).abs() <= bound).all())
    rounded = (sketch.states.norm(dim=1) - dense.norm(dim=1)).abs()
    assert bool((rounded <= 2e-7 * (size + dense.mean(dim=0).norm())).all())
    again = Sketch(sketch.values, sketch.scale, rows, width)
    assert torch.equal(again.centred, sketch.centred)


@pytest.mark.parametrize(("mean", "massive"), [(0.0, 1.0), (1e3, 1.0), (1.0, 1e3)])
@pytest.mark.parametrize(("one", "other"), [(64, 64), (64, 300), (400, 300)])
def test_similarities_of_sketches_are_those_of_the_states(one: int, other: int, mean: float, massive: float) -> None:
    pair = states(200, one, 1, mean, massive), states(200, other, 2, mean)
    sketched = [Sketch.of(each).centred for each in pair]
    dense = [each.double() for each in pair]
    assert linear_cka(*sketched) == pytest.approx(linear_cka(*dense), abs=1e-6)
    assert procrustes(*sketched) == pytest.approx(procrustes(*dense), abs=1e-6)
    for dimensions in (1, 4):
        angles = principal_angles(*sketched, dimensions)
        assert angles.tolist() == pytest.approx(principal_angles(*dense, dimensions).tolist(), abs=1e-5)


def test_ranks_of_a_sketch_are_those_of_its_rows() -> None:
    matrix = states(150, 96, 3, mean=5.0)
    sketch = Sketch.of(matrix)
    for measure in get_measures(["rankme", "covariance_effective_rank", "mean_cosine"]):
        for centred in (True, False):
            expected = measure.value(single(matrix, centred)).value
            assert measure.value(single(sketch.states, centred)).value == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_no_size_overflows_or_vanishes(size: float) -> None:
    matrix = states(20, 30, 1)
    expected = linear_cka(matrix.double(), states(20, 30, 2).double())
    found = linear_cka(Sketch.of(matrix * size).centred, Sketch.of(states(20, 30, 2) * size).centred)
    assert found == pytest.approx(expected, abs=1e-5)  # the product with `size` rounds the states themselves


def test_what_cannot_be_sketched_is_refused() -> None:
    with pytest.raises(ValueError, match="no row"):
        Sketch.of(torch.empty(0, 3))
    with pytest.raises(ValueError, match="NaN"):
        Sketch.of(torch.tensor([[1.0, math.nan]]))
    still = Sketch.of(torch.ones(5, 3))
    with pytest.raises(NoValueError, match="do not vary"):
        procrustes(still.centred, torch.randn(5, 2))
    with pytest.raises(NoValueError, match="do not vary in 2 dimensions"):
        principal_angles(still.centred, torch.randn(5, 2), 2)


def test_procrustes_is_the_distance_after_the_best_orthogonal_map() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    x, y = rng.standard_normal((40, 6)), rng.standard_normal((40, 6))
    x, y = (each - each.mean(axis=0) for each in (x, y))
    x, y = (each / np.linalg.norm(each) for each in (x, y))
    best = orthogonal_procrustes(x, y)[0]
    expected = float(np.linalg.norm(x @ best - y) ** 2)
    assert procrustes(torch.tensor(7 * x + 3), torch.tensor(y)) == pytest.approx(expected, abs=1e-12)
    turned = torch.tensor(x) @ torch.linalg.qr(torch.tensor(rng.standard_normal((6, 6))))[0]
    assert procrustes(torch.tensor(x), 5 * turned + 2) == pytest.approx(0, abs=1e-12)


def test_planted_angles_are_found() -> None:
    rng = np.random.Generator(np.random.PCG64(1))
    basis = np.linalg.qr(np.c_[np.ones(60), rng.standard_normal((60, 8))])[0][:, 1:]  # orthogonal to the mean
    planted = np.array([0.9, 0.3, 1e-7])
    turned = np.cos(planted) * basis[:, :3] + np.sin(planted) * basis[:, 3:6]
    first = torch.tensor(basis[:, :3] * [5, 4, 3]) @ torch.tensor(rng.standard_normal((3, 20)))
    second = torch.tensor(turned * [3, 3, 2]) @ torch.tensor(rng.standard_normal((3, 7)))
    # scipy's sine of a small angle beside large ones is good to the root of float64's rounding
    assert principal_angles(first, second, 3).tolist() == pytest.approx(planted.tolist(), abs=1e-8)


def test_a_subspace_that_rounding_may_turn_is_not_told() -> None:
    rows = torch.linalg.qr(torch.randn(30, 5, dtype=torch.float64))[0]
    rows = torch.linalg.qr(rows - rows.mean(dim=0))[0]
    spectrum = torch.tensor([3.0, 2.0, 1.0, 1.0 - 1e-6, 0.1], dtype=torch.float64)
    matrix = rows * spectrum
    assert float(principal_angles(matrix, matrix, 3, (1e-9, 1e-9)).max()) < 1e-6
    for dimensions, noise in ((3, 1e-7), (2, 0.1)):
        with pytest.raises(NoValueError, match="which directions they span is not told") as error:
            principal_angles(matrix, matrix, dimensions, (noise, 0.0))
        assert error.value.no_value.status == "imprecise"
    assert len(principal_angles(matrix, matrix, 2, (1e-7, 1e-7))) == 2
    assert len(principal_angles(matrix, matrix, 5, (1e-7, 1e-7))) == 5  # all there are: the gap is to nothing
    with pytest.raises(NoValueError, match="have no 6 components"):
        principal_angles(matrix, matrix, 6)


def test_rows_are_chosen_the_same_everywhere() -> None:
    assert choose_rows(5, 9, "ab").tolist() == [0, 1, 2, 3, 4]
    chosen = choose_rows(1000, 50, "ab")
    assert torch.equal(chosen, choose_rows(1000, 50, "ab"))
    assert len(chosen.unique()) == 50
    assert chosen.tolist() == sorted(chosen.tolist())
    assert not torch.equal(chosen, choose_rows(1000, 50, "cd"))
