"""One reduction of a matrix of states, from which its centred and its uncentred spectrum both follow.

States X (row, d_model), row i standing for c_i equal ones: with D = diag(sqrt(c)), n = sum c, Y = D X and
q = D 1 / sqrt(n), the mean times sqrt(n) is r = Y^T q, and the centred states have the singular values of
(I - q q^T) Y.

``Tridiagonal`` squares: Y^T Y - r r^T, or, on the other side, (I - q q^T) Y Y^T (I - q q^T). A reduction whose first
basis vector is r (or q) makes centring a change of the first entry (or leaves out the first row and column).
``Bidiagonal`` does not: an orthogonal map on the left takes q to e1 and splits Y into r^T above the centred rest; a
reduction B of the rest, whose first basis vector on the right is r, stays bidiagonal with r^T put on top of it again.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import blas, lapack  # type: ignore[import-untyped]

from pythiageo.geometry.lapack import BLOCK, Array, bidiagonal, bidiagonal_values, torch_threads


class Tridiagonal:
    """The Gram matrix of ``weighted`` (Y; row, d_model) on its smaller side, reduced.

    Eigenvalues are absolute to about ``eps * max(row, d_model) * lambda_max`` of the *uncentred* matrix.
    """

    def __init__(self, weighted: Array, ones: Array) -> None:
        self._tall = weighted.shape[0] > weighted.shape[1]
        with torch_threads():
            # the transpose of a C-ordered matrix is Fortran-ordered: nothing is copied
            gram = blas.dsyrk(1.0, weighted.T, trans=0 if self._tall else 1, lower=1)
            start = weighted.T @ ones if self._tall else ones
            self._lowered = float(start @ start)
            if len(gram) == 1:
                self._diagonal, self._beside = gram[0], np.empty(0)
                return
            if self._lowered > 0:
                _turn(gram, *_mirror(start))
            lwork = BLOCK * len(gram)
            _, self._diagonal, self._beside, _, _ = lapack.dsytrd(gram, lower=1, lwork=lwork, overwrite_a=1)

    def eigenvalues(self, centred: bool) -> Array:
        """Return min(row, d_model) eigenvalues, descending, none below zero.

        Raises:
            ArithmeticError: no convergence, which LAPACK's ``dsterf`` does not show on finite input.
        """
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
        descending = np.maximum(diagonal[::-1], 0.0)
        return np.pad(descending, (0, len(self._diagonal) - len(descending)))


class Bidiagonal:
    """``weighted`` (Y) itself, reduced: singular values are absolute to a few ``eps`` times the *uncentred* largest."""

    def __init__(self, weighted: Array, ones: Array) -> None:
        rows, columns = weighted.shape
        self._values = min(rows, columns)
        with torch_threads():
            if rows > columns:
                factor = _triangle(np.column_stack([ones, weighted]))
                mean, rest = factor[0, 1:], factor[1:, 1:]
            else:
                factor = _triangle(weighted.T).T  # rows of Y in another basis
                mirror, scale = _mirror(ones)
                factor = factor - np.outer(scale * mirror, mirror @ factor)
                mean, rest = factor[0], factor[1:]
            square = np.zeros((self._values, self._values))
            square[: len(rest)] = rest
            self._length = float(np.sqrt(mean @ mean))
            if self._length > 0:
                mirror, scale = _mirror(mean)
                square -= np.outer(square @ mirror, scale * mirror)
            self._diagonal, self._beside = bidiagonal(square)

    def values(self, centred: bool) -> Array:
        """Return min(row, d_model) singular values, descending; raises as ``bidiagonal_values``."""
        if centred:
            return bidiagonal_values(self._diagonal, self._beside)
        # r^T on top of B is lower bidiagonal; its transpose, with a row of zeros, upper
        diagonal = np.concatenate([[self._length], self._beside, [0.0]])
        return bidiagonal_values(diagonal, self._diagonal)[: self._values]


def _triangle(matrix: Array) -> Array:
    """Return the R of a tall matrix (LAPACK's ``dgeqrf``)."""
    columns = matrix.shape[1]
    factor, _, _, _ = lapack.dgeqrf(matrix, lwork=BLOCK * columns)
    return np.triu(factor[:columns])


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
