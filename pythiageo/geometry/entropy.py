"""The exponential of a distribution's entropy: an effective number of directions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.no_value import NoValueError


def effective_number(weights: Float[Tensor, " value"]) -> float:
    """Return exp(-sum p log p) with p = weights / sum weights and 0 log 0 = 0: between 1 and the number of weights.

    Invariant to the scale and order of the weights.

    Raises:
        NoValueError: all weights are zero.

    >>> round(effective_number(torch.tensor([3.0, 3.0, 3.0])), 3)
    3.0
    """
    total = weights.sum()
    if not float(total) > 0:
        raise NoValueError("all singular values are zero: the states do not vary")
    p = weights / total
    return float(torch.exp(torch.special.entr(p).sum()))
