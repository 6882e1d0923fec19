"""Matrix-based entropies of one prompt at a time: of the eigenvalues of its rows' Gram matrix over their sum."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.geometry.matrix import EPS
from pythiageo.geometry.prompts import Batch, Taken, scale_to_one, unit_rows

LEAST = 2
"""Rows a prompt must have: the entropy of one is zero, whatever it holds."""
SMALLEST = 1e-6
"""Nats that rounding is held against where an entropy is smaller: that of a matrix of one direction is zero, known to
within half a per cent of this."""
ALL_ZERO = "their states are all zero"
NO_DIRECTION = "a state is the mean of its prompt's, and has no direction from it"


def take_entropy(batch: Batch) -> Taken:
    """Return the entropy of each prompt of a batch, in nats; none where all its states are zero."""
    scaled, defined = scale_to_one(batch)
    rows = scaled.rows
    small = rows @ rows.mT if rows.shape[1] <= rows.shape[2] else rows.mT @ rows
    squares = rows.square().sum(dim=(1, 2)).clamp_min(torch.finfo(torch.float64).tiny)
    side = small.shape[-1]
    share = scaled.rounded.square().sum(dim=1) / squares + EPS * side  # of the states, and of the product itself
    return Taken(entropies_of(small), moved_by(share, side), defined)


def take_clipped_entropy(batch: Batch) -> Taken:
    """Return the entropy of each prompt of a batch as the code of Skean et al. takes it (``prompt_entropy_skean``)."""
    units, defined = unit_rows(batch)
    gram = clipped_gram(units.rows)
    share = units.rounded.square().mean(dim=1) + EPS * gram.shape[-1]
    return Taken(entropies_of(gram), moved_by(share, gram.shape[-1]), defined)


def clipped_gram(rows: Float[Tensor, "*prompt row d_model"]) -> Float[Tensor, "*prompt side side"]:
    """Return X X^T of n rows X, or X^T X where n is above their width, with its negative entries set to zero."""
    gram = rows @ rows.mT if rows.shape[-2] <= rows.shape[-1] else rows.mT @ rows
    return gram.clamp_min(0.0)


def entropies_of(gram: Float[Tensor, "*prompt side side"]) -> Float[Tensor, " *prompt"]:
    """Return -sum p log p of each symmetric matrix, p its positive eigenvalues over their sum; 0 of a zero one."""
    values = torch.linalg.eigvalsh(gram).clamp_min(0.0)
    total = values.sum(dim=-1, keepdim=True)
    return torch.special.entr(values / torch.where(total > 0, total, 1.0)).sum(dim=-1)


def moved_by(share: Float[Tensor, " *prompt"], side: int) -> Float[Tensor, " *prompt"]:
    """Return by how much an entropy may differ where a share T of the trace is another matrix's.

    T log(side - 1) - T log T - (1 - T) log(1 - T), the inequality of Fannes and Audenaert: no two matrices of trace
    one and trace distance T have entropies that are farther apart.
    """
    share = share.clamp_max(0.5)
    both = torch.special.entr(share) + torch.special.entr(1 - share)
    return share * math.log(max(side - 1, 1)) + both
