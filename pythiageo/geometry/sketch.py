"""A sketch of states: a fixed sample of their rows in coordinates of their own, all that a similarity needs of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.compute.threads import one_thread
from pythiageo.geometry.matrix import is_finite
from pythiageo.lazy import lazy_property


@dataclass(frozen=True)
class Sketch:
    """Rows of states up to an orthogonal map of d_model, in about half of the bytes of their Gram matrix's square.

    Row 0 is the mean row, the others are the rows without it: M = [mean; X - mean], (rows + 1, width). With M^T = Q R,
    R^T holds the same rows in the orthonormal basis Q: every product of two rows, so every number that is blind to
    rotations of d_model, is theirs. R^T is a lower trapezoid of min(rows + 1, width) columns; ``values`` holds its
    numbers row by row in float32, in units of ``scale``: mean and centred rows are each rounded by about 6e-8 of their
    own size, as float32 states are.
    """

    values: Float[np.ndarray, " number"]
    scale: float
    rows: int
    width: int

    @classmethod
    def of(cls, states: Float[Tensor, "row d_model"]) -> Sketch:
        """Take all rows of ``states``.

        Raises:
            ValueError: no row, or values that are not finite.
        """
        rows, width = states.shape
        if not rows:
            raise ValueError("there is no row to sketch")
        if not is_finite(states):
            raise ValueError("states hold NaN or infinity")
        with one_thread():
            matrix = states.double()
            mean = matrix.mean(dim=0, keepdim=True)
            # largest first, so that squares neither overflow nor vanish
            scale = 2.0 ** math.ceil(math.log2(max(float(matrix.abs().max()), 1e-300)))
            both = torch.cat([mean, matrix - mean]) / scale
            turned = torch.linalg.qr(both.T, mode="r").R.T.cpu()
        values = turned[_lower(rows + 1, turned.shape[1])].to(torch.float32).numpy()
        return cls(values, scale, rows, width)

    @property
    def mean(self) -> Float[Tensor, " coordinate"]:
        """The mean row."""
        return self._matrix[0]

    @property
    def centred(self) -> Float[Tensor, "row coordinate"]:
        """The rows without their mean, in float64."""
        return self._matrix[1:]

    @property
    def states(self) -> Float[Tensor, "row coordinate"]:
        """The rows, in float64."""
        return self._matrix[1:] + self._matrix[:1]

    @lazy_property
    def _matrix(self) -> Float[Tensor, "more coordinate"]:
        shape = self.rows + 1, min(self.rows + 1, self.width)
        matrix = torch.zeros(shape, dtype=torch.float64)
        matrix[_lower(*shape)] = torch.from_numpy(np.asarray(self.values, dtype=np.float64)) * self.scale
        return matrix


def count_values(rows: int, width: int) -> int:
    """Return how many numbers a sketch of so many rows of this width holds."""
    side = min(rows + 1, width)
    return (rows + 1) * side - side * (side - 1) // 2


def choose_rows(total: int, most: int, sha: str) -> Int[Tensor, " row"]:
    """Return which of ``total`` rows a sketch of at most ``most`` holds, ascending.

    All where there are no more; else a random draw, fixed by ``sha`` (hex digits) and both numbers, the same in every
    run that asks it.
    """
    if total <= most:
        return torch.arange(total)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([int(sha, 16), total, most])))
    return torch.from_numpy(np.sort(rng.choice(total, most, replace=False)))


def _lower(rows: int, columns: int) -> Tensor:
    return torch.ones(rows, columns, dtype=torch.bool).tril()
