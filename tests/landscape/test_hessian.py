"""The Hessian against finite differences, dense Hessians in float64, and planted spectra."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from landscapes import Point, task_problem, tiny_decoder
from torch import Tensor, nn
from torch.func import functional_call, hessian

from pythiageo.errors import UserError
from pythiageo.landscape.hessian import Hessian, Trace, trace
from pythiageo.landscape.lanczos import Eigenvalues, SpectralDensity, spectral_density, top_eigenvalues
from pythiageo.landscape.problem import Problem
from pythiageo.no_value import NoValue, NoValueError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def orthogonal(size: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=seeded(seed), dtype=torch.float64)).Q


def quadratic(matrix: Tensor, at: Tensor | None = None, examples: int = 1) -> Problem:
    """L(x) = x^T A x / 2, the same for every example."""
    point = Point(torch.zeros(len(matrix), dtype=matrix.dtype) if at is None else at)

    def losses(piece: tuple[Tensor, ...]) -> Tensor:
        return (0.5 * point.x @ matrix @ point.x).expand(len(piece[0]))

    return Problem(point, losses, [(torch.zeros(examples, 1),)])


def planted(eigenvalues: Tensor, seed: int = 0) -> Problem:
    rotation = orthogonal(len(eigenvalues), seed)
    return quadratic(rotation @ torch.diag(eigenvalues.double()) @ rotation.T)


class Small(nn.Module):
    """Embedding, attention by the fused kernel, LayerNorm, GELU: 79 parameters in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.norm = nn.LayerNorm(4)
        self.hidden = nn.Linear(4, 5)
        self.out = nn.Linear(5, 3)
        generator = seeded(4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.double()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.embedding(ids))
        x = x + F.scaled_dot_product_attention(x, x, x, is_causal=True)
        return self.out(F.gelu(self.hidden(x)))


def small_problem(parameters: tuple[str, ...] = ("*",), mean_only: bool = False) -> Problem:
    small = Small()
    ids = torch.randint(0, 6, (7, 3), generator=seeded(1))
    targets = torch.randint(0, 3, (7, 3), generator=seeded(2))

    def losses(piece: tuple[Tensor, ...]) -> Tensor:
        each = F.cross_entropy(small(piece[0]).flatten(0, 1), piece[1].flatten(), reduction="none").view(-1, 3).mean(1)
        return each.mean() if mean_only else each

    return Problem(small, losses, [(ids[:2], targets[:2]), (ids[2:], targets[2:])], parameters)


def written_out_layer_norm(x: Tensor, shape: object, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    deviation = x - x.mean(-1, keepdim=True)
    return weight * deviation / (deviation.square().mean(-1, keepdim=True) + eps).sqrt() + bias


def dense(problem: Problem) -> Tensor:
    """The oracle: torch.func's Hessian of the mean loss, with LayerNorm written out.

    Under vmap, which torch.func uses, second derivatives of the built-in layer_norm are wrong (torch 2.13).
    """
    names = list(problem.parameters)
    shapes = [problem.parameters[name].shape for name in names]
    start = torch.cat([p.detach().reshape(-1) for p in problem.parameters.values()])

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = problem.module

        def forward(self) -> Tensor:
            return sum(problem.piece_sum(piece) for piece in problem.pieces) / problem.examples

    def loss(x: Tensor) -> Tensor:
        parts = x.split([math.prod(shape) for shape in shapes])
        values = {f"module.{n}": p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return functional_call(Mean(), values, ())

    with problem.evaluating(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "layer_norm", written_out_layer_norm)
        return hessian(loss)(start)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("parameters", [("*",), ("norm.*", "hidden.*")])
@pytest.mark.parametrize("mean_only", [True, False])
def test_products_are_those_of_the_dense_hessian(keep: bool, parameters: tuple[str, ...], mean_only: bool) -> None:
    problem = small_problem(parameters, mean_only)
    matrix = dense(problem)
    with Hessian(problem, keep_graph=keep) as operator:
        found = torch.stack([operator.product(unit) for unit in torch.eye(problem.size, dtype=torch.float64)])
        loss, gradient = operator.loss, operator.gradient
    torch.testing.assert_close(found, matrix, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found, found.T, rtol=1e-10, atol=1e-12)
    assert loss == pytest.approx(problem.loss(), rel=1e-12)
    torch.testing.assert_close(gradient, problem.gradient(), rtol=1e-12, atol=1e-14)


def test_products_are_finite_differences_of_gradients_in_a_decoder_with_layernorm() -> None:
    decoder = tiny_decoder()
    problem = task_problem(decoder, "ADD", 6)
    assert any("ln_1.weight" in name for name in problem.parameters)
    vector = torch.randn(problem.size, generator=seeded(5), dtype=torch.float64)
    with Hessian(problem) as operator:
        product = operator.product(vector)
    step = 1e-5

    def gradient_at(distance: float) -> Tensor:
        start = [p.detach().clone() for p in problem.parameters.values()]
        offset = 0
        with torch.no_grad():
            for p in problem.parameters.values():
                p.add_(distance * vector[offset : offset + p.numel()].view_as(p))
                offset += p.numel()
        gradient = problem.gradient()
        with torch.no_grad():
            for p, old in zip(problem.parameters.values(), start, strict=True):
                p.copy_(old)
        return gradient

    # fourth order: the truncation is below the rounding of the gradients
    near = (gradient_at(step) - gradient_at(-step)) / (2 * step)
    far = (gradient_at(2 * step) - gradient_at(-2 * step)) / (4 * step)
    differences = (4 * near - far) / 3
    assert float((product - differences).norm() / product.norm()) < 1e-7
    # each LayerNorm gain on its own: errors there are easily hidden by the rest
    offset = 0
    for name, p in problem.parameters.items():
        part = slice(offset, offset + p.numel())
        offset += p.numel()
        if "ln_" in name:
            torch.testing.assert_close(product[part], differences[part], rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_top_eigenvalues_of_a_small_network(which: str) -> None:
    problem = small_problem()
    truth = torch.linalg.eigvalsh(dense(problem))
    order = {"largest": -truth, "smallest": truth, "magnitude": -truth.abs()}[which].argsort()[:5]
    with Hessian(problem) as operator:
        found = top_eigenvalues(operator, 5, seeded(), which, tolerance=1e-9)
    assert isinstance(found, Eigenvalues)
    assert found.converged
    torch.testing.assert_close(found.values, truth[order], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("basis", [None, 8, 60])
def test_planted_top_eigenvalues_with_and_without_restarts(basis: int | None) -> None:
    eigenvalues = torch.cat([torch.tensor([50.0, 20.0, 19.0, 7.0, -30.0]), torch.linspace(-1, 1, 195)]).double()
    with Hessian(planted(eigenvalues)) as operator:
        for which, truth in (("largest", [50, 20, 19, 7]), ("magnitude", [50, -30, 20, 19])):
            found = top_eigenvalues(operator, 4, seeded(3), which, tolerance=1e-8, basis=basis)
            assert isinstance(found, Eigenvalues)
            assert found.converged
            assert found.values.tolist() == pytest.approx(truth, rel=1e-12)
            # the vectors are what the values claim
            gram = found.vectors @ found.vectors.T
            torch.testing.assert_close(gram, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-10)


@given(seed=st.integers(0, 10**6), size=st.integers(1, 30), products=st.integers(2, 20))
def test_a_residual_bounds_the_distance_to_an_eigenvalue(seed: int, size: int, products: int) -> None:
    eigenvalues = torch.randn(size, generator=seeded(seed), dtype=torch.float64)
    with Hessian(planted(eigenvalues, seed)) as operator:
        found = top_eigenvalues(operator, 1, seeded(seed), tolerance=1e-6, max_products=products)
    assert isinstance(found, Eigenvalues)
    for value, residual in zip(found.values, found.residuals, strict=True):
        assert float((eigenvalues - value).abs().min()) <= float(residual) + 1e-12
    assert found.products <= products


def test_too_few_products_are_said_to_be_too_few() -> None:
    with Hessian(planted(torch.linspace(0, 1, 300))) as operator:
        found = top_eigenvalues(operator, 3, seeded(), tolerance=1e-8, max_products=12)
    assert isinstance(found, Eigenvalues)
    assert not found.converged
    assert found.products == 12


@pytest.mark.parametrize("seed", range(4))
def test_no_product_is_taken_once_the_outliers_are_found(seed: int) -> None:
    """A network's spectrum: a few outliers, close ones among them, and a bulk near zero."""
    outliers = torch.tensor([100.0, 40.0, 39.0, 10.0])
    problem = planted(torch.cat([outliers, torch.linspace(-0.1, 0.1, 296)]))
    with Hessian(problem) as operator:
        found = top_eigenvalues(operator, 3, seeded(seed))
    assert isinstance(found, Eigenvalues)
    assert found.converged
    torch.testing.assert_close(found.values, outliers[:3].double(), rtol=1e-5, atol=0)
    assert found.products < 3 + 16  # of a full basis of 2k + 10, and k for the residuals


def test_repeated_eigenvalues_where_the_space_closes() -> None:
    eigenvalues = torch.cat([torch.full((3,), 2.0), torch.ones(37)])
    with Hessian(planted(eigenvalues)) as operator:
        found = top_eigenvalues(operator, 4, seeded(), tolerance=1e-8)
    assert isinstance(found, Eigenvalues)
    assert found.values.tolist() == pytest.approx([2, 2, 2, 1], rel=1e-10)


def test_float32_on_a_network() -> None:
    decoder = tiny_decoder()
    with Hessian(task_problem(decoder, "MOD", 6)) as operator:
        truth = top_eigenvalues(operator, 3, seeded(), tolerance=1e-9)
    with Hessian(task_problem(decoder.float(), "MOD", 6)) as operator:
        found = top_eigenvalues(operator, 3, seeded(), tolerance=1e-4)
    assert isinstance(truth, Eigenvalues)
    assert isinstance(found, Eigenvalues)
    assert found.converged
    torch.testing.assert_close(found.values, truth.values, rtol=1e-5, atol=0)


@pytest.mark.parametrize("sketch", [0, 6])
def test_trace_within_three_standard_errors(sketch: int) -> None:
    problem = small_problem()
    truth = float(dense(problem).trace())
    with Hessian(problem) as operator:
        found = trace(operator, 60, seeded(1), sketch)
    assert isinstance(found, Trace)
    assert abs(found.value - truth) < 3 * found.stderr
    assert found.products == 60 + 2 * sketch


def test_the_standard_error_of_the_trace_is_its_spread() -> None:
    eigenvalues = torch.cat([torch.tensor([40.0, 30.0]), torch.linspace(-1, 1, 28)])
    truth = float(eigenvalues.sum())
    with Hessian(planted(eigenvalues)) as operator:
        plain = [trace(operator, 10, seeded(seed)) for seed in range(200)]
        sketched = [trace(operator, 10, seeded(seed), sketch=4) for seed in range(200)]
    assert all(isinstance(found, Trace) for found in plain + sketched)
    values, claimed = (
        [torch.tensor([getattr(found, name) for found in many]) for many in (plain, sketched)]
        for name in ("value", "stderr")
    )
    spread = [value.std() for value in values]
    for value, stderr, std in zip(values, claimed, spread, strict=True):
        assert abs(float(value.mean()) - truth) < 3 * float(std) / 200**0.5
        assert float(stderr.square().mean().sqrt() / std) == pytest.approx(1, abs=0.2)
    assert spread[1] < 0.2 * spread[0]  # the two large eigenvalues are taken exactly


def test_the_trace_of_a_diagonal_matrix_is_exact() -> None:
    with Hessian(quadratic(torch.diag(torch.arange(1.0, 6.0)).double())) as operator:
        found = trace(operator, 2, seeded())
        full = trace(operator, 2, seeded(), sketch=5)
    assert isinstance(found, Trace)
    assert isinstance(full, Trace)
    assert (found.value, found.stderr) == (15.0, 0.0)
    assert full.value == pytest.approx(15.0, rel=1e-12)


def test_density_of_a_planted_spectrum() -> None:
    eigenvalues = torch.cat([torch.linspace(0, 1, 60), torch.linspace(4, 5, 40)]).double()
    with Hessian(planted(eigenvalues)) as operator:
        found = spectral_density(operator, 12, 30, seeded(2))
    assert isinstance(found, SpectralDensity)
    torch.testing.assert_close(found.weights.sum(1), torch.ones(12, dtype=torch.float64))
    share, low, high = found.below(torch.tensor([2.5]))
    assert float(low) <= 0.6 <= float(high) <= float(low) + 0.2
    assert float(share) == pytest.approx(0.6, abs=0.05)
    for order in (1, 2, 3):
        moment, error = found.moment(order)
        assert abs(moment - float((eigenvalues**order).mean())) < 3 * error
    grid = torch.linspace(-2, 7, 1801, dtype=torch.float64)
    density = found.density(grid, 0.05)
    assert float(density.sum() * 0.005) == pytest.approx(1, abs=1e-6)
    assert float(density[(grid > 1.5) & (grid < 3.5)].max()) < 1e-3
    assert float(density[(grid > 4.3) & (grid < 4.7)].mean()) > 0.2


def test_quadrature_is_exact_per_vector() -> None:
    problem = small_problem()
    matrix = dense(problem)
    with Hessian(problem) as operator:
        found = spectral_density(operator, 2, 4, seeded(3))
    assert isinstance(found, SpectralDensity)
    generator = seeded(3)
    torch.randn(problem.size, generator=generator, dtype=torch.float64)  # the space's own start, not used
    vector = 2 * torch.randint(0, 2, (problem.size,), generator=generator).double() - 1
    for order in range(8):  # degree 2 * 4 - 1
        exact = vector @ torch.linalg.matrix_power(matrix, order) @ vector / problem.size
        assert float((found.nodes[0] ** order * found.weights[0]).sum()) == pytest.approx(float(exact), rel=1e-9)


def test_losses_that_are_linear_or_constant_have_the_hessian_zero() -> None:
    point = Point(torch.ones(6, dtype=torch.float64))
    data = [(torch.randn(4, 6, generator=seeded(), dtype=torch.float64),)]
    for losses in (lambda piece: piece[0] @ point.x, lambda piece: piece[0].sum(1)):
        with Hessian(Problem(point, losses, data)) as operator:
            top = top_eigenvalues(operator, 2, seeded())
            total = trace(operator, 3, seeded())
            density = spectral_density(operator, 2, 3, seeded())
        assert isinstance(top, Eigenvalues)
        assert isinstance(total, Trace)
        assert isinstance(density, SpectralDensity)
        assert top.values.tolist() == [0, 0]
        assert (total.value, total.stderr) == (0, 0)
        assert density.moment(2) == (0, 0)


def test_one_parameter() -> None:
    with Hessian(quadratic(torch.tensor([[3.0]]).double())) as operator:
        top = top_eigenvalues(operator, 1, seeded())
    assert isinstance(top, Eigenvalues)
    assert top.values.tolist() == [3.0]


def test_what_is_not_finite_has_a_reason() -> None:
    problem = quadratic(torch.eye(3).double(), at=torch.tensor([math.nan, 0, 0]).double())
    with pytest.raises(NoValueError, match="the loss is not finite"), Hessian(problem):
        pass
    root = Point(torch.zeros(1, dtype=torch.float64))  # |x|^1.5 has a gradient at zero, and no second derivative
    kinked = Problem(root, lambda piece: (root.x.square() ** 0.75).expand(len(piece[0])), [(torch.zeros(1, 1),)])
    with pytest.raises(NoValueError, match="the gradient holds NaN or infinity"), Hessian(kinked):
        pass
    steep = Point(torch.full((2,), 1e-200, dtype=torch.float64))
    infinite = Problem(steep, lambda piece: (steep.x**1.25).sum().expand(len(piece[0])), [(torch.zeros(1, 1),)])
    with Hessian(infinite) as operator:
        vector = torch.full((2,), 1e200, dtype=torch.float64)
        with pytest.raises(NoValueError, match="a product with the Hessian holds NaN or infinity"):
            operator.product(vector * 1e100)


def test_measures_return_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with Hessian(planted(torch.ones(4))) as operator:

        def broken(_vector: Tensor) -> Tensor:
            raise NoValueError("a product with the Hessian holds NaN or infinity", "nonfinite")

        monkeypatch.setattr(operator, "product", broken)
        for outcome in (
            top_eigenvalues(operator, 1, seeded()),
            trace(operator, 2, seeded()),
            spectral_density(operator, 2, 2, seeded()),
        ):
            assert outcome == NoValue("nonfinite", "a product with the Hessian holds NaN or infinity")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda h: top_eigenvalues(h, 0, seeded()), "between 1 and 9 eigenvalues"),
        (lambda h: top_eigenvalues(h, 10, seeded()), "between 1 and 9 eigenvalues"),
        (lambda h: top_eigenvalues(h, 2, seeded(), "largst"), "did you mean 'largest'"),
        (lambda h: top_eigenvalues(h, 3, seeded(), basis=3), "basis of more than 3"),
        (lambda h: top_eigenvalues(h, 3, seeded(), max_products=5), "6 products or more"),
        (lambda h: trace(h, 1, seeded()), "two probes or more"),
        (lambda h: trace(h, 4, seeded(), sketch=10), "sketch of 0 to 9"),
        (lambda h: spectral_density(h, 1, 4, seeded()), "two vectors or more"),
    ],
)
def test_mistakes_are_named(call: Callable[[Hessian], object], message: str) -> None:
    with Hessian(planted(torch.ones(9))) as operator, pytest.raises(UserError, match=message):
        call(operator)


def test_a_density_needs_a_width() -> None:
    with pytest.raises(UserError, match="a width above zero, got 0"):
        SpectralDensity(torch.zeros(2, 2), torch.ones(2, 2)).density(torch.zeros(1), 0.0)


def test_same_bits_again() -> None:
    outcomes = []
    for _ in range(2):
        with Hessian(task_problem(tiny_decoder().float(), "ADD", 5)) as operator:
            outcomes.append((top_eigenvalues(operator, 2, seeded(4)), trace(operator, 3, seeded(5))))
    (top, total), (top_again, total_again) = outcomes
    assert isinstance(top, Eigenvalues)
    assert isinstance(top_again, Eigenvalues)
    assert torch.equal(top.values, top_again.values)
    assert total == total_again
