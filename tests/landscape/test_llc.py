"""LLC estimates against closed forms and quadrature at the same finite n_beta, gamma and step, and their health."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from landscapes import Point, task_problem, tiny_decoder
from torch import Tensor, nn

from pythiageo.errors import UserError
from pythiageo.landscape.calibrate import Trial, calibrate
from pythiageo.landscape.chains import drift, effective_draws, interval_error, r_hat, standard_error, unfinished
from pythiageo.landscape.hessian import Hessian
from pythiageo.landscape.llc import LLC, Settings, llc, named_settings, quadratic_llc
from pythiageo.landscape.problem import Problem
from pythiageo.no_value import NoValue

ONE = [(torch.zeros(1, 1),)]


def estimate(problem: Problem, settings: Settings, seed: int = 0) -> LLC:
    found = llc(problem, settings, seed)
    assert isinstance(found, LLC), found
    return found


def quadratic(eigenvalues: Tensor, slope: float = 0.0) -> Problem:
    point = Point(torch.zeros(len(eigenvalues), dtype=torch.float64))
    curvature = eigenvalues.double()

    def losses(piece: tuple[Tensor, ...]) -> Tensor:
        return ((0.5 * curvature * point.x.square()).sum() + slope * point.x.sum()).expand(len(piece[0]))

    return Problem(point, losses, ONE)


def assert_within(found: LLC, truth: float, precision: float) -> None:
    """Within three standard errors, and these small enough to tell something."""
    assert found.value is not None
    assert found.stderr is not None
    assert found.stderr < precision * truth
    assert abs(found.value - truth) < 3 * found.stderr


SPREAD = torch.tensor([100.0, 30.0, 10.0, 1.0, 0.1]).repeat(40)


@pytest.mark.parametrize("n_beta", [10.0, 100.0])
def test_quadratic_at_the_same_step(n_beta: float) -> None:
    settings = Settings(gamma=200.0, step=1e-4, n_beta=n_beta, draws=3000, burn_in=500, chains=2, batch=None)
    found = estimate(quadratic(SPREAD), settings)
    assert_within(found, quadratic_llc(SPREAD, n_beta, 200.0, 1e-4), 0.02)
    assert found.pull == 0
    bias = quadratic_llc(SPREAD, n_beta, 200.0, 1e-4) - quadratic_llc(SPREAD, n_beta, 200.0)
    assert found.step_bias == pytest.approx(bias, rel=0.05)
    assert found.status == ("ok" if n_beta == 10 else "not_converged")  # 3% and 14% of the estimate
    # equipartition is the mean of 1 / (1 - step (n_beta h + gamma) / 4): what a finite step does
    assert found.equipartition == pytest.approx(
        float((1 / (1 - 1e-4 * (n_beta * SPREAD + 200) / 4)).mean()), abs=4 * (found.equipartition_stderr or 0)
    )


@pytest.mark.parametrize("rmsprop", [False, True])
def test_a_step_too_large_for_a_few_stiff_directions_is_seen(rmsprop: bool) -> None:
    """Equipartition, a mean over all directions, does not see them."""
    eigenvalues = torch.cat([torch.full((5,), 1e4), torch.full((3000,), 0.01)])
    settings = Settings(gamma=100.0, step=3e-4, n_beta=1.0, draws=800, burn_in=300, chains=1, batch=None)
    found = estimate(quadratic(eigenvalues), replace(settings, rmsprop=rmsprop))
    truth = quadratic_llc(eigenvalues, 1.0, 100.0)
    if rmsprop:  # the stiff directions' steps are a hundredth
        assert abs(found.step_bias or 0) < 0.05 * truth
    else:
        assert (found.value or 0) > 3 * truth
        assert found.equipartition == pytest.approx(1, abs=0.05)
        assert (found.value or 0) - (found.step_bias or 0) == pytest.approx(truth, rel=0.1)
        assert found.status == "not_converged"
        assert "the step is too large: it alone raises" in found.findings[0].reason


def test_the_closed_form() -> None:
    # by hand: 100 * 2 / (100 * 2 + 50) / 2 = 0.4, and over 1 - 0.001 * 250 / 4 = 0.9375
    assert quadratic_llc(torch.tensor([2.0]), 100.0, 50.0) == pytest.approx(0.4)
    assert quadratic_llc(torch.tensor([2.0]), 100.0, 50.0, step=0.001) == pytest.approx(0.4 / 0.9375)
    # the limit is half the number of directions that the loss sees
    assert quadratic_llc(torch.tensor([2.0, 3.0, 0.0]), 1e9, 1e-3) == pytest.approx(1.0, rel=1e-6)
    with pytest.raises(UserError, match="between 0 and 4 / step"):
        quadratic_llc(torch.tensor([-2.0]), 100.0, 50.0)


@pytest.mark.slow
def test_rmsprop_has_the_same_target_and_mixes_faster() -> None:
    settings = Settings(gamma=20.0, step=2e-3, n_beta=100.0, draws=3000, burn_in=1500, chains=2, batch=None)
    found = estimate(quadratic(SPREAD), replace(settings, rmsprop=True))
    # the drift's mean square is the stiffness a, so G = 1 / (1 + sqrt(a)), and the step that counts is step * G
    stiffness = 100.0 * SPREAD + 20
    coarseness = 2e-3 * stiffness / (1 + stiffness.sqrt()) / 4
    assert float(coarseness.max()) < 0.05
    assert_within(found, float((100.0 * SPREAD / stiffness / (1 - coarseness)).sum() / 2), 0.02)
    assert estimate(quadratic(SPREAD), settings).status == "diverged"  # 2e-3 * 1e4 / 4 is above 1
    as_coarse = replace(settings, step=2e-5)  # for the stiffest direction
    careful = estimate(quadratic(SPREAD), as_coarse)
    assert (found.effective_draws or 0) > 3 * (careful.effective_draws or 0)


@pytest.mark.slow
def test_batches_and_both_baselines() -> None:
    """L_i(x) = |x - c_i|^2 h / 2 + o_i: the batch's gradient noise has a known variance, so the truth is exact."""
    h, gamma, n_beta, step, batch, count, size = 2.0, 40.0, 50.0, 1e-3, 5, 20, 300
    generator = torch.Generator().manual_seed(0)
    centres = 0.2 * torch.randn(count, size, generator=generator, dtype=torch.float64)
    centres -= centres.mean(0)
    offsets = 10 * torch.randn(count, generator=generator, dtype=torch.float64)
    point = Point(torch.zeros(size, dtype=torch.float64))

    def losses(piece: tuple[Tensor, ...]) -> Tensor:
        return 0.5 * h * (point.x - piece[0]).square().sum(1) + piece[1]

    problem = Problem(point, losses, [(centres[:7], offsets[:7]), (centres[7:], offsets[7:])])
    stiffness = n_beta * h + gamma
    mean_variance = centres.var(0, correction=1) / batch * (1 - batch / count)  # of a batch's mean, without replacement
    noise = step + (step / 2 * n_beta * h) ** 2 * mean_variance
    variance = noise / (1 - (1 - step * stiffness / 2) ** 2)
    truth = float(n_beta * h / 2 * variance.sum())
    settings = Settings(gamma=gamma, step=step, n_beta=n_beta, draws=1200, burn_in=200, chains=2, batch=batch)
    same = estimate(problem, settings)
    full = estimate(problem, replace(settings, baseline="full-batch"))
    assert_within(same, truth, 0.02)
    assert_within(full, truth, 0.05)
    assert (same.stderr or 1) < 0.5 * (full.stderr or 0)
    assert same.baseline_loss == pytest.approx(float((0.5 * h * centres.square().sum(1) + offsets).mean()), rel=1e-12)


def crossing_truth(ratio: float) -> float:
    """LLC of a^2 b^2 at the origin: b is Gaussian given a, a is integrated by quadrature. Scale: gamma = 1."""
    a = np.exp(np.linspace(-60, math.log(12), 400_001))
    precision = 2 * ratio * a**2 + 1
    weight = np.exp(-(a**2) / 2) / np.sqrt(precision) * a
    return float((weight * ratio * a**2 / precision).sum() / weight.sum())


def extrapolated(problem: Problem, settings: Settings) -> tuple[float, float]:
    """To step zero from a step and its half: the bias of a step is linear in it, what is left is its square."""
    whole = estimate(problem, settings, seed=1)
    half = estimate(
        problem,
        replace(settings, step=settings.step / 2, draws=2 * settings.draws, burn_in=2 * settings.burn_in),
        seed=2,
    )
    assert None not in (whole.value, whole.stderr, half.value, half.stderr)
    value = 2 * (half.value or 0) - (whole.value or 0)
    return value, math.hypot(2 * (half.stderr or 0), whole.stderr or 0)


def near_the_origin(ratio: float, draws: int) -> Settings:
    """gamma = 1, steps of 1/20 of gamma / n_beta, and burn-in over four relaxations of a flat direction."""
    step = 0.05 / ratio
    return Settings(gamma=1.0, step=step, n_beta=ratio, draws=draws, burn_in=int(4 / step), chains=1, batch=None)


@pytest.mark.slow
def test_normal_crossing_and_its_trend() -> None:
    copies = 1000  # independent ones in one model: the coefficients add
    found = []
    for ratio, draws in ((1.0, 3000), (10.0, 3000), (30.0, 4000)):
        point = Point(torch.zeros(2, copies, dtype=torch.float64))
        problem = Problem(point, lambda piece, p=point: p.x.prod(0).square().sum().expand(len(piece[0])), ONE)
        value, stderr = extrapolated(problem, near_the_origin(ratio, draws))
        truth = crossing_truth(ratio) * copies
        assert stderr < 0.025 * truth
        assert abs(value - truth) < 3 * stderr
        found.append(value / copies)
    assert found == sorted(found)
    # the limit 1/2 is approached like 1 / log: the estimate's distance from it is not the estimator's fault
    assert crossing_truth(1000.0) == pytest.approx(0.3903, abs=1e-4)
    assert found[-1] < crossing_truth(1e4) < crossing_truth(1e12) < 0.5 < crossing_truth(1e12) + 0.04


def deep_linear_truth(ratio: float) -> float:
    """LLC of |AB|^2 for 2 x 2 matrices at A = B = 0 (gamma = 1): B is Gaussian given A; A by its singular values."""
    s = np.exp(np.linspace(-25, math.log(9), 1501))
    one, two = np.meshgrid(s, s, indexing="ij")
    first, second = 2 * ratio * one**2 + 1, 2 * ratio * two**2 + 1
    weight = np.abs(one**2 - two**2) * np.exp(-(one**2 + two**2) / 2) / (first * second) * one * two
    elevation = 2 * ratio * (one**2 / first + two**2 / second)  # two columns of B, n_beta |AB|^2 of each
    return float((weight * elevation).sum() / weight.sum())


@pytest.mark.slow
def test_deep_linear_network_at_the_origin_and_at_a_point_of_full_rank() -> None:
    """Reduced-rank regression, 2 x 2 by 2 x 2: the coefficient is local, 3/2 at A = B = 0 and 2 where AB has rank 2.

    Aoyagi and Watanabe 2005: for rank 0, (-H^2 - M^2 - N^2 + 2HM + 2HN + 2MN) / 8 with H = M = N = 2; at full rank the
    minima are a smooth manifold of codimension 4.
    """
    copies, ratio = 400, 10.0
    point = Point(torch.zeros(2, copies, 2, 2, dtype=torch.float64))
    problem = Problem(point, lambda piece: (point.x[0] @ point.x[1]).square().sum().expand(len(piece[0])), ONE)
    value, stderr = extrapolated(problem, near_the_origin(ratio, 1500))
    truth = deep_linear_truth(ratio) * copies
    assert stderr < 0.025 * truth
    assert abs(value - truth) < 3 * stderr
    assert deep_linear_truth(1.0) < deep_linear_truth(10.0) < deep_linear_truth(1e4) < deep_linear_truth(1e8)
    assert deep_linear_truth(1e14) == pytest.approx(1.5, abs=0.06)

    generator = torch.Generator().manual_seed(0)
    factors = torch.eye(2).double() + 0.3 * torch.randn(2, 2, 2, generator=generator, dtype=torch.float64)
    target = factors[0] @ factors[1]
    full = Point(factors[:, None].repeat(1, 100, 1, 1))
    at_full_rank = Problem(
        full, lambda piece: (full.x[0] @ full.x[1] - target).square().sum().expand(len(piece[0])), ONE
    )
    settings = Settings(gamma=1e3, step=1e-6, n_beta=1e5, draws=3000, burn_in=3000, chains=1, batch=None)
    found = estimate(at_full_rank, settings)
    jacobian = torch.autograd.functional.jacobian(lambda x: (x[0] @ x[1]).flatten(), factors).reshape(4, 8)
    eigenvalues = torch.linalg.eigvalsh(2 * jacobian.T @ jacobian)
    local = quadratic_llc(eigenvalues, 1e5, 1e3, 1e-6)
    assert quadratic_llc(eigenvalues, 1e5, 1e3) == pytest.approx(2.0, abs=0.1)
    assert found.value is not None
    assert found.value / 100 == pytest.approx(local, rel=0.02)  # quadratic to within 2% at this spread
    assert found.pull == pytest.approx(0, abs=1e-20)


def test_the_study_s_setting_is_a_scaled_trace() -> None:
    eigenvalues = torch.linspace(0, 200, 1500)
    settings = named_settings("billa", 200)
    assert (settings.n_beta, settings.gamma, settings.step) == (1.0, 10_000.0, 1e-5)
    assert (settings.draws, settings.burn_in) == (400, 100)
    found = estimate(quadratic(eigenvalues), settings)
    assert_within(found, quadratic_llc(eigenvalues, 1.0, 1e4, 1e-5), 0.02)
    assert found.value == pytest.approx(float(eigenvalues.sum()) / 2e4, rel=0.04)
    beta = named_settings("billa-beta", 200)
    assert beta.n_beta_of(200) == 200.0
    assert named_settings("theory", 200).n_beta_of(200) == pytest.approx(200 / math.log(200))


def by_importance(problem: Problem, n_beta: float, gamma: float, step: float, pairs: int) -> tuple[float, float]:
    """The oracle: draws of the prior (as wide as a chain of this step makes it), weighted by exp(-n_beta L)."""
    parameter = next(iter(problem.parameters.values()))
    width = (gamma * (1 - step * gamma / 4)) ** -0.5
    generator = torch.Generator().manual_seed(9)
    start = problem.loss()
    rises = np.empty((pairs, 2))
    before = parameter.detach().clone()
    for row in rises:
        noise = width * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        for column, sign in enumerate((1, -1)):
            parameter.data = before + sign * noise
            row[column] = n_beta * (problem.loss() - start)
    parameter.data = before
    weights = np.exp(-rises)
    value = (weights * rises).sum() / weights.sum()
    return value, float((weights * (rises - value)).mean(1).std() / weights.mean() / pairs**0.5)


@pytest.mark.slow
def test_the_study_s_setting_on_a_transformer_s_layer() -> None:
    decoder = tiny_decoder(layers=1, d_model=4)
    problem = task_problem(decoder, "SORT", 1, ["blocks.0.attn.qkv.weight"])
    settings = replace(named_settings("billa", 1), batch=None, chains=2)
    found = estimate(problem, settings)
    assert found.gradient_norm == pytest.approx(float(problem.gradient().norm()), rel=1e-12)
    assert found.pull == pytest.approx(found.gradient_norm**2 / 1e4, rel=1e-12)
    truth, error = by_importance(problem, 1.0, 1e4, 1e-5, 300)
    assert abs((found.value or 0) - truth) < 3 * math.hypot(found.stderr or 0, error)
    # and where the loss has its say: the chain must not have met the prior alone
    found = estimate(problem, replace(settings, n_beta=300.0, gamma=100.0, step=1e-3, draws=800))
    truth, error = by_importance(problem, 300.0, 100.0, 1e-3, 1000)
    prior, _ = by_importance(problem, 1e-9, 100.0, 1e-3, 100)
    # by the error that the table states, in which bias and too few draws count
    assert abs((found.value or 0) - truth) < 3 * math.hypot(found.error or 0, error)
    assert abs((found.value or 0) - prior * 3e11) > 5 * math.hypot(found.stderr or 0, error)


def test_only_the_named_weights_move_and_all_come_back() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stiff = nn.Parameter(torch.zeros(100, dtype=torch.float64))
            self.soft = nn.Parameter(torch.full((100,), 0.5, dtype=torch.float64))

    two = Two()
    seen = []

    def losses(piece: tuple[Tensor, ...]) -> Tensor:
        seen.append(two.soft.detach().clone())
        return (50 * two.stiff.square().sum() + two.soft.square().sum()).expand(len(piece[0]))

    problem = Problem(two, losses, ONE, ["stiff"])
    before = two.stiff.data_ptr(), two.stiff.detach().clone()
    settings = Settings(gamma=100.0, step=1e-4, n_beta=10.0, draws=2000, burn_in=200, chains=2, batch=None)
    found = estimate(problem, settings)
    assert_within(found, quadratic_llc(torch.full((100,), 100.0), 10.0, 100.0, 1e-4), 0.03)
    assert all(torch.equal(at, torch.full((100,), 0.5, dtype=torch.float64)) for at in seen)
    assert two.stiff.data_ptr() == before[0]
    assert torch.equal(two.stiff, before[1])
    assert two.soft.requires_grad
    assert two.stiff.grad is None


def test_burn_in_is_left_out_and_chains_are_kept_apart() -> None:
    settings = Settings(gamma=50.0, step=1e-3, n_beta=1.0, draws=60, burn_in=40, chains=3, batch=None)
    found = estimate(quadratic(torch.ones(50)), settings)
    assert found.elevations.shape == (3, 60)
    longer = estimate(quadratic(torch.ones(50)), replace(settings, draws=100, burn_in=0))
    # the same chains, averaged from the start
    np.testing.assert_array_equal(longer.elevations[:, 40:], found.elevations)
    assert longer.elevations[0, 0] == 0  # the start itself
    assert found.per_chain == tuple(found.elevations.mean(axis=1).tolist())
    assert len(set(found.per_chain)) == 3
    again = estimate(quadratic(torch.ones(50)), settings)
    np.testing.assert_array_equal(again.elevations, found.elevations)
    other = estimate(quadratic(torch.ones(50)), settings, seed=1)
    assert other.value != found.value


HEALTHY = Settings(gamma=50.0, step=1e-3, n_beta=10.0, draws=600, burn_in=200, chains=2, batch=None)


@pytest.mark.parametrize(
    ("problem", "changes", "status", "reason"),
    [
        (quadratic(torch.ones(50)), {}, "ok", ""),
        (quadratic(torch.ones(50) * 1e3), {}, "diverged", "2 of 2 chains"),
        (quadratic(torch.full((50,), -2.0)), {}, "negative", "fell below the start's"),
        (quadratic(torch.full((50,), 0.1), slope=-2.0), {}, "negative", "fell below"),
        (quadratic(torch.ones(2000)), {"burn_in": 0, "step": 1e-4}, "drifting", "the last third of the draws"),
        (quadratic(torch.full((50,), 100.0)), {"step": 2e-3}, "not_converged", "the step is too large"),
        (
            quadratic(torch.cat([torch.ones(50), torch.zeros(500)])),
            {"step": 1e-5},
            "not_converged",
            "burn-in is too short",
        ),
        (quadratic(torch.full((50,), 40.0), slope=0.5), {}, "not_at_minimum", "which may lower the estimate by up to"),
        (quadratic(torch.full((50,), 40.0), slope=0.1), {"gamma": 0.0}, "not_at_minimum", "has norm 0.707"),
    ],
)
def test_health(problem: Problem, changes: dict[str, float], status: str, reason: str) -> None:
    found = estimate(problem, replace(HEALTHY, **changes))
    assert status in {finding.status for finding in found.findings} or (status == found.status == "ok"), found.findings
    assert (found.value is None) == (status == "diverged")
    for number in (found.value, found.stderr, found.r_hat, found.effective_draws, found.equipartition, found.pull):
        assert number is None or math.isfinite(number)
    assert not reason or any(f.status == status and reason in f.reason for f in found.findings)


def test_chains_that_went_different_ways_have_not_converged() -> None:
    """A double well whose wells differ in depth: each chain stays in the one that it fell into."""
    point = Point(torch.zeros(1, dtype=torch.float64))

    def losses(piece: tuple[Tensor, ...]) -> Tensor:
        x = point.x.sum()
        return (8 * (x.square() - 1).square() + 2 * x).expand(len(piece[0]))

    settings = Settings(gamma=0.0, step=1e-2, n_beta=1.0, draws=400, burn_in=200, chains=6, batch=None)
    found = estimate(Problem(point, losses, ONE), settings)
    assert len({round(value or 0) for value in found.per_chain}) > 1
    assert (found.r_hat or 0) > 1.1
    assert "not_converged" in {finding.status for finding in found.findings}


@pytest.mark.parametrize("settings", [HEALTHY, replace(HEALTHY, batch=1, chains=1, rmsprop=True)])
def test_a_constant_loss_has_the_coefficient_zero(settings: Settings) -> None:
    point = Point(torch.zeros(200, dtype=torch.float64))
    problem = Problem(point, lambda piece: torch.full((len(piece[0]),), 1.5, dtype=torch.float64), ONE)
    found = estimate(problem, settings)
    assert (found.value, found.stderr, found.r_hat) == (0.0, 0.0, None)
    assert found.status == "ok"


def test_a_start_that_is_not_finite_has_a_reason() -> None:
    point = Point(torch.tensor([math.inf]))
    problem = Problem(point, lambda piece: point.x.square().expand(len(piece[0])), ONE)
    assert llc(problem, HEALTHY, 0) == NoValue("nonfinite", "a loss is not finite")
    assert calibrate(problem, HEALTHY, [1e-3], [1.0], 0) == NoValue("nonfinite", "a loss is not finite")


def test_a_mean_alone_serves_full_batches() -> None:
    point = Point(torch.zeros(50, dtype=torch.float64))
    each = estimate(Problem(point, lambda p: point.x.square().sum().expand(len(p[0])), [(torch.zeros(3, 1),)]), HEALTHY)
    mean = estimate(Problem(point, lambda p: point.x.square().sum(), [(torch.zeros(3, 1),)]), HEALTHY)
    np.testing.assert_allclose(mean.elevations, each.elevations, rtol=1e-9, atol=1e-12)


def test_calibration_tells_sane_settings_from_others() -> None:
    problem = quadratic(torch.cat([torch.full((20,), 100.0), torch.full((80,), 1.0)]))
    settings = replace(HEALTHY, n_beta=10.0, draws=800, burn_in=300)
    trials = calibrate(problem, settings, [1e-6, 3e-4, 1.5e-3, 1e-2], [30.0], 0, top_eigenvalue=100.0)
    assert isinstance(trials, list)
    assert all(isinstance(trial, Trial) for trial in trials)
    assert [trial.sane for trial in trials] == [False, True, False, False]
    slow, sane, coarse, diverged = trials
    assert any("too short" in reason or "drifting" in reason for reason in slow.reasons)
    assert coarse.coarseness == pytest.approx(1.5e-3 * 1030 / 4)
    assert any("coarse: the step is 0.39 of the largest stable one" in reason for reason in coarse.reasons)
    assert any(reason.startswith("diverged") for reason in diverged.reasons)
    assert (sane.step, sane.gamma, sane.reasons) == (3e-4, 30.0, ())
    with pytest.raises(UserError, match="at least one step and one gamma"):
        calibrate(problem, settings, [], [1.0], 0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Settings(gamma=1.0, step=1e-3), "expected one of n_beta and beta"),
        (lambda: Settings(gamma=1.0, step=1e-3, beta=1.0, n_beta=1.0), "expected one of n_beta and beta"),
        (lambda: Settings(gamma=1.0, step=0.0, beta=1.0), "step above zero, got 0"),
        (lambda: Settings(gamma=-1.0, step=1e-3, beta=1.0), "gamma of zero or more, got -1"),
        (lambda: Settings(gamma=math.nan, step=1e-3, beta=1.0), "gamma of zero or more, got nan"),
        (lambda: Settings(gamma=1.0, step=1e-3, n_beta=math.inf), "n_beta above zero, got inf"),
        (lambda: Settings(gamma=1.0, step=1e-3, beta=1.0, draws=1), "draws of 2 or more, got 1"),
        (lambda: Settings(gamma=1.0, step=1e-3, beta=1.0, batch=0), "batch of 1 or more, got 0"),
        (lambda: Settings(gamma=1.0, step=1e-3, beta=1.0, baseline="full"), "did you mean 'full-batch'"),
        (lambda: named_settings("bila", 5), "did you mean 'billa'"),
        (lambda: named_settings("theory", 1), "at least two examples, got 1"),
    ],
)
def test_mistakes_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()


def autoregressive(rho: float, chains: int, draws: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.empty((chains, draws))
    x[:, 0] = rng.normal(size=chains)
    for t in range(1, draws):
        x[:, t] = rho * x[:, t - 1] + math.sqrt(1 - rho**2) * rng.normal(size=chains)
    return x


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 0.98])
def test_effective_draws_of_an_autoregressive_chain(rho: float) -> None:
    x = autoregressive(rho, 4, 20_000, 0)
    assert effective_draws(x) == pytest.approx(80_000 * (1 - rho) / (1 + rho), rel=0.12)


def test_standard_errors_cover_the_truth() -> None:
    z = [x.mean() / standard_error(x) for x in (autoregressive(0.9, 2, 1500, seed) for seed in range(300))]
    assert float(np.std(z)) == pytest.approx(1, abs=0.15)
    assert float(np.mean(z)) == pytest.approx(0, abs=0.2)


def test_r_hat_and_drift_see_what_they_are_for() -> None:
    x = autoregressive(0.5, 4, 1000, 1)
    assert r_hat(x) == pytest.approx(1, abs=0.01)
    assert abs(drift(x)) < 3
    assert (r_hat(x + np.arange(4)[:, None]) or 0) > 1.3  # chains apart
    rising = x + np.linspace(0, 2, 1000)
    assert (r_hat(rising) or 0) > 1.1  # halves apart
    assert drift(rising) > 8
    assert (r_hat(np.ones((2, 10))), drift(np.ones((2, 10))), standard_error(np.ones((2, 10)))) == (None, 0.0, 0.0)


def small(eigenvalues: Tensor, wall: float) -> Problem:
    """A quadratic with a quartic wall, flat at the start."""
    point = Point(torch.zeros(len(eigenvalues), dtype=torch.float64))

    def losses(piece: tuple[Tensor, ...]) -> Tensor:
        loss = (0.5 * eigenvalues.double() * point.x.square()).sum() + wall * point.x.pow(4).sum()
        return loss.expand(len(piece[0]))

    return Problem(point, losses, ONE)


@pytest.mark.parametrize("down", [1, 8])
@pytest.mark.parametrize("depth", [0.1, 0.5, 1.5])
def test_a_saddle_is_no_minimum(down: int, depth: float) -> None:
    """Its gradient is zero; ``depth`` is n_beta |h| / gamma of the directions that fall."""
    eigenvalues = torch.cat([torch.full((20,), 100.0), torch.full((down,), -depth * 11)])
    settings = replace(HEALTHY, gamma=110.0, n_beta=10.0, step=2e-4)
    found = estimate(small(eigenvalues, 20.0), settings)
    assert found.gradient_norm == 0
    assert found.curvatures == pytest.approx((-depth * 11, 100.0), rel=1e-6)
    assert any(f.status == "not_at_minimum" and "is a saddle" in f.reason for f in found.findings)
    minimum = estimate(small(eigenvalues.abs(), 20.0), settings)
    assert "not_at_minimum" not in {finding.status for finding in minimum.findings}


def test_slight_curvature_downwards_is_none_to_speak_of() -> None:
    """A network's bulk: far below its largest eigenvalue, and nothing beside the localisation."""
    eigenvalues = torch.cat([torch.full((20,), 100.0), torch.full((80,), -1.0)])
    found = estimate(small(eigenvalues, 0.0), replace(HEALTHY, gamma=1e3, n_beta=1.0, step=1e-4))
    assert "not_at_minimum" not in {finding.status for finding in found.findings}


def test_a_chain_that_falls_below_the_start_is_seen_where_the_mean_is_not_negative() -> None:
    point = Point(torch.full((30,), 0.5, dtype=torch.float64))

    def losses(piece: tuple[Tensor, ...]) -> Tensor:
        hill = -0.4 * torch.exp(-200 * (point.x[0] - 0.5).square()) - 3 * torch.sigmoid(20 * (point.x[0] - 1.2))
        return (hill + 0.01 * (point.x[1:] - 0.5).square().sum()).expand(len(piece[0]))

    found = estimate(Problem(point, losses, ONE), replace(HEALTHY, gamma=0.5, n_beta=30.0, step=2e-2, chains=4))
    assert min(value or 0 for value in found.per_chain) < 0
    assert found.status != "ok"


def test_a_loss_that_cannot_be_differentiated_twice_has_no_curvature(monkeypatch: pytest.MonkeyPatch) -> None:
    def product(_hessian: Hessian, _vector: Tensor) -> Tensor:
        raise RuntimeError(
            "derivative for aten::_scaled_dot_product_flash_attention_for_cpu_backward is not implemented"
        )

    monkeypatch.setattr(Hessian, "product", product)
    found = estimate(quadratic(torch.ones(50)), HEALTHY)
    assert (found.curvatures, found.status) == (None, "ok")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("eigenvalues", "gamma", "step", "burn_in", "ok"),
    [
        (torch.full((50,), 0.5), 100.0, 1e-3, 100, 0.7),  # the loss holds nothing
        (torch.cat([torch.full((25,), 10.0), torch.full((25,), 200.0)]), 100.0, 1e-4, 150, 0.5),
    ],
)
def test_an_estimate_that_is_ok_covers_the_truth_of_a_step_of_zero(
    eigenvalues: Tensor, gamma: float, step: float, burn_in: int, ok: float
) -> None:
    """One chain of 400 draws, whose Monte Carlo error alone covers half to four fifths."""
    problem, truth = quadratic(eigenvalues), quadratic_llc(eigenvalues, 1.0, gamma)
    settings = Settings(gamma=gamma, step=step, n_beta=1.0, draws=400, burn_in=burn_in, chains=1, batch=None)
    found = [each for each in (estimate(problem, settings, seed) for seed in range(30)) if each.status == "ok"]
    assert len(found) >= ok * 30
    covered = [abs((each.value or 0) - truth) <= 1.96 * (each.error or 0) for each in found]
    assert sum(covered) >= 0.9 * len(found)


def test_an_interval_of_few_correlated_draws_covers_or_is_none() -> None:
    """A chain's mean, of 400 draws that are correlated over 20 to 80."""
    for rho in (0.9, 0.96):
        errors = [(x.mean(), interval_error(x)) for x in (autoregressive(rho, 1, 400, seed) for seed in range(300))]
        known = [abs(mean) <= 1.96 * error for mean, error in errors if error is not None]
        assert sum(known) >= 0.9 * len(known)
        assert len(known) > 280
    assert interval_error(np.linspace(0, 1, 400)[None]) is None
    assert interval_error(np.ones((2, 10))) == 0.0


def test_what_has_not_ended_is_counted_by_the_slowest_rate() -> None:
    rate, draws = 0.01, 300
    chains = np.random.default_rng(0).normal(0, 1e-3, (2, draws)) - np.exp(-rate * np.arange(draws))
    assert unfinished(chains, rate) == pytest.approx(-chains.mean(), rel=0.02)
    assert unfinished(autoregressive(0.5, 2, 400, 0), rate) < 0.2
