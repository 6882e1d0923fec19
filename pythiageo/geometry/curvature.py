"""Turning angles between successive steps of a trajectory of states."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pythiageo.geometry.prompts import Batch

LEAST = 3
"""States a trajectory must have to turn once."""


class Turns(NamedTuple):
    """The turns of each prompt of a batch: their angles in radians, 0 where a state equals the next, and which are not.

    ``shares``: which share of the squared length of the two steps of each is rounding, 1 at most.
    """

    angles: Float[Tensor, "prompt turn"]
    defined: Bool[Tensor, "prompt turn"]
    shares: Float[Tensor, "prompt turn"]


def find_turns(batch: Batch) -> Turns:
    """Return the angles between successive differences of rows, 0 to pi.

    As 2 atan2(|u - w|, |u + w|) of unit vectors: an arc cosine would lose half of the digits near 0 and pi.
    """
    steps = batch.rows.diff(dim=1)
    norms = torch.linalg.vector_norm(steps, dim=2)
    rounded = batch.rounded.square()
    moved = norms > 0
    shares = (rounded[:, 1:] + rounded[:, :-1]) / torch.where(moved, norms, 1.0).square()
    units = steps / torch.where(moved, norms, 1.0)[:, :, None]
    before, after = units[:, :-1], units[:, 1:]
    angles = 2 * torch.atan2((after - before).norm(dim=2), (after + before).norm(dim=2))
    defined = moved[:, :-1] & moved[:, 1:]
    zero = angles.new_zeros(())
    both = (shares[:, :-1] + shares[:, 1:]).clamp_max(1.0)
    return Turns(torch.where(defined, angles, zero), defined, torch.where(defined, both, zero))
