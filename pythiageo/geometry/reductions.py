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

import math

import numpy as np
from scipy.linalg import blas, lapack  # type: ignore[import-untyped]

from pythiageo.geometry.lapack import BLOCK, Array, bidiagonal, bidiagonal_values, torch_threads

CHUNK = 256
"""Rows multiplied at a time: a sum of partial sums rounds less than one long sum."""


class Tridiagonal:
    """The Gram matrix of ``weighted`` (Y; row, d_model) on its smaller side, reduced.

    Eigenvalues are absolute to about ``eps * terms * lambda_max`` of the *uncentred* matrix.
    """

    def __init__(self, weighted: Array, ones: Array) -> None:
        rows, columns = weighted.shape
        self._tall = rows > columns
        # the longest chain of roundings: in a product, or in the reduction
        self.terms = max(columns, min(rows, CHUNK + -(-rows // CHUNK)))
        with torch_threads():
            gram, start = _product(weighted, ones) if self._tall else (_square(weighted.T, 1), ones)
            self._lowered = float(start @ start)
            if len(gram) == 1:
                self._diagonal, self._beside = gram[0], np.empty(0)
                return
            if self._lowered > 0:
                _turn(gram, *_mirror(start))
            lwork = BLOCK * len(gram)
            _, self._diagonal, self._beside, _, _ = lapack.dsytrd(gram, lower=1, lwork=lwork, overwrite_a=1)

    def eigenvalues(self, centred: bool) -> Array:
        """Return at most min(row, d_model) eigenvalues, descending, none below zero; those left out are exactly zero.

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
        return np.maximum(diagonal[::-1], 0.0)


class Bidiagonal:
    """``weighted`` (Y) itself, reduced: singular values are absolute to a few ``eps`` times the *uncentred* largest."""

    def __init__(self, weighted: Array, ones: Array) -> None:
        rows, columns = weighted.shape
        self._values = min(rows, columns)
        with torch_threads():
            if rows > columns:
                beside = np.empty((rows, columns + 1), order="F")
                beside[:, 0], beside[:, 1:] = ones, weighted
                factor = _triangle(beside)
                del beside
                mean, rest = factor[0, 1:], factor[1:, 1:]
            else:
                factor = _triangle(weighted.T.copy(order="F")).T  # rows of Y in another basis
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
        return bidiagonal_values(*_put_on_top(self._length, self._diagonal, self._beside))


def _put_on_top(length: float, diagonal: Array, beside: Array) -> tuple[Array, Array]:
    """Return the upper bidiagonal form of B with the row (length, 0, ...) on top, by rotations of neighbouring rows."""
    above, below = [length, *beside.tolist()], diagonal.tolist()
    new_diagonal, new_beside = [], []
    corner = above[0]
    for index, entry in enumerate(below):
        root = math.hypot(corner, entry)
        cosine, sine = (corner / root, entry / root) if root > 0 else (1.0, 0.0)
        new_diagonal.append(root)
        if index + 1 < len(below):
            new_beside.append(sine * above[index + 1])
            corner = cosine * above[index + 1]
    return np.array(new_diagonal), np.array(new_beside)


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


def _triangle(matrix: Array) -> Array:
    """Return the R of a tall matrix in Fortran's order, which is overwritten (LAPACK's ``dgeqrf``)."""
    columns = matrix.shape[1]
    factor, _, _, _ = lapack.dgeqrf(matrix, lwork=BLOCK * columns, overwrite_a=1)
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
