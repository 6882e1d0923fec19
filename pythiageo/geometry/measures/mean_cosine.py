"""Anisotropy: the mean cosine between rows."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from pythiageo.geometry.measure import Measure
from pythiageo.no_value import NoValueError


def mean_cosine(states: Float[Tensor, "row d_model"]) -> float:
    """Return the mean of cos(x_i, x_j) over all pairs i != j.

    With unit rows u: (|sum u|^2 - n) / (n (n - 1)), so no pair is formed. Between -1 / (n - 1) and 1. Invariant to
    scale, rotation of d_model and order of rows; not to centring: centred rows are near 0.

    Source: Ethayarajh, "How contextual are contextualized word representations?", EMNLP 2019.

    Raises:
        NoValueError: fewer than two rows, or a row that is zero.

    >>> import torch
    >>> round(mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])), 3)
    0.333
    """
    rows = len(states)
    if rows < 2:
        raise NoValueError("one row has no pair")
    scale = float(states.abs().max())
    if not scale > 0:
        raise NoValueError("the states do not vary")
    scaled = states / scale
    norms = scaled.norm(dim=1, keepdim=True)
    zero = int((norms == 0).sum())
    if zero:
        raise NoValueError(f"{zero} of {rows} rows are zero and have no direction")
    total = (scaled / norms).sum(dim=0)
    return float((total @ total - rows) / (rows * (rows - 1)))


MEASURE = Measure(
    name="mean_cosine",
    title="mean cosine (anisotropy)",
    definition="Mean cosine of two different rows of the matrix of states.",
    uses="rows",
    formula="mean of cos(x_i, x_j) over pairs i != j",
    source="Ethayarajh 2019",
    function=mean_cosine,
    needs="states",
    cost="linear",
    invariances=frozenset({"scale", "rotation", "order"}),
    least=-1.0,
    greatest=1.0,
)
