"""What rounding of the states' own type contributes to a number taken of them: one estimate, for every measure."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.lazy import lazy_property

TOLERANCE = 0.005
"""A measure of which rounding may make more than this share is withheld. The share is that of a mean over roundings:
with half a per cent allowed, planted values are right to one."""


class Directions(NamedTuple):
    """Singular values, and rounding along the direction of each.

    ``noise``: its square is what rounding adds to the square of the value, in the mean. ``columns``: the rounding of
    the dimensions the direction lies in.
    """

    sigma: Float[Tensor, " value"]
    noise: Float[Tensor, " value"]
    columns: Float[Tensor, " value"]


class Rounding:
    """How far each number of a matrix of states may have been rounded: ``unit`` times its own size.

    That is what its type alone does: float32 holds 24 binary digits, so that its unit is 2^-24, and states of 1,000
    that vary by 1 hold the variation to 6e-5, states of 1e6 to 0.06. Roundings of different numbers are taken as
    independent; those of a row or a column add up as squares, and about 2.4 times less than ``unit`` is usual, so the
    estimate lies above what happens as a rule.

    Args:
        matrix: (row, d_model), *not* centred: the mean is what the digits are lost to.
        unit: half the distance from 1 to the next number of the type that the states were computed in.
    """

    def __init__(self, matrix: Float[Tensor, "row d_model"], unit: float) -> None:
        self.unit = unit
        self._matrix = matrix
        self._directions: dict[bool, Directions] = {}

    @lazy_property
    def rows(self) -> Float[Tensor, " row"]:
        """The size of each row's rounding."""
        return self.unit * torch.linalg.vector_norm(self._matrix, dim=1, dtype=torch.float64)

    @lazy_property
    def columns(self) -> Float[Tensor, " d_model"]:
        """The size of each column's rounding, over all rows."""
        return self.unit * torch.linalg.vector_norm(self._matrix, dim=0, dtype=torch.float64)

    @property
    def spectral(self) -> float:
        """About the largest singular value of the rounding: no singular value moves by more."""
        return float(self.rows.max() + self.columns.max())

    def directions(self, states: Float[Tensor, "row d_model"], centred: bool) -> Directions:
        """Return the singular values of ``states`` and the rounding along the direction of each.

        A dimension that is massive and constant is rounded much, and in its own direction alone. Costs a decomposition
        with vectors: for the rare case.
        """
        if centred not in self._directions:
            left, sigma, right = torch.linalg.svd(states, full_matrices=False)
            columns = (right.square() @ self.columns.square()).sqrt()
            tall = states.shape[0] >= states.shape[1]
            noise = columns if tall else (self.rows.square() @ left.square()).sqrt()
            self._directions[centred] = Directions(sigma.cpu(), noise.cpu(), columns.cpu())
        return self._directions[centred]

    def known_directions(self, centred: bool) -> Directions | None:
        """Return what ``directions`` found, ``None`` if it was not asked."""
        return self._directions.get(centred)

    def share_of_rows(self, states: Float[Tensor, "row d_model"]) -> float:
        """Return which share of the rows' squared sizes is rounding, in the mean over rows."""
        sizes = torch.linalg.vector_norm(states, dim=1, dtype=torch.float64)
        return float((self.rows / sizes).nan_to_num(0.0).clamp_max(1.0).square().mean())

    def share_of_all(self, centred: Float[Tensor, "row d_model"]) -> float:
        """Return which share of the variation of all rows together is rounding."""
        size = float(torch.linalg.vector_norm(centred, dtype=torch.float64))
        return min(1.0, (float(self.rows.norm()) / size) ** 2) if size > 0 else 0.0

    def describe(self, centred: Float[Tensor, "row d_model"]) -> str:
        """Return the numbers a reason gives: the size of the rows, of their variation, and of their rounding."""
        return self.describe_size(len(centred), float(torch.linalg.vector_norm(centred, dtype=torch.float64)))

    def describe_size(self, rows: int, variation: float) -> str:
        """Return the same of so many rows, where the Frobenius norm of the centred ones is known."""
        root = max(rows, 1) ** -0.5
        rounded, spread = float(self.rows.norm()) * root, variation * root
        return f"rows of size {rounded / self.unit:.3g} vary by {spread:.3g} and are rounded by {rounded:.3g}"


def unit_of(dtype: torch.dtype) -> float:
    """Return half the distance from 1 to the next number of a type."""
    return float(torch.finfo(dtype).eps) / 2
