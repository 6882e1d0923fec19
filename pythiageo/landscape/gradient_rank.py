"""Effective ranks of gradients: of single examples' gradients, and of batches' gradients about their mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.errors import UserError
from pythiageo.landscape.gram import GradientGram
from pythiageo.landscape.problem import Problem, flat
from pythiageo.no_value import NoValueError, or_no_value

TOLERANCE = 1e-4
"""Greatest relative error that the rounding of the Gram matrix may make in an effective rank (it is 1e-9 or so, unless
the gradients hardly differ from their mean)."""

FIRST_PARAMETERS = 50_000
"""How many parameters the study's gradient covariance rank looks at: the first ones, embeddings and early layers."""


@dataclass(frozen=True)
class GradientRank:
    """``value``: effective rank, between 1 and ``n`` (``n - 1`` if centred), of ``n`` gradients.

    ``error`` bounds, relative to ``value``, what the rounding of their products in float64 does to it; the gradients
    themselves are as exact as the parameters' type. ``eigenvalues`` (value), descending, sum to 1.
    """

    value: float
    error: float
    n: int
    parameters: int
    eigenvalues: Float[Tensor, " value"]


@or_no_value
def gradient_effective_rank(gram: GradientGram, centred: bool = False) -> GradientRank:
    """Return exp(-sum p log p), p the eigenvalues of G G^T over their sum; G (example, parameter) holds the gradients.

    The study calls it gradient effective rank (first "Fisher": G G^T shares its eigenvalues with the empirical
    Fisher matrix, times the number of examples). ``centred`` takes the mean gradient off first: the covariance of
    per-example gradients. Invariant to the scale of the loss, the order of examples and rotations of parameter space;
    not to a scale of single examples' losses. It cannot exceed the number of examples, and grows with it.

    Source: Billa 2026, arXiv 2602.15997; Roy and Vetterli 2007 for the effective rank.

    Undefined where all gradients are zero, or centred and all alike (one example always is).

    >>> gram = GradientGram(torch.diag(torch.tensor([2.0, 2.0, 0.0], dtype=torch.float64)), 9, 9, 2.2e-16)
    >>> round(gradient_effective_rank(gram).value, 6)
    2.0
    """
    return _rank(gram, gram.matrix, centred)


@or_no_value
def gradient_covariance_rank(gram: GradientGram, batches: list[Int[Tensor, " example"]]) -> GradientRank:
    """Return the effective rank of the covariance of batch gradients, on all the parameters of ``gram``.

    The gradient of a batch is the mean of its examples' gradients, so with W (batch, example) the averaging matrix,
    the Gram matrix of batches is W K W^T: nothing is differentiated again. Then centred as above. It cannot exceed the
    number of batches less one, and grows with it.

    Raises:
        UserError: fewer than two batches, or a batch without example.
    """
    _check(batches)
    weights = torch.zeros(len(batches), len(gram.matrix), dtype=torch.float64, device=gram.matrix.device)
    for row, batch in enumerate(batches):
        weights[row].index_add_(0, batch, torch.full((len(batch),), 1 / len(batch), dtype=torch.float64))
    return _rank(gram, weights @ gram.matrix @ weights.T, centred=True)


@or_no_value
def first_parameters_covariance_rank(
    problem: Problem, batches: list[Int[Tensor, " example"]], count: int = FIRST_PARAMETERS
) -> GradientRank:
    """Return the study's variant: as ``gradient_covariance_rank``, on the first ``count`` parameters only.

    First in the module's own order, in which embeddings and early layers lead: the number says little of the others.

    Raises:
        UserError: fewer than two batches, or a batch without example.
    """
    _check(batches)
    names: list[str] = []
    held = 0
    for name, parameter in problem.parameters.items():
        if held >= count:
            break
        names.append(name)
        held += parameter.numel()
    part = [problem.parameters[name] for name in names]
    rows = torch.zeros(len(batches), min(held, count), dtype=torch.float64, device=problem.device)
    with problem.evaluating(), torch.enable_grad():
        for index, batch in enumerate(batches):
            for piece, numbers in problem.minibatch(batch):
                share = problem.piece_sum(piece) / len(batch)
                if share.requires_grad and len(numbers):
                    grads = torch.autograd.grad(share, part, allow_unused=True, materialize_grads=True)
                    rows[index] += flat(grads)[:count].double()
    if not bool(torch.isfinite(rows).all()):
        raise NoValueError("a gradient holds NaN or infinity", "nonfinite")
    precision = torch.finfo(problem.dtype).eps
    return _rank(GradientGram(rows @ rows.T, rows.shape[1], rows.shape[1], precision), rows @ rows.T, centred=True)


def random_batches(examples: int, size: int, generator: torch.Generator) -> list[Int[Tensor, " example"]]:
    """Return disjoint batches of ``size`` examples, drawn in random order; what is left over is in none.

    Raises:
        UserError: fewer than two batches come out.
    """
    if size < 1 or examples // size < 2:
        raise UserError(f"expected a batch size with at least two batches of {examples} examples, got {size}")
    order = torch.randperm(examples, generator=generator)
    cuts = range(0, examples // size * size + 1, size)
    return [order[start:end] for start, end in pairwise(cuts)]


def _check(batches: list[Int[Tensor, " example"]]) -> None:
    if len(batches) < 2 or any(len(batch) == 0 for batch in batches):
        raise UserError(f"expected two batches or more, each with an example, got {[len(batch) for batch in batches]}")


def _rank(gram: GradientGram, matrix: Float[Tensor, "row row"], centred: bool) -> GradientRank:
    size = float(matrix.diagonal().max())
    if not size > 0:
        raise NoValueError("all gradients are zero")
    before = float(matrix.trace())
    if centred:
        matrix = matrix - matrix.mean(0, keepdim=True)
        matrix = matrix - matrix.mean(1, keepdim=True)
        # equal gradients differ by the rounding with which they were computed
        if float(matrix.trace()) <= (32 * gram.precision) ** 2 * before:
            raise NoValueError("the gradients do not differ: their covariance is zero")
    eigenvalues = torch.linalg.eigvalsh((matrix + matrix.T) / 2).flip(0).clamp_min(0)
    total = float(eigenvalues.sum())
    p = eigenvalues / total
    entropy = float(torch.special.entr(p).sum())
    # entries are off by at most eps * terms * |g_i| |g_j|, so the matrix by eps * terms * trace in the Frobenius norm,
    # and so are the eigenvalues together (Hoffman and Wielandt); dH = -sum_i (log p_i + H) dp_i
    off = torch.finfo(torch.float64).eps * gram.terms * before / total
    error = off * float((torch.maximum(p, torch.full_like(p, off)).log() + entropy).norm())
    if error > TOLERANCE:
        raise NoValueError(f"the rounding of the Gram matrix may change the rank by {error:.0e}", "imprecise")
    return GradientRank(math.exp(entropy), error, len(matrix), gram.parameters, p)
