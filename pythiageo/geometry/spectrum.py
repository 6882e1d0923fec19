"""Singular values of a matrix of states, in float64, with a bound on what their rounding does to an entropy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

ENTROPY_TOLERANCE = 1e-6
"""Greatest error of the entropy of sigma / sum sigma (so, relative, of RankMe) that the Gram matrix may bring."""


@dataclass(frozen=True)
class Spectrum:
    """Singular values, descending, of a (rows, columns) matrix, and how they were computed (``gram`` or ``svd``)."""

    sigma: Float[Tensor, " value"]
    rows: int
    columns: int
    method: str


def spectrum(states: Float[Tensor, "row d_model"], centred: bool) -> Spectrum:
    """Return the singular values of ``states``, after taking off the mean row if ``centred``.

    Centring is done before the product is formed, in float64, so massive activations in the mean cannot swamp it.
    The eigenvalues of the Gram matrix on the smaller side are squares, so a small sigma is lost in rounding of about
    ``sqrt(eps * rows) * sigma_max``. Where the entropy of the spectrum could be off by more than
    ``ENTROPY_TOLERANCE``, a singular value decomposition in float64 is taken instead. States that are equal but for
    the rounding of their mean have singular values of exactly zero, not the spectrum of that rounding.

    Raises:
        ValueError: no row, or values that are not finite.
    """
    if states.ndim != 2 or states.shape[0] == 0:
        raise ValueError(f"expected a (row, d_model) matrix with at least one row, got shape {tuple(states.shape)}")
    if not bool(torch.isfinite(states).all()):
        raise ValueError("states hold NaN or infinity")
    matrix = states.double()
    rows, columns = matrix.shape
    if centred:
        rounding = torch.finfo(torch.float64).eps * rows * float(matrix.abs().max())
        matrix = matrix - matrix.mean(dim=0)
        if float(matrix.abs().max()) <= rounding:
            matrix = torch.zeros_like(matrix)
    gram = matrix.T @ matrix if columns <= rows else matrix @ matrix.T
    eigenvalues = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)
    if _entropy_error(eigenvalues, max(rows, columns)) <= ENTROPY_TOLERANCE:
        return Spectrum(eigenvalues.sqrt(), rows, columns, "gram")
    return Spectrum(torch.linalg.svdvals(matrix), rows, columns, "svd")


def _entropy_error(eigenvalues: Float[Tensor, " value"], terms: int) -> float:
    """Bound the error of the entropy H of p = sigma / S that eigenvalues off by delta can make.

    delta = eps * terms * lambda_max (a product of ``terms`` summands, each rounded). A sigma is then off by at most
    e = min(sqrt(delta), delta / (2 sigma) * (1 + delta / lambda)), and dH = -sum_i (log p_i + H) dsigma_i / S.
    """
    largest = float(eigenvalues[0])
    if largest <= 0:
        return 0.0
    delta = torch.finfo(torch.float64).eps * terms * largest
    sigma = eigenvalues.sqrt()
    # where lambda is not well above delta, sigma may be anything between 0 and about sqrt(2 delta)
    error = torch.where(eigenvalues > 4 * delta, delta / sigma, (2 * delta) ** 0.5)
    total = sigma.sum()
    p = torch.maximum(sigma, error) / total
    entropy = -(p * p.log()).sum()
    return float(((p.log() + entropy).abs() * error).sum() / total)
