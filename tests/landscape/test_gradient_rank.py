"""Ranks of gradients against plain per-example gradients, closed forms and planted spectra."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from landscapes import Point, nano, per_example_gradients, task_problem, tiny_decoder
from torch import Tensor, nn

from pythiageo.errors import UserError
from pythiageo.landscape import captures
from pythiageo.landscape.gradient_rank import (
    GradientRank,
    first_parameters_covariance_rank,
    gradient_covariance_rank,
    gradient_effective_rank,
    random_batches,
)
from pythiageo.landscape.gram import GradientGram, gradient_gram
from pythiageo.landscape.measures import LANDSCAPE_MEASURES, LandscapeMeasure, get_landscape_measure
from pythiageo.landscape.problem import Problem
from pythiageo.no_value import NoValue


def gram_of(problem: Problem, **settings: int) -> GradientGram:
    gram = gradient_gram(problem, **settings)
    assert isinstance(gram, GradientGram), gram
    return gram


def value(rank: GradientRank | NoValue) -> float:
    assert isinstance(rank, GradientRank), rank
    return rank.value


def entropy_rank(matrix: Tensor, centred: bool) -> float:
    """By singular values of the gradients themselves, which the product under test never sees."""
    rows = matrix - matrix.mean(0) if centred else matrix
    p = torch.linalg.svdvals(rows).square()
    p = p / p.sum()
    return math.exp(float(torch.special.entr(p).sum()))


def linear_problem(gradients: Tensor) -> Problem:
    """Example i has the loss g_i . x: its gradient is g_i, whatever x is."""
    point = Point(torch.zeros(gradients.shape[1], dtype=gradients.dtype))
    return Problem(point, lambda piece: piece[0] @ point.x, [(gradients,)])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("how", ["pairs", "formed"])
def test_products_are_those_of_plain_gradients(monkeypatch: pytest.MonkeyPatch, bias: bool, how: str) -> None:
    monkeypatch.setattr(captures, "ELEMENTWISE", -(10**9) if how == "pairs" else 10**9)
    monkeypatch.setattr(captures, "PAIR_ROWS", 37)
    monkeypatch.setattr(captures, "BLOCK_VALUES", 700)
    problem = task_problem(tiny_decoder(bias=bias), examples=14)
    gram = gram_of(problem)
    rows = per_example_gradients(problem)
    assert gram.parameters == rows.shape[1]
    assert len(problem.pieces) > 2
    torch.testing.assert_close(gram.matrix, rows @ rows.T, rtol=1e-11, atol=1e-11 * float(rows.square().sum()))
    # embeddings are used a second time, outside a layer: they must not have been read at the layer alone
    assert gram.formed == ("wte.weight", "wpe.weight")


@pytest.mark.slow
def test_layers_are_read_in_groups_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = task_problem(tiny_decoder(), examples=8)
    whole = gram_of(problem)
    passes = 0
    plain = problem.piece_losses

    def counted(piece: tuple[Tensor, ...]) -> Tensor:
        nonlocal passes
        passes += 1
        return plain(piece)

    monkeypatch.setattr(problem, "piece_losses", counted)
    parts = gram_of(problem, memory=1)
    assert passes > 13 * len(problem.pieces)
    torch.testing.assert_close(parts.matrix, whole.matrix, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("patterns", [("blocks.1.*",), ("ln_f.weight",), ("blocks.0.fc.weight",), ("wte.*", "ln_f.*")])
def test_a_named_subset_is_differentiated_alone(patterns: tuple[str, ...]) -> None:
    problem = task_problem(tiny_decoder(), examples=9, parameters=patterns)
    rows = per_example_gradients(problem)
    assert rows.shape[1] == problem.size < 3000
    torch.testing.assert_close(
        gram_of(problem).matrix, rows @ rows.T, rtol=1e-10, atol=1e-11 * float(rows.square().sum())
    )


class Odd(nn.Module):
    """Layers in unusual uses: shared, on vectors, on four axes, unused, frozen, cut from the graph, unbatchable."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4, padding_idx=0)
        self.shared = nn.Linear(4, 4)
        self.deep = nn.Linear(4, 3, bias=False)
        self.unused = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.norm = nn.LayerNorm((2, 4))
        self.last = nn.Linear(3, 1)
        self.last.bias.requires_grad_(False)

    def forward(self, ids: Tensor, batchable: bool = True) -> Tensor:
        x = self.norm(self.shared(torch.tanh(self.shared(self.embedding(ids)))))
        x = self.deep(torch.stack([x, x.square()], dim=1)).sum((1, 2)) * self.scale
        if not batchable and float(x.detach().sum()) > 1e9:  # a branch on a value: vmap refuses it
            return x.sum(1)
        return self.last(torch.tanh(x)).squeeze(1)


@pytest.mark.parametrize("batchable", [True, False])
def test_layers_in_odd_uses(batchable: bool) -> None:
    torch.manual_seed(3)
    odd = Odd().double()
    ids = torch.tensor([[0, 1], [2, 3], [4, 4], [1, 0], [3, 2]])
    problem = Problem(odd, lambda piece: odd(piece[0], batchable).square(), [(ids[:2],), (ids[2:],)])
    before = {name: p.requires_grad for name, p in odd.named_parameters()}
    gram = gram_of(problem)
    assert {name: p.requires_grad for name, p in odd.named_parameters()} == before
    with problem.evaluating():
        rows = per_example_gradients(problem)
    torch.testing.assert_close(gram.matrix, rows @ rows.T, rtol=1e-11, atol=1e-12)
    # a two-axis LayerNorm and a lone parameter have no rule; the rest has
    assert {"scale", "norm.weight", "norm.bias"} <= set(gram.formed)
    assert "shared.weight" not in gram.formed


def test_a_layer_that_mixes_examples_is_refused() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)

    def mixing(piece: tuple[Tensor, ...]) -> Tensor:
        out = layer(piece[0])
        return (out - out.mean(0)).square().sum(1)

    with pytest.raises(UserError, match="another one when the example is alone"):
        gradient_gram(Problem(layer, mixing, [(torch.randn(6, 3),)]))


def test_float32_gradients_give_the_rank_to_one_in_ten_thousand() -> None:
    model = nano()
    single = gram_of(task_problem(model, "MOD", 24))
    double = gram_of(task_problem(model.double(), "MOD", 24))
    assert single.parameters == 405_248
    for centred in (False, True):
        rank = gradient_effective_rank(single, centred)
        assert value(rank) == pytest.approx(value(gradient_effective_rank(double, centred)), rel=1e-4)
        assert isinstance(rank, GradientRank)
        assert rank.error < 1e-6


@pytest.mark.parametrize("centred", [True, False])
def test_ranks_of_plain_gradients(centred: bool) -> None:
    problem = task_problem(tiny_decoder(), "MOD", 16)
    rank = gradient_effective_rank(gram_of(problem), centred)
    assert value(rank) == pytest.approx(entropy_rank(per_example_gradients(problem), centred), rel=1e-9)


def test_planted_spectrum() -> None:
    generator = torch.Generator().manual_seed(1)
    left = torch.linalg.qr(torch.randn(20, 4, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(50, 4, generator=generator, dtype=torch.float64)).Q
    sigma = torch.tensor([1, 0.5, 0.25, 0.125], dtype=torch.float64)
    rank = gradient_effective_rank(gram_of(linear_problem(left @ torch.diag(sigma) @ right.T)))
    assert value(rank) == pytest.approx(2.063, abs=5e-4)  # of sigma^2


def test_the_error_bound_holds_where_the_mean_dominates() -> None:
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(12, 300, generator=generator, dtype=torch.float64)
    mean = torch.randn(300, generator=generator, dtype=torch.float64)
    for size in (1e2, 1e4, 1e5):
        gradients = noise + size * mean
        rank = gradient_effective_rank(gram_of(linear_problem(gradients)), centred=True)
        truth = entropy_rank(gradients, centred=True)
        if isinstance(rank, GradientRank):
            assert abs(rank.value / truth - 1) <= rank.error
        else:
            assert (rank.status, size) == ("imprecise", 1e5)
            assert "may change the rank" in rank.reason


def test_batch_gradients_from_the_examples_own() -> None:
    problem = task_problem(tiny_decoder(), "ADD", 20)
    batches = random_batches(20, 4, torch.Generator().manual_seed(0))
    rows = per_example_gradients(problem)
    means = torch.stack([rows[batch].mean(0) for batch in batches])
    found = gradient_covariance_rank(gram_of(problem), batches)
    assert value(found) == pytest.approx(entropy_rank(means, centred=True), rel=1e-9)
    assert 1 <= value(found) <= len(batches) - 1
    for count in (100, 500):  # inside the first tensor, and inside the second
        first = first_parameters_covariance_rank(problem, batches, count)
        assert value(first) == pytest.approx(entropy_rank(means[:, :count], centred=True), rel=1e-9)
        assert isinstance(first, GradientRank)
        assert first.parameters == count
    everything = first_parameters_covariance_rank(problem, batches, 10**9)
    assert value(everything) == pytest.approx(value(found), rel=1e-9)


def test_random_batches_are_disjoint_and_fixed_by_their_seed() -> None:
    batches = random_batches(23, 5, torch.Generator().manual_seed(7))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5]
    assert len(set(torch.cat(batches).tolist())) == 20
    again = random_batches(23, 5, torch.Generator().manual_seed(7))
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))
    with pytest.raises(UserError, match="at least two batches of 9 examples, got 5"):
        random_batches(9, 5, torch.Generator())
    with pytest.raises(UserError, match="each with an example"):
        gradient_covariance_rank(gram_of(linear_problem(torch.ones(2, 2))), [torch.tensor([0])])


@given(seed=st.integers(0, 10**6), rows=st.integers(2, 12), columns=st.integers(1, 20), scale=st.floats(1e-6, 1e6))
def test_invariant_to_scale_rotation_and_order(seed: int, rows: int, columns: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(columns, columns, generator=generator, dtype=torch.float64)).Q
    other = scale * gradients[torch.randperm(rows, generator=generator)] @ rotation
    for centred in (True, False):
        base = value(gradient_effective_rank(gram_of(linear_problem(gradients)), centred))
        assert 1 - 1e-9 <= base <= min(rows - centred, columns) + 1e-9
        assert value(gradient_effective_rank(gram_of(linear_problem(other)), centred)) == pytest.approx(base, rel=1e-7)


@pytest.mark.parametrize(
    ("gradients", "centred", "outcome"),
    [
        (torch.zeros(3, 4), False, "all gradients are zero"),
        (torch.zeros(3, 4), True, "all gradients are zero"),
        (torch.full((3, 4), 0.1), False, 1.0),
        (torch.full((3, 4), 0.1), True, "do not differ"),
        (torch.full((1, 4), 0.1), False, 1.0),
        (torch.full((1, 4), 0.1), True, "do not differ"),
        (torch.eye(3, 4), False, 3.0),
        (torch.eye(3, 4), True, 2.0),
    ],
)
def test_degenerate_gradients(gradients: Tensor, centred: bool, outcome: float | str) -> None:
    rank = gradient_effective_rank(gram_of(linear_problem(gradients)), centred)
    if isinstance(outcome, str):
        assert isinstance(rank, NoValue)
        assert outcome in rank.reason
    else:
        assert value(rank) == pytest.approx(outcome, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_has_a_reason(bad: float) -> None:
    gradients = torch.eye(3, 4)
    gradients[1, 2] = bad
    gram = gradient_gram(linear_problem(gradients))
    assert isinstance(gram, NoValue)
    assert gram.status == "nonfinite"
    batches = [torch.tensor([0]), torch.tensor([1])]
    rank = first_parameters_covariance_rank(linear_problem(gradients), batches)
    assert isinstance(rank, NoValue)
    assert rank.status == "nonfinite"


def test_same_bits_again() -> None:
    first, second = (gram_of(task_problem(tiny_decoder(), "SORT", 10)) for _ in range(2))
    assert torch.equal(first.matrix, second.matrix)


def _one_short(piece: tuple[Tensor, ...]) -> Tensor:
    return piece[0].sum(1)[1:]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda m: Problem(m, torch.sum, []), "at least one example"),
        (lambda m: Problem(m, torch.sum, [(torch.zeros(2, 3), torch.zeros(3))]), "piece 0: expected tensors with one"),
        (lambda m: Problem(m, torch.sum, [(torch.zeros(2, 3),)], ["wieght"]), "did you mean 'weight'"),
        (lambda m: Problem(m, torch.sum, [(torch.zeros(2, 3),)], []), "at least one parameter"),
        (lambda m: gradient_gram(Problem(m, _one_short, [(torch.zeros(2, 3),)])), r"shape \(2,\), got losses of shape"),
    ],
)
def test_mistakes_are_named(build: Callable[[nn.Module], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(nn.Linear(3, 1))


def test_dropout_is_off_and_the_module_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    module[1].eval()
    modes = [m.training for m in module.modules()]
    weights = [p.detach().clone() for p in module.parameters()]
    problem = Problem(module, lambda piece: module(piece[0]).squeeze(1), [(torch.randn(5, 3),)])
    assert torch.equal(gram_of(problem).matrix, gram_of(problem).matrix)
    assert [m.training for m in module.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(weights, module.parameters(), strict=True))
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("measure", LANDSCAPE_MEASURES.values(), ids=LANDSCAPE_MEASURES)
def test_the_table_names_functions_that_are_there(measure: LandscapeMeasure) -> None:
    module, function = measure.function.split(".")
    found = getattr(importlib.import_module(f"pythiageo.landscape.{module}"), function)
    assert callable(found)
    assert get_landscape_measure(measure.name) is measure
    assert all((measure.title, measure.needs, measure.cost, measure.formula, measure.source, measure.invariances))


def test_an_unknown_measure_has_a_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'hessian_trace'"):
        get_landscape_measure("hesian_trace")
