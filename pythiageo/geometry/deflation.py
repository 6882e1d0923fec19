"""Few directions that dwarf all others, split off a matrix before it is squared."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.geometry.matrix import EPS

LOOKED_AT = 8
"""Directions that are looked for: the last of them stands for all others."""
DWARFS = 30.0
"""How many times the last direction one must be to be split off: less costs the others no digits that anybody needs."""
ROUNDS = 2
"""Products with the matrix and back. A direction that dwarfs the last one is right to one in 10^7 then, and what that
moves is of second order."""
LEAST_SIDE = 2 * LOOKED_AT
"""A matrix of fewer rows or columns has no others that few directions could dwarf."""


class Split(NamedTuple):
    """A matrix's largest singular values, and the rest of it, which has all the others and as many zeros.

    ``rounded``: how far a singular value may be off for it. ``coupled``: how far a square may be off because the
    directions are right to so many digits only.
    """

    sigma: Float[Tensor, " direction"]
    rest: Float[Tensor, "row column"]
    rounded: float
    coupled: float


def find_directions(
    matrix: Float[Tensor, "row column"],
) -> tuple[Float[Tensor, " found"], Float[Tensor, "found column"]]:
    """Return the largest singular values, descending, and their right vectors as rows, by block iteration.

    They start where a fixed projection points, so that equal matrices have equal bits. Where the spectrum falls slowly
    they are only about right; the last ones are in any case.
    """
    rows = len(matrix)
    angles = torch.arange(1, rows + 1, dtype=torch.float64, device=matrix.device)
    roots = torch.arange(2, LOOKED_AT + 2, dtype=torch.float64, device=matrix.device).sqrt()
    across = torch.cos(torch.outer(roots, angles))
    for _ in range(ROUNDS):
        # few rows times a matrix: the other way round BLAS takes three times as long
        across = torch.linalg.qr((across @ matrix).T).Q.T.contiguous() @ matrix.T
    basis = torch.linalg.qr((across @ matrix).T).Q.T.contiguous()
    turn, sigma, _ = torch.linalg.svd(basis @ matrix.T, full_matrices=False)
    return sigma, turn.T @ basis


def split(matrix: Float[Tensor, "row column"]) -> Split | None:
    """Split off the directions that dwarf the others; ``None`` where there are none.

    With V their right vectors the rest is Y - Y V V^T. Its Gram matrix rounds by its own largest eigenvalue and not by
    the whole matrix's. That V holds singular directions to within E = (I - V V^T) Y^T Y V moves a square of the others
    by at most sum_j |E_j|^2 / (sigma_j^2 - lambda), lambda being the largest of the rest.
    """
    if min(matrix.shape) < LEAST_SIDE:
        return None
    sigma, vectors = find_directions(matrix)
    if not float(sigma[0]) > DWARFS * float(sigma[-1]):
        return None
    count = int((sigma > (DWARFS * sigma[-1]).clamp_min(EPS * len(matrix) * sigma[0])).sum())
    if not float(sigma[count - 1]) > float(sigma[count]):
        return None
    taken = vectors[:count]
    along = taken @ matrix.T
    rest = torch.addmm(matrix, along.T, taken, alpha=-1)
    coupling = torch.linalg.vector_norm(along @ rest, dim=1).square()
    gaps = sigma[:count].square() - sigma[count].square()
    rounded = 4 * (count + 2) * EPS * float(torch.linalg.vector_norm(sigma))
    return Split(sigma[:count], rest, rounded, float((coupling / gaps).sum()))
