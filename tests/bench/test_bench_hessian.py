"""Ours against PyHessian at equal accuracy: the same model, examples and loss; each as loose as the accuracy allows.

PyHessian gets its fastest form: one padded batch, whose gradient graph it keeps as we do. It is no dependency:
``pip install pyhessian==0.1`` beside the pinned torch, then ``make bench``.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from landscapes import IGNORED, nano, task_pieces, task_problem
from torch import Tensor

from pythiageo.landscape.hessian import Hessian
from pythiageo.landscape.lanczos import Eigenvalues, top_eigenvalues
from pythiageo.landscape.problem import Problem

pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("ignore:Using backward")]
PAIRS = int(os.environ.get("PYTHIAGEO_BENCH_PAIRS", "5"))
EXAMPLES = 100
TOLERANCES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    """Nano, a little trained on the task."""
    model = nano()
    problem = task_problem(model, "ADD", EXAMPLES)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(150):
        optimiser.zero_grad()
        (sum(problem.piece_sum(piece) for piece in problem.pieces) / EXAMPLES).backward()  # type: ignore[union-attr]
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def problem(model: torch.nn.Module) -> Problem:
    return task_problem(model, "ADD", EXAMPLES)


def theirs(model: torch.nn.Module) -> Any:
    """PyHessian on the same examples, as one padded batch."""
    peer = pytest.importorskip("pyhessian", reason="PyHessian is no dependency: install it to compare")
    pieces = task_pieces("ADD", EXAMPLES)
    width = max(ids.shape[1] for ids, _ in pieces)
    ids = torch.cat([F.pad(ids, (0, width - ids.shape[1])) for ids, _ in pieces])
    targets = torch.cat([F.pad(t, (0, width - t.shape[1]), value=IGNORED) for _, t in pieces])

    def criterion(logits: Tensor, wanted: Tensor) -> Tensor:
        each = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none")
        return (each.view(wanted.shape).sum(1) / (wanted != IGNORED).sum(1)).mean()

    for parameter in model.parameters():
        parameter.grad = None  # the last one's graph hangs on it
    return peer.hessian(model, criterion, data=(ids, targets), cuda=False)


def in_pairs(what: str, ours: Callable[[int], object], peer: Callable[[int], object]) -> None:
    """Print the peer's time over ours: the median of pairs taken in turns, and the range; wall clock and CPU."""
    ratios: dict[str, list[float]] = {"wall": [], "cpu": []}
    for seed in range(PAIRS):
        spent = []
        for run in (ours, peer):
            begun = time.perf_counter(), time.process_time()
            run(seed)
            spent.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
        for number, unit in enumerate(ratios):
            ratios[unit].append(spent[1][number] / spent[0][number])
    for unit, values in ratios.items():
        span = f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"
        print(f"PyHessian / ours, {what}, {PAIRS} pairs, {unit}: {span}")


@pytest.mark.parametrize(("k", "accuracy"), [(1, 1e-3)])
def test_top_eigenvalues_at_equal_accuracy(model: torch.nn.Module, problem: Problem, k: int, accuracy: float) -> None:
    """Largest in magnitude, which is what power iteration finds; every one to this relative error, for every seed."""

    def ours(seed: int, tolerance: float) -> list[float]:
        with Hessian(problem) as operator:
            found = top_eigenvalues(operator, k, torch.Generator().manual_seed(seed), "magnitude", tolerance=tolerance)
        assert isinstance(found, Eigenvalues)
        return found.values.tolist()

    def peer(seed: int, tolerance: float) -> list[float]:
        torch.manual_seed(seed)
        return theirs(model).eigenvalues(maxIter=500, tol=tolerance, top_n=k)[0]

    truth = torch.tensor(ours(99, 1e-5), dtype=torch.float64)

    def error(found: list[float]) -> float:
        return float((torch.tensor(found, dtype=torch.float64) / truth - 1).abs().max())

    def loosest(run: Callable[[int, float], list[float]]) -> tuple[float, float]:
        for tolerance in TOLERANCES:
            worst = max(error(run(seed, tolerance)) for seed in range(2))
            if worst <= accuracy:
                return tolerance, worst
        return TOLERANCES[-1], worst

    chosen = {"ours": loosest(ours), "PyHessian": loosest(peer)}
    print(f"\n{k} eigenvalues, {truth.tolist()}: tolerance and worst error {chosen}")
    assert chosen["ours"][1] <= accuracy
    in_pairs(
        f"{k} eigenvalues to {accuracy:g}",
        lambda seed: ours(seed, chosen["ours"][0]),
        lambda seed: peer(seed, chosen["PyHessian"][0]),
    )
