"""Linear centred kernel alignment: how alike two sets of states of the same rows are."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from pythiageo.geometry.matrix import centre
from pythiageo.no_value import NoValueError


def linear_cka(first: Float[Tensor, "row width"], second: Float[Tensor, "row other"]) -> float:
    """Return |Y^T X|^2 / (|X^T X| |Y^T Y|), Frobenius norms of states X and Y whose mean rows are taken off.

    Row i of both must stand for the same token, at two layers, two checkpoints or in two models. Between 0 and 1.
    Invariant to scale, to orthogonal maps of either side, to one order of the rows of both, and to a vector added to
    all rows of either. It is biased upwards where there are few rows for the widths: two random sets of n rows and d
    columns come out near d / (n + d). Products are taken on the smaller side, in float64.

    Source: Kornblith, Norouzi, Lee, Hinton, "Similarity of neural network representations revisited", ICML 2019.

    Raises:
        ValueError: the numbers of rows differ.
        NoValueError: states that do not vary.

    >>> import torch
    >>> states = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]])
    >>> round(linear_cka(states, 3 * states.flip(1) + 1), 6)
    1.0
    """
    if len(first) != len(second):
        raise ValueError(f"expected as many rows on both sides, got {len(first)} and {len(second)}")
    x, y = _unit(centre(first)), _unit(centre(second))
    if len(x) <= min(x.shape[1], y.shape[1]):
        left, right = x @ x.T, y @ y.T
        value = float((left * right).sum() / (left.norm() * right.norm()))
    else:
        value = float((y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))
    return min(value, 1.0)  # equal states come out above one by rounding


def _unit(states: Tensor) -> Tensor:
    """Return states of size one, so that fourth powers neither overflow nor vanish."""
    largest = float(states.abs().max()) if len(states) else 0.0
    if not largest > 0:
        raise NoValueError("the states do not vary")
    return states / largest
