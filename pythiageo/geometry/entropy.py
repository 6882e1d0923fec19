"""The entropy of a distribution, and its exponential: an effective number of directions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.no_value import NoValueError


def entropy(weights: Float[Tensor, " value"]) -> float:
    """Return -sum p log p, in nats, with p = weights / sum weights and 0 log 0 = 0: 0 to the log of their number.

    Invariant to the scale and order of the weights.

    Raises:
        NoValueError: all weights are zero.

    >>> round(entropy(torch.tensor([3.0, 3.0, 3.0])), 3)
    1.099
    """
    return float(_entropy(weights))


def effective_number(weights: Float[Tensor, " value"]) -> float:
    """Return exp(-sum p log p) with p = weights / sum weights and 0 log 0 = 0: between 1 and the number of weights.

    Invariant to the scale and order of the weights.

    Raises:
        NoValueError: all weights are zero.

    >>> round(effective_number(torch.tensor([3.0, 3.0, 3.0])), 3)
    3.0
    """
    return float(torch.exp(_entropy(weights)))


def _entropy(weights: Float[Tensor, " value"]) -> Float[Tensor, ""]:
    total = weights.sum()
    if not float(total) > 0:
        raise NoValueError("all singular values are zero: the states do not vary")
    return torch.special.entr(weights / total).sum()
