"""Eigenvalues of the Gram matrix of states on its smaller side: the squares of their singular values.

States X (row, d_model), row i standing for c_i equal ones: with D = diag(sqrt(c)), n = sum c, Y = D X and
q = D 1 / sqrt(n), the mean times sqrt(n) is r = Y^T q, and the centred states have the singular values of
Z = (I - q q^T) Y = Y - q r^T. A mean can be far larger than all that varies, so it is Z that is squared:

    Y^T Y = Z^T Z + r r^T,    Y Y^T = Z Z^T + q (Z r)^T + (Z r) q^T + |r|^2 q q^T.

A change of rank one or two, no second product. Nor a second reduction, on the CPU: with r (or q) as its first basis
vector, Z's tridiagonal form becomes Y's by a change of its first entry (or by a first row and column that are put
before it), and small eigenvalues of the one and of the other are told apart from rounding of Z alone.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import blas  # type: ignore[import-untyped]
from torch import Tensor

from pythiageo.geometry.lapack import (
    Array,
    add_gram,
    add_outer_gram,
    positive_values,
    tridiagonal,
    tridiagonal_values,
)
from pythiageo.geometry.matrix import EPS

CHUNK = 256
"""Rows multiplied at a time: a sum of partial sums rounds less than one long sum."""


@runtime_checkable
class Reduction(Protocol):
    """The squares of singular values of Z and of Y.

    ``keeps_small``: whether those of Y are as exact as those of Z, however large the mean is.
    """

    keeps_small: bool

    def squares(self, centred: bool) -> Float[Tensor, " value"]:
        """Return at most min(row, d_model) of them, descending, none below zero; those left out are exactly zero.

        Raises:
            ArithmeticError: no convergence.
        """

    def error(self, centred: bool) -> float:
        """Return how far each of ``squares`` may be off."""


def reduce(
    centred: Float[Tensor, "row d_model"], ones: Float[Tensor, " row"], mean: Float[Tensor, " d_model"]
) -> Reduction:
    """Return the reduction of Z, q and r that is fastest where the states are."""
    if centred.device.type == "cpu":
        return Tridiagonal(centred.numpy(), ones.numpy(), mean.numpy())
    return Gram(centred, ones, mean)


def tries_gram_first(states: Tensor) -> bool:
    """Return whether eigenvalues come sooner than an answer to whether few directions are massive: on a GPU."""
    return states.device.type != "cpu"


def find_squares(matrix: Float[Tensor, "row column"]) -> tuple[Float[Tensor, " value"], float]:
    """Return the squares of one matrix's singular values, descending, none below zero, and how far each may be off."""
    if matrix.device.type != "cpu":
        return find_squares_on_device(matrix)
    squares = _find_eigenvalues(*tridiagonal(_multiply(matrix.numpy())))
    return squares, _bound(squares, matrix.shape)


def find_squares_on_device(matrix: Float[Tensor, "row column"]) -> tuple[Float[Tensor, " value"], float]:
    """Return the same by torch, on whatever device the matrix is."""
    squares = _find_on_device(_multiply_on_device(matrix))
    return squares, _bound(squares, matrix.shape)


class Tridiagonal:
    """One reduction for both by BLAS and LAPACK of the CPU (``dsyrk``, ``dsytrd``, then ``dsterf`` or ``dpteqr``)."""

    keeps_small = True

    def __init__(self, centred: Array, ones: Array, mean: Array) -> None:
        self._tall = _is_tall(centred.shape)
        self._raised = float(mean @ mean)
        gram = _multiply(centred)
        if len(gram) > 1 and not (self._tall and self._raised == 0):
            mirror, scale = _mirror(mean if self._tall else ones)
            _turn(gram, mirror, scale)
            if not self._tall:
                beside = centred @ mean
                beside -= scale * float(mirror @ beside) * mirror
                gram[1:, 0] = beside[1:]
        self._diagonal, self._beside = tridiagonal(gram)
        own = slice(None) if self._tall else slice(1, None)
        self._centred = _find_eigenvalues(self._diagonal[own], self._beside[own])
        self._error = _bound(self._centred, centred.shape)

    def squares(self, centred: bool) -> Float[Tensor, " value"]:
        """See ``Reduction``."""
        if centred:
            return self._centred
        diagonal = self._diagonal.copy()
        diagonal[0] = self._raised + (diagonal[0] if self._tall else 0.0)
        # rounding of Z may have made eigenvalues below zero, but no further below than this
        shift = max(self._error, EPS**2 * self._raised)
        return (torch.from_numpy(positive_values(diagonal + shift, self._beside)) - shift).clamp_min(0.0)

    def error(self, centred: bool) -> float:
        """See ``Reduction``."""
        return self._error if centred else 2 * self._error


class Gram:
    """Both by torch, on whatever device the states are; nothing of the Gram matrix leaves it."""

    keeps_small = False

    def __init__(
        self, centred: Float[Tensor, "row d_model"], ones: Float[Tensor, " row"], mean: Float[Tensor, " d_model"]
    ) -> None:
        self._shape = centred.shape
        self._squares: dict[bool, Float[Tensor, " value"]] = {}
        self._gram = _multiply_on_device(centred)
        if _is_tall(self._shape):
            self._update = 0.5 * mean, mean
        else:
            self._update = centred @ mean + 0.5 * (mean @ mean) * ones, ones

    def squares(self, centred: bool) -> Float[Tensor, " value"]:
        """See ``Reduction``."""
        if centred not in self._squares:
            one, other = self._update
            gram = self._gram if centred else self._gram + torch.outer(one, other) + torch.outer(other, one)
            self._squares[centred] = _find_on_device(gram)
        return self._squares[centred]

    def error(self, centred: bool) -> float:
        """See ``Reduction``."""
        return (1 if centred else 4) * _bound(self.squares(centred), self._shape)


def _is_tall(shape: tuple[int, ...]) -> bool:
    return shape[0] > shape[1]


def _bound(squares: Float[Tensor, " value"], shape: tuple[int, ...]) -> float:
    """Return how far eigenvalues may be off: by a rounding for each term of the longest sum, in units of the largest.

    A product sums over the longer side, on the CPU in chunks; a reduction over the shorter.
    """
    rows, columns = shape
    terms = max(columns, min(rows, CHUNK + -(-rows // CHUNK)))
    return terms * EPS * float(squares[:1].sum())


def _multiply_on_device(matrix: Float[Tensor, "row column"]) -> Float[Tensor, "side side"]:
    if not _is_tall(matrix.shape):
        return matrix @ matrix.T
    gram = matrix.new_zeros(matrix.shape[1], matrix.shape[1])
    for chunk in matrix.split(CHUNK):
        gram.addmm_(chunk.T, chunk)
    return gram


def _find_on_device(gram: Float[Tensor, "side side"]) -> Float[Tensor, " value"]:
    return torch.linalg.eigvalsh(gram).flip(0).clamp_min(0.0)


def _multiply(matrix: Array) -> Array:
    """Return the lower triangle of the Gram matrix on the smaller side; of a tall one a sum over chunks of rows."""
    gram = np.zeros((min(matrix.shape), min(matrix.shape)), order="F")
    if not _is_tall(matrix.shape):
        add_outer_gram(matrix, gram)
        return gram
    for begin in range(0, len(matrix), CHUNK):
        add_gram(matrix[begin : begin + CHUNK], gram)
    return gram


def _find_eigenvalues(diagonal: Array, beside: Array) -> Float[Tensor, " value"]:
    """Return the eigenvalues of a tridiagonal matrix, descending, none below zero."""
    values = tridiagonal_values(diagonal, beside)[::-1] if len(diagonal) > 1 else diagonal
    return torch.from_numpy(np.maximum(values, 0.0))


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
