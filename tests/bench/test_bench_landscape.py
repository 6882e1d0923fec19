"""Ratios against named peers, in one run each: medians of interleaved repetitions. Asserts results, never times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from landscapes import nano, per_example_gradients, task_problem
from scipy.sparse.linalg import LinearOperator, eigsh
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from pythiageo.landscape.gradient_rank import GradientRank, gradient_effective_rank
from pythiageo.landscape.gram import GradientGram, gradient_gram
from pythiageo.landscape.hessian import Hessian
from pythiageo.landscape.lanczos import Eigenvalues, top_eigenvalues
from pythiageo.landscape.llc import LLC, Settings, llc
from pythiageo.landscape.problem import Problem
from pythiageo.measurement.forest_loss import find_forest_logits
from pythiageo.measurement.probe_loss import logits_of, problem_of, shared_problem_of
from pythiageo.probes.encoding import CharacterTokenizer, encode_probe_set
from pythiageo.probes.probeset import make_probe_set
from pythiageo.probes.task import MIXED, load_tasks

pytestmark = pytest.mark.bench

TASKS = ("COPY", "REV", "CMP", "PAR", "ADD", "MOD", "SORT", "MUL")


def interleaved(repeats: int, **contenders: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each, taken in turns so that a busy machine is unfair to none."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print("\n" + ", ".join(f"{name} {value:.2f} s" for name, value in medians.items()))
    return medians


def test_gradient_rank_against_a_loop_over_examples() -> None:
    """The loop holds all N x P gradients, in float32; nano, one task of 200 examples."""
    problem = task_problem(nano(), "ADD", 200)

    def loop() -> torch.Tensor:
        rows = per_example_gradients(problem)
        return rows @ rows.T

    torch.testing.assert_close(_gram(problem).matrix, loop(), rtol=1e-3, atol=1e-6)
    medians = interleaved(5, ours=lambda: gradient_gram(problem), loop=loop)
    print(f"per-example loop / ours: {medians['loop'] / medians['ours']:.2f}")


def _gram(problem: object) -> GradientGram:
    gram = gradient_gram(problem)  # type: ignore[arg-type]
    assert isinstance(gram, GradientGram)
    return gram


def test_gradient_rank_of_eight_tasks() -> None:
    model = nano()
    start = time.perf_counter()
    for task in TASKS:
        rank = gradient_effective_rank(_gram(task_problem(model, task, 200)))
        assert isinstance(rank, GradientRank)
        print(f"\n{task}: {rank.value:.2f} +- {rank.error:.0e}", end="")
    print(
        f"\neight tasks x 200 examples, nano: {time.perf_counter() - start:.1f} s, {torch.get_num_threads()} thread(s)"
    )


def test_hessian_against_eigsh() -> None:
    """Both on our products, kept graph: five eigenvalues, residuals to 1e-3 of the largest."""
    problem = task_problem(nano(), "ADD", 100)
    products: dict[str, int] = {}

    def ours() -> list[float]:
        with Hessian(problem) as operator:
            found = top_eigenvalues(operator, 5, torch.Generator().manual_seed(0))
        assert isinstance(found, Eigenvalues)
        products["ours"] = found.products
        return found.values.tolist()

    def arpack() -> list[float]:
        with Hessian(problem) as operator:
            linear = LinearOperator(
                (problem.size, problem.size),
                matvec=lambda v: operator.product(torch.from_numpy(v.ravel().astype(np.float32))).numpy(),
                dtype=np.float32,
            )
            start = np.random.default_rng(0).normal(size=problem.size).astype(np.float32)
            values = eigsh(linear, k=5, which="LA", ncv=20, tol=1e-3, v0=start, return_eigenvectors=False)
            products["eigsh"] = operator.products
        return sorted(values.tolist(), reverse=True)

    assert ours() == pytest.approx(arpack(), rel=1e-3)
    medians = interleaved(3, ours=ours, eigsh=arpack)
    print(f"eigsh / ours: {medians['eigsh'] / medians['ours']:.2f}; products {products}")


def test_products_with_and_without_the_graph() -> None:
    problem = task_problem(nano(), "ADD", 100)
    vector = torch.randn(problem.size, generator=torch.Generator().manual_seed(0))
    with Hessian(problem) as kept, Hessian(problem, keep_graph=False) as rebuilt:
        medians = interleaved(
            5,
            gradient=problem.gradient,
            kept=lambda: kept.product(vector),
            rebuilt=lambda: rebuilt.product(vector),
        )
    print(f"a product in gradients: kept {medians['kept'] / medians['gradient']:.2f}, ", end="")
    print(f"rebuilt {medians['rebuilt'] / medians['gradient']:.2f}")


def test_draws_per_second() -> None:
    """Against the time of the gradient alone: what a draw of batch 32 costs beside it."""
    problem = task_problem(nano(), "ADD", 200)
    settings = Settings(gamma=1e4, step=1e-5, n_beta=1.0, draws=30, burn_in=0, chains=1, batch=32)
    small = task_problem(nano(), "ADD", 32)

    def draws() -> None:
        assert isinstance(llc(problem, settings, 0), LLC)

    def gradients() -> None:
        for _ in range(30):
            small.gradient()

    medians = interleaved(3, draws=draws, gradients=gradients)
    ratio = medians["draws"] / medians["gradients"]
    print(f"{30 / medians['draws']:.1f} draws a second; a draw / a gradient: {ratio:.2f}")


def test_largest_eigenvalue_against_power_iteration() -> None:
    """Both on our products. Power iteration stops as PyHessian does: a change below 1e-3, at most 100 products."""
    problem = task_problem(nano(), "ADD", 100)
    found: dict[str, tuple[float, int]] = {}

    def ours() -> None:
        with Hessian(problem) as operator:
            top = top_eigenvalues(operator, 1, torch.Generator().manual_seed(0), "magnitude", tolerance=1e-2)
        assert isinstance(top, Eigenvalues)
        found["ours"] = float(top.values[0]), top.products

    def power() -> None:
        with Hessian(problem) as operator:
            vector = torch.randn(problem.size, generator=torch.Generator().manual_seed(0))
            value = last = 0.0
            for _ in range(100):
                vector = vector / vector.norm()
                image = operator.product(vector)
                last, value = value, float(vector @ image)
                vector = image
                if abs(value - last) < 1e-3 * abs(value):
                    break
            found["power"] = value, operator.products

    with Hessian(problem) as operator:
        exact = top_eigenvalues(operator, 1, torch.Generator().manual_seed(1), "magnitude", tolerance=1e-5)
    assert isinstance(exact, Eigenvalues)
    medians = interleaved(3, ours=ours, power=power)
    errors = {name: abs(value / float(exact.values[0]) - 1) for name, (value, _) in found.items()}
    print(f"power iteration / ours: {medians['power'] / medians['ours']:.2f}; relative errors {errors}; {found}")


def test_largest_eigenvalue_against_pyhessian() -> None:
    """One batch of one length, the largest eigenvalue; PyHessian by power iteration to its tolerance of 1e-3."""
    peer_library = pytest.importorskip("pyhessian", reason="PyHessian is no dependency: install it to compare")
    model = nano()
    whole = task_problem(model, "ADD", 200)
    ids, targets = max(whole.pieces, key=lambda piece: len(piece[0]))
    problem = task_problem(model, "ADD", 200)
    problem.pieces, problem.counts, problem.examples = [(ids, targets)], [len(ids)], len(ids)

    def criterion(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        return (each.view(wanted.shape).sum(1) / (wanted != -100).sum(1)).mean()

    found: dict[str, float] = {}

    def ours() -> None:
        with Hessian(problem) as operator:
            top = top_eigenvalues(operator, 1, torch.Generator().manual_seed(0), which="magnitude")
        assert isinstance(top, Eigenvalues)
        found["ours"] = float(top.values[0])

    def theirs() -> None:
        peer = peer_library.hessian(model, criterion, data=(ids, targets), cuda=False)
        found["pyhessian"] = float(peer.eigenvalues(maxIter=200, tol=1e-3, top_n=1)[0][0])

    medians = interleaved(3, ours=ours, pyhessian=theirs)
    print(f"PyHessian / ours: {medians['pyhessian'] / medians['ours']:.2f}; eigenvalues {found}")


def pythia_problems(task: str, examples: int) -> tuple[Problem, Problem]:
    """A task's loss under a model of Pythia-70m's shape: in plain passes, and on prefix forests."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2048,
                           vocab_size=50_304, attn_implementation="eager")  # fmt: skip
    model = GPTNeoXForCausalLM(config).eval()
    encoded = encode_probe_set(make_probe_set(load_tasks(None)[task], MIXED, examples, 0), CharacterTokenizer())
    forests = find_forest_logits(model, encoded)
    assert forests is not None
    return problem_of(model, logits_of(model), encoded), shared_problem_of(model, forests, encoded, cut=forests.cut)


def test_gradient_rank_at_70m_shape_against_a_loop_over_examples() -> None:
    """The loop holds all gradients, 0.28 GB an example in float32: so 16 examples. Ours of 200 is printed, too."""
    problem, _ = pythia_problems("CMP", 16)
    parameters = list(problem.parameters.values())

    def loop() -> torch.Tensor:
        rows = torch.empty(problem.examples, problem.size)
        singles = [
            tuple(tensor[k : k + 1] for tensor in piece) for piece in problem.pieces for k in range(len(piece[0]))
        ]
        for row, single in zip(rows, singles, strict=True):
            grads = torch.autograd.grad(problem.piece_losses(single).sum(), parameters)
            torch.cat([grad.flatten() for grad in grads], out=row)
        return rows @ rows.T

    for parameter in parameters:
        parameter.requires_grad_(True)
    torch.testing.assert_close(_gram(problem).matrix.float(), loop(), rtol=1e-3, atol=1e-4)
    medians = interleaved(3, ours=lambda: gradient_gram(problem), loop=loop)
    print(f"70m shape, 16 examples: per-example loop / ours: {medians['loop'] / medians['ours']:.2f}")
    whole, _ = pythia_problems("CMP", 200)
    medians = interleaved(1, gradient=whole.gradient, ours=lambda: gradient_gram(whole))
    print(f"200 examples: a Gram matrix in gradients: {medians['ours'] / medians['gradient']:.2f}")


def test_products_and_gradients_on_prefix_forests() -> None:
    """70m shape, 200 comparisons, graph kept: what examples share is computed once, against plain padded passes."""
    plain, shared = pythia_problems("CMP", 200)
    vector = torch.randn(plain.size, generator=torch.Generator().manual_seed(0))
    vector /= vector.norm()
    medians = interleaved(3, plain=plain.gradient, forest=shared.gradient)
    print(f"gradient: plain / forest: {medians['plain'] / medians['forest']:.2f}")
    with Hessian(plain) as a, Hessian(shared) as b:
        expected = a.product(vector)
        assert float((b.product(vector) - expected).norm() / expected.norm()) < 1e-5
        medians = interleaved(3, plain=lambda: a.product(vector), forest=lambda: b.product(vector))
    print(f"product: plain / forest: {medians['plain'] / medians['forest']:.2f}")
