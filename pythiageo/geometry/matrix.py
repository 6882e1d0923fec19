"""A matrix of states before anything is multiplied: its distinct rows, and their mean taken off."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

EPS = torch.finfo(torch.float64).eps


def is_finite(states: Tensor) -> bool:
    """Return whether no value is NaN or infinite."""
    flat = states.detach().contiguous().view(-1)
    # NaN and infinity survive the sum of squares; only where it overflows need every value be looked at
    return math.isfinite(float(flat @ flat)) or bool(torch.isfinite(flat).all())


def distinct(
    states: Float[Tensor, "row d_model"],
) -> tuple[Float[Tensor, "distinct d_model"], Float[Tensor, " distinct"]]:
    """Return, in float64, the distinct rows, each times the root of its number, and those roots over sqrt(row).

    Both together have the singular values, centred and not, of all rows. Rows are equal where every number is.
    """
    rows, columns = states.shape
    # a projection finds candidates; only rows that are equal in every column are taken together
    angles = torch.arange(1, columns + 1, dtype=torch.float64, device=states.device)
    projection, order = (states @ angles.cos().to(states.dtype)).sort(stable=True)
    candidates = (projection[1:] == projection[:-1]).nonzero().flatten()
    same = torch.zeros(rows, dtype=torch.bool, device=states.device)
    same[candidates + 1] = (states[order[candidates]] == states[order[candidates + 1]]).all(dim=1)
    if not bool(same.any()):
        return states.double(), angles.new_full((rows,), rows**-0.5)
    first = (~same).nonzero().flatten()
    roots = first.diff(append=first.new_tensor([rows])).double().sqrt()
    kept = states[order[first]].double()
    kept *= roots[:, None]
    return kept, roots / rows**0.5


class Varying(NamedTuple):
    """Rows (Z) without their mean, the mean (r) times the root of their number, and whether they vary at all."""

    rows: Float[Tensor, "distinct d_model"]
    mean: Float[Tensor, " d_model"]
    at_all: bool


def take_mean_off(weighted: Float[Tensor, "distinct d_model"], ones: Float[Tensor, " distinct"]) -> Varying:
    """Take the mean off what ``distinct`` returns; a row that is it but for rounding is zero, as in ``centre``."""
    count = 1 / float(ones.square().min())
    mean = ones @ weighted
    varying = torch.addr(weighted, ones, mean, alpha=-1)
    limits = EPS * count * float((weighted.abs().amax(dim=1) / ones).max()) * ones
    still = varying.abs().amax(dim=1) <= limits
    varying[still] = 0
    # once more: what rounding left of a mean that is far larger than what varies
    left = ones @ varying
    varying.addr_(ones, left, alpha=-1)
    return Varying(varying, mean + left, not bool(still.all()))


def centre(states: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
    """Return ``states`` in float64 without their mean row; a row that is the mean but for rounding is exactly zero."""
    matrix = states.to(torch.float64, copy=True)
    # in place: each copy would be twice as large as the states
    rounding = EPS * len(matrix) * max(float(matrix.max()), -float(matrix.min()))
    matrix -= matrix.mean(dim=0)
    matrix[torch.linalg.vector_norm(matrix, ord=math.inf, dim=1) <= rounding] = 0
    return matrix
