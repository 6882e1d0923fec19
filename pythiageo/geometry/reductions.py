"""The Gram matrix of states on its smaller side, from which the centred and the uncentred spectrum both follow.

States X (row, d_model), row i standing for c_i equal ones: with D = diag(sqrt(c)), n = sum c, Y = D X and
q = D 1 / sqrt(n), the mean times sqrt(n) is r = Y^T q, and the centred states have the singular values of
(I - q q^T) Y.

So their Gram matrix is Y^T Y - r r^T, or, on the other side, (I - q q^T) Y Y^T (I - q q^T): a change of rank one or two,
no second product. On the CPU a second reduction is saved too: with r (or q) as its first basis vector, centring changes
the first entry of the tridiagonal form (or leaves out the first row and column).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.linalg import blas, lapack  # type: ignore[import-untyped]
from torch import Tensor


Array = NDArray[np.float64]
BLOCK = 64
"""Columns LAPACK's blocked reductions may take at once: their workspace is this times the side of the matrix."""
CHUNK = 256
"""Rows multiplied at a time: a sum of partial sums rounds less than one long sum."""


@runtime_checkable
class Reduction(Protocol):
    """A Gram matrix. Its eigenvalues are absolute to ``eps * terms * lambda_max`` of the *uncentred* matrix."""

    terms: int

    def eigenvalues(self, centred: bool) -> Float[Tensor, " value"]:
        """Return at most min(row, d_model) eigenvalues, descending, none below zero; those left out are exactly zero.

        Raises:
            ArithmeticError: no convergence.
        """


def reduce(weighted: Float[Tensor, "row d_model"], ones: Float[Tensor, " row"]) -> Reduction:
    """Return the Gram matrix of ``weighted`` (Y), ``ones`` being q, by what is fastest where the states are.

    ``ones`` of zeros says that nobody will ask for the centred spectrum.
    """
    if weighted.device.type == "cpu":
        return Tridiagonal(weighted.numpy(), ones.numpy())
    return Gram(weighted, ones)


class Tridiagonal:
    """The Gram matrix by BLAS and LAPACK of the CPU (``dsyrk``, ``dsytrd``, ``dsterf``), reduced once."""

    def __init__(self, weighted: Array, ones: Array) -> None:
        rows, columns = weighted.shape
        self._tall = rows > columns
        # the longest chain of roundings: in a product, or in the reduction
        self.terms = max(columns, min(rows, CHUNK + -(-rows // CHUNK)))
        gram, start = _product(weighted, ones) if self._tall else (_square(weighted.T, 1), ones)
        self._lowered = float(start @ start)
        if len(gram) == 1:
            self._diagonal, self._beside = gram[0], np.empty(0)
            return
        if self._lowered > 0:
            _turn(gram, *_mirror(start))
        lwork = BLOCK * len(gram)
        _, self._diagonal, self._beside, _, _ = lapack.dsytrd(gram, lower=1, lwork=lwork, overwrite_a=1)

    def eigenvalues(self, centred: bool) -> Float[Tensor, " value"]:
        """See ``Reduction``."""
        diagonal, beside = self._diagonal, self._beside
        if centred and self._tall:
            diagonal = diagonal.copy()
            diagonal[0] -= self._lowered
        elif centred:
            diagonal, beside = diagonal[1:], beside[1:]
        if len(diagonal) > 1:
            diagonal, info = lapack.dsterf(diagonal, beside)
            if info:
                raise ArithmeticError(f"LAPACK's dsterf did not converge (info {info})")
        return torch.from_numpy(np.maximum(diagonal[::-1], 0.0))


class Gram:
    """The Gram matrix by torch, on whatever device the states are; nothing of it leaves the device."""

    def __init__(self, weighted: Float[Tensor, "row d_model"], ones: Float[Tensor, " row"]) -> None:
        self._tall = weighted.shape[0] > weighted.shape[1]
        self.terms = max(weighted.shape)
        self._gram = weighted.T @ weighted if self._tall else weighted @ weighted.T
        self._start = weighted.T @ ones if self._tall else ones

    def eigenvalues(self, centred: bool) -> Float[Tensor, " value"]:
        """See ``Reduction``."""
        gram = self._gram
        if centred and self._tall:
            gram = gram - torch.outer(self._start, self._start)
        elif centred:
            beside = gram @ self._start
            beside -= 0.5 * (self._start @ beside) * self._start
            gram = gram - torch.outer(self._start, beside) - torch.outer(beside, self._start)
        values = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0.0)
        return values[:-1] if centred and not self._tall else values


def _square(matrix: Array, transposed: int, onto: Array | None = None) -> Array:
    """Return the lower triangle of ``matrix matrix^T`` (or, transposed, ``matrix^T matrix``), added ``onto`` one."""
    if onto is None:
        return np.asarray(blas.dsyrk(1.0, matrix, trans=transposed, lower=1))
    return np.asarray(blas.dsyrk(1.0, matrix, trans=transposed, lower=1, beta=1.0, c=onto, overwrite_c=1))


def _product(weighted: Array, ones: Array) -> tuple[Array, Array]:
    """Return the lower triangle of Y^T Y, and Y^T q, each a sum over chunks of rows."""
    gram, start = None, np.zeros(weighted.shape[1])
    for begin in range(0, len(weighted), CHUNK):
        # the transpose of a C-ordered matrix is Fortran-ordered: nothing is copied
        chunk = weighted[begin : begin + CHUNK].T
        gram = _square(chunk, 0, gram)
        start += chunk @ ones[begin : begin + CHUNK]
    assert gram is not None
    return gram, start


def _mirror(vector: Array) -> tuple[Array, float]:
    """Return v and s of the reflection I - s v v^T that takes ``vector`` to a multiple of e1."""
    mirror = vector / np.sqrt(vector @ vector)
    mirror[0] += np.copysign(1.0, mirror[0])
    return mirror, 2.0 / float(mirror @ mirror)


def _turn(gram: Array, mirror: Array, scale: float) -> None:
    """Replace the lower triangle of ``gram`` by that of H gram H, H = I - scale mirror mirror^T.

    LAPACK's reduction of a lower triangle leaves e1 as it is, so what H takes to e1 becomes its first basis vector.
    """
    turned = blas.dsymv(scale, gram, mirror, lower=1)
    turned -= 0.5 * scale * float(turned @ mirror) * mirror
    blas.dsyr2(-1.0, mirror, turned, lower=1, a=gram, overwrite_a=1)
