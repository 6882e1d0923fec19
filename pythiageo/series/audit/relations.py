"""How the weights of steps lie to one another: distances, and whether two of them can come from one initialisation.

Arrays in, arrays out; nothing is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]
_BLOCK = 16
"""Rows that are held in float64 at a time, of all steps."""


@dataclass(frozen=True)
class Relations:
    """One matrix at n steps, by the same rows of it.

    ``rms``: (n) root mean square of its entries. ``distance``: (n, n) root mean square of the differences of entries.
    ``cosine``: (n, n) of its rows less their means. ``z``: (n, n) in how many standard deviations the cosine lies above
    that of matrices with nothing in common.
    """

    rms: Array
    distance: Array
    cosine: Array
    z: Array


def relate(matrices: Sequence[Tensor]) -> Relations:
    """Compare matrices of one shape (row, column), each with each.

    ``z`` is exact in its first two moments. Independently initialised networks of one architecture are equally likely
    under any order of the columns of one of them: an optimiser treats all dimensions of the residual stream alike. Over
    all orders of the columns of B, sum(A B) has mean 0 where each row of A and B has mean 0, and variance
    tr(A A^T B B^T) / (columns - 1). So z = sum(A B) / sqrt of it is about normal where A and B have nothing in common,
    whatever training has made of their spectra, and grows with the root of the number of entries where they have.
    """
    count, (rows, columns) = len(matrices), matrices[0].shape
    raw, centred, squares = (np.zeros((count, count)) for _ in range(3))
    whole = np.stack([_centre(matrix.float().numpy()) for matrix in matrices])
    origin = matrices[0]
    for begin in range(0, rows, _BLOCK):
        part = slice(begin, begin + _BLOCK)
        # from the first step on: differences of large numbers lose digits
        moved = np.stack([(one[part].double() - origin[part].double()).numpy().ravel() for one in matrices])
        raw += moved @ moved.T
        here = whole[:, part]
        flat = here.reshape(count, -1).astype(np.float64)
        centred += flat @ flat.T
        products = np.einsum("nrc,nsc->nrs", here, whole, optimize=True).reshape(count, -1).astype(np.float64)
        squares += products @ products.T
    square = np.diag(raw)
    distance = np.sqrt(np.maximum(square[:, None] + square[None] - 2 * raw, 0) / (rows * columns))
    own = np.sqrt(np.diag(centred))
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.nan_to_num(centred / (own[:, None] * own[None]))
        z = np.nan_to_num(centred * np.sqrt(columns - 1) / np.sqrt(squares))
    rms = np.array([float(one.double().square().mean().sqrt()) for one in matrices])
    return Relations(rms, distance, cosine, z)


def _centre(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    return matrix - matrix.mean(axis=1, keepdims=True)
