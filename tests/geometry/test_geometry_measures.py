"""Measures beyond the three ranks: closed forms, planted truth, a second way, and inputs without a number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from pythiageo.geometry.bootstrap import Bootstrap
from pythiageo.geometry.cka import linear_cka
from pythiageo.geometry.measure import load_measures
from pythiageo.geometry.measures.alpha_req import alpha_req, over_ranks
from pythiageo.geometry.measures.mean_cosine import mean_cosine
from pythiageo.geometry.measures.stable_rank import stable_rank
from pythiageo.geometry.measures.two_nn import two_nn
from pythiageo.geometry.readout import Layout
from pythiageo.geometry.spectrum import Spectra, Spectrum, spectrum
from pythiageo.geometry.view import Rows, View, single
from pythiageo.no_value import NoValueError

MEASURES = load_measures()


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of(sigma: list[float]) -> Spectrum:
    return Spectrum(torch.tensor(sigma, dtype=torch.float64), 100, len(sigma), "svd")


def test_stable_rank_of_a_known_spectrum() -> None:
    assert stable_rank(of([1, 0.5, 0.25, 0.125])) == pytest.approx(1.328125)
    assert stable_rank(of([2.0] * 7)) == 7
    assert stable_rank(of([3, 0, 0])) == 1


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.3])
def test_alpha_is_the_exponent_of_a_power_law_beyond_a_head_that_is_none(alpha: float) -> None:
    sigma = [float(j) ** (-alpha / 2) for j in range(1, 80)]
    assert alpha_req(of(sigma)) == pytest.approx(alpha, rel=1e-9)
    assert alpha_req(of([100.0 * sigma[0]] * 10 + sigma[10:])) == pytest.approx(alpha, rel=1e-9)


def test_alpha_against_numpys_weighted_fit() -> None:
    sigma = spectrum(normal(200, 64) * torch.arange(1, 65) ** -0.7, centred=True).sigma
    ranks = np.arange(11, 51)
    slope = np.polyfit(np.log(ranks), 2 * np.log(sigma.numpy()[10:50]), 1, w=1 / np.sqrt(ranks))[0]
    assert alpha_req(Spectrum(sigma, 200, 64, "svd")) == pytest.approx(-slope, rel=1e-9)


def test_alpha_stops_where_rounding_begins() -> None:
    sigma = [float(j) ** -1 for j in range(1, 30)] + [1e-9] * 40
    assert alpha_req(of(sigma)) == pytest.approx(2, rel=1e-9)
    with pytest.raises(NoValueError, match="10 resolved eigenvalues from rank 11 on; 19 are resolved"):
        alpha_req(of(sigma[:19] + [1e-9] * 40))


def test_alpha_over_other_ranks_has_another_name_and_is_of_all_of_them_or_none() -> None:
    """A spectrum that falls as j^-1 up to rank 50 and as j^-3 from there: 11 to 50 sees one, 60 to 100 the other."""
    steep = [min(1.0, 50.0 / j) ** (1.0) * j**-0.5 for j in range(1, 121)]
    assert over_ranks(11, 50) is MEASURES["alpha_req"]
    later = over_ranks(60, 100)
    assert (later.name, later.kind, later.needs) == ("alpha_req_60_100", "geometry", "every value")
    assert later.formula == "-slope of log lambda_j on log j, j = 60 .. 100, weights 1/j"
    assert alpha_req(of(steep)) == pytest.approx(1, rel=1e-9)
    assert later.function(of(steep)) == pytest.approx(3, rel=1e-9)
    # numpy's weighted fit of the ranks that the name says, both ends included
    ranks, study = np.arange(12, 101), over_ranks(12, 100)
    slope = np.polyfit(np.log(ranks), 2 * np.log(np.array(steep)[11:100]), 1, w=1 / np.sqrt(ranks))[0]
    assert study.function(of(steep)) == pytest.approx(-slope, rel=1e-9)
    # 11 to 50 goes as far as there is something; a range in a name is kept to
    assert alpha_req(of(steep[:40])) == pytest.approx(1, rel=1e-9)
    with pytest.raises(NoValueError, match="the fit is over ranks 12 to 100, and 99 eigenvalues are resolved"):
        study.function(of(steep[:99]))


def test_mean_cosine_is_that_of_all_pairs() -> None:
    states = normal(20, 7) + 0.5
    unit = states / states.norm(dim=1, keepdim=True)
    pairs = [float(unit[i] @ unit[j]) for i in range(20) for j in range(20) if i != j]
    assert mean_cosine(states) == pytest.approx(sum(pairs) / len(pairs), rel=1e-12)
    assert mean_cosine(torch.ones(5, 3, dtype=torch.float64)) == pytest.approx(1)
    assert mean_cosine(torch.eye(4, dtype=torch.float64)) == pytest.approx(0, abs=1e-15)
    assert mean_cosine(torch.tensor([[1.0], [-1.0]]).double()) == -1


@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
def test_two_nn_finds_the_dimension_of_a_flat_sheet(dimension: int) -> None:
    """A uniform cube without edges (a torus) in 24 dimensions; the estimate knows its own error."""
    found = []
    for seed in range(10):
        angles = 2 * math.pi * torch.rand(800, dimension, generator=torch.Generator().manual_seed(seed)).double()
        flat = torch.cat([angles.sin(), angles.cos(), torch.zeros(800, 24 - 2 * dimension)], 1)
        found.append(two_nn(flat @ torch.linalg.qr(normal(24, 24, seed=seed)).Q + 1))
    mean, error = np.mean([one.value for one in found]), np.mean([one.stderr for one in found])
    # curvature and finite density move it by a few percent at 800 points
    assert mean == pytest.approx(dimension, abs=4 * error / math.sqrt(10) + 0.06 * dimension)
    assert np.std([one.value for one in found], ddof=1) == pytest.approx(error, rel=0.6)


def test_two_nn_against_scikit_learns_neighbours() -> None:
    points = normal(300, 6)
    distances = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(points.numpy()).kneighbors()[0]
    expected = 299 / np.log(distances[:, 1] / distances[:, 0]).sum()
    assert two_nn(points).value == pytest.approx(expected, rel=1e-9)


def test_two_nn_takes_equal_points_once_and_a_mean_far_away_does_not_matter() -> None:
    points = normal(200, 4)
    alone = two_nn(points).value
    rounded = points.float().double() * (1 + 1e-7)
    assert two_nn(torch.cat([points, points[:50], rounded[60:90]])).value == pytest.approx(alone, rel=1e-3)
    far = (points + 1000).float()
    assert two_nn(far.double()).value == pytest.approx(alone, rel=0.05)


def test_two_nn_of_many_rows_is_that_of_some() -> None:
    points = normal(6001, 3)
    assert two_nn(points).value == pytest.approx(two_nn(points[::3][:2001]).value, rel=0.05)


def test_cka_against_the_formula_on_both_sides() -> None:
    for rows in (12, 90):
        x, y = normal(rows, 30), normal(rows, 20, seed=1) @ normal(20, 25, seed=2)
        h = torch.eye(rows) - 1 / rows
        k, m = h.double() @ x @ x.T @ h.double(), h.double() @ y @ y.T @ h.double()
        expected = float((k * m).sum() / (k.norm() * m.norm()))
        assert linear_cka(x, y) == pytest.approx(expected, rel=1e-9)
        assert linear_cka(y, x) == pytest.approx(expected, rel=1e-9)
        assert linear_cka(x.float(), y.float()) == pytest.approx(expected, rel=1e-5)
    x = normal(50, 8)
    assert linear_cka(x, 3 * x @ torch.linalg.qr(normal(8, 8)).Q + 5) == pytest.approx(1)
    orthogonal = torch.linalg.qr(normal(50, 17) - normal(50, 17).mean(0)).Q
    orthogonal = orthogonal - orthogonal.mean(0)
    assert linear_cka(orthogonal[:, :8], orthogonal[:, 8:16]) == pytest.approx(0, abs=0.02)


def test_cka_of_random_states_is_as_biased_as_it_says() -> None:
    values = [linear_cka(normal(400, 100, seed=2 * k), normal(400, 100, seed=2 * k + 1)) for k in range(5)]
    assert sum(values) / 5 == pytest.approx(100 / 500, rel=0.05)


def test_cka_needs_the_same_rows() -> None:
    with pytest.raises((ValueError, TypeError)):  # the shapes on its signature are checked in tests
        linear_cka(normal(3, 2), normal(4, 2))
    with pytest.raises(NoValueError, match="do not vary"):
        linear_cka(torch.ones(5, 2), normal(5, 2))


@pytest.mark.parametrize("name", list(MEASURES))
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(
    "states",
    [
        torch.zeros(6, 4), torch.ones(6, 4), normal(1, 4), normal(6, 1) @ normal(1, 4), normal(2, 1).repeat(3, 4),
        normal(3, 4).repeat(2, 1), torch.full((6, 4), 1e30).double(), 1e-30 * normal(6, 4), torch.zeros(1, 1),
    ],
    ids=["zero", "constant", "one row", "rank one", "two rows repeated", "rows repeated", "huge", "tiny", "one number"],
)  # fmt: skip
def test_every_input_has_a_number_or_a_reason(name: str, centred: bool, states: torch.Tensor) -> None:
    view = View(Rows(states, every_value=True), centred, View(Rows(states.flip(0), every_value=True), centred))
    try:
        estimate = MEASURES[name].take(view)
    except NoValueError as error:
        reason = str(error)
        assert reason
    else:
        assert math.isfinite(estimate.value)
        assert MEASURES[name].least - 1e-9 <= estimate.value


def test_spectra_shared_by_both_centrings_are_those_of_an_svd() -> None:
    """Shapes on both sides, decaying, spiked and rank-deficient, equal rows among them; one reduction for both."""
    for rows, columns in ((200, 40), (40, 200), (64, 64)):
        for decay in (0.0, 2.0, 6.0):
            base = normal(rows, columns) * 10.0 ** -torch.linspace(0, decay, columns, dtype=torch.float64)
            for states in (
                base,
                torch.cat([base, base[:30]]),
                base + 1e3,
                base.float(),
                base @ normal(columns, 3) @ normal(3, columns),
            ):
                spectra = Spectra(states)
                for centred in (False, True):
                    matrix = states.double() - states.double().mean(0) if centred else states.double()
                    exact = Spectrum(torch.linalg.svdvals(matrix), *states.shape, "svd")
                    found = MEASURES["rankme"].function(spectra.of(centred))
                    assert found == pytest.approx(MEASURES["rankme"].function(exact), rel=1e-6)


def test_bootstrap_errors_are_the_spread_of_fresh_samples() -> None:
    """Examples of four dependent rows each: resampling rows would be too sure."""
    examples, rows, width = 60, 4, 6
    layout = Layout.of([rows] * examples, [tuple(range(rows))] * examples, [0] * examples)
    scale = torch.linspace(1, 0.2, width, dtype=torch.float64)

    def sample(seed: int) -> torch.Tensor:
        each = normal(examples, width, seed=seed) * scale
        return each.repeat_interleave(rows, 0) + 0.1 * normal(examples * rows, width, seed=10_000 + seed)

    measures = [MEASURES["participation_ratio"], MEASURES["stable_rank"]]
    fresh = {m.name: np.std([m.take(single(sample(s), False)).value for s in range(200)], ddof=1) for m in measures}
    bootstrap = Bootstrap(layout, "abcdef012345", 100)
    found = [bootstrap.stderrs(single(sample(s), False), "all", measures) for s in range(12)]
    for measure in measures:
        mean = float(np.mean([one[measure.name] for one in found]))
        assert mean == pytest.approx(fresh[measure.name], rel=0.3), measure.name
    again = Bootstrap(layout, "abcdef012345", 100).stderrs(single(sample(0), False), "all", measures)
    assert again == found[0]


def test_bootstrap_errors_of_a_probe_set_of_levels_are_the_spread_of_fresh_samples() -> None:
    """Three levels that lie far apart: how many examples each has is fixed, so drawing over all is too unsure."""
    examples, width = 90, 6
    layout = Layout.of([1] * examples, [(0,)] * examples, [0] * examples)
    levels = [("L1", "L2", "L3")[index % 3] for index in range(examples)]
    centres = 6 * normal(3, width, seed=99)

    def sample(seed: int) -> torch.Tensor:
        return centres.repeat(examples // 3, 1) + normal(examples, width, seed=seed)

    measures = [MEASURES[name] for name in ("rankme", "participation_ratio")]
    fresh = {m.name: np.std([m.value(single(sample(s), True)).value for s in range(300)], ddof=1) for m in measures}
    stratified, plain = (Bootstrap(layout, "abcdef012345", 40, strata) for strata in (levels, ()))
    found = [stratified.stderrs(single(sample(s), True), "all", measures) for s in range(8)]
    over_all = plain.stderrs(single(sample(0), True), "all", measures)
    for measure in measures:
        mean = float(np.mean([one[measure.name] for one in found]))
        assert mean / fresh[measure.name] == pytest.approx(1, abs=0.15), measure.name
    assert (over_all["participation_ratio"] or 0) > 1.5 * fresh["participation_ratio"]
    for rows in stratified.rows("all"):
        assert np.unique(np.array(levels)[rows.numpy()], return_counts=True)[1].tolist() == [30] * 3
    with pytest.raises(ValueError, match="the level of each of 90 examples, got 2"):
        Bootstrap(layout, "abcdef012345", 40, ("L1", "L2"))


def test_measures_that_compare_rows_are_not_resampled() -> None:
    of_prompts = {name for name, measure in MEASURES.items() if measure.needs == "prompts"}
    assert {name for name, measure in MEASURES.items() if not measure.resamples} == {
        "mean_cosine",
        "two_nn",
    } | of_prompts
    assert {name for name, measure in MEASURES.items() if measure.small_values} == {"rankme", "alpha_req"}
