"""Two-NN: intrinsic dimension from the two nearest neighbours."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pythiageo.geometry.measure import Estimate, Measure, UndefinedMeasureError

MOST = 2000
"""Rows that are compared, evenly spaced over all: every pair of 40,000 would take minutes a readout."""
SAME = 1e-6
"""Rows closer than this, relative to their norm, are one point: equal prompts differ by rounding only."""
LEAST = 3


def two_nn(states: Float[Tensor, "row d_model"]) -> Estimate:
    """Return (n - 1) / sum log(r2_i / r1_i), r1 and r2 the distances of a point's two nearest neighbours.

    Where points lie with locally even density on a manifold of dimension d, r2 / r1 has the Pareto distribution of
    index d, whatever the density; this is its unbiased estimate, with standard error value / sqrt(n - 2) as if points
    were independent. At most 2,000 rows, evenly spaced, are taken, and rows that are equal but for rounding once. Of
    the same manifold a sparser sample gives another number where it is curved: compare at equal n. Invariant to scale,
    rotation of d_model, order of rows (up to which 2,000 are taken) and centring.

    Source: Facco, d'Errico, Rodriguez, Laio, Scientific Reports 2017 (their fit replaced by the likelihood's estimate).

    Raises:
        UndefinedMeasureError: fewer than 3 different points, or all at equal distances.
    """
    points = _distinct(states[torch.linspace(0, len(states) - 1, min(MOST, len(states))).round().long()])
    if len(points) < LEAST:
        raise UndefinedMeasureError(f"two nearest neighbours need {LEAST} different points, there are {len(points)}")
    first, second = _nearest(points)
    total = float((second / first).log().sum())
    if not total > 0:
        raise UndefinedMeasureError("all nearest neighbours are equally far")
    value = (len(points) - 1) / total
    return Estimate(value, value / math.sqrt(len(points) - 2) if len(points) > 2 else None)


def _scaled(states: Tensor) -> Tensor:
    """Return rows about their mean, of size one: distances between rows far from zero would cancel."""
    centred = states - states.mean(dim=0)
    largest = float(centred.abs().max()) if len(centred) else 0.0
    return centred / largest if largest > 0 else centred


def _distinct(states: Tensor) -> Tensor:
    """Return one row of each group of rows that are the same, in scaled coordinates."""
    norm = float(states.norm(dim=1).mean())
    points = _scaled(states)
    spread = states - states.mean(dim=0)
    size = float(spread.abs().max())
    if not size > 0:
        return points[:1]
    near = torch.cdist(points, points) <= max(SAME * norm / size, 1e-12)
    # a row is kept unless an earlier one is the same
    return points[near.tril(-1).sum(dim=1) == 0]


def _nearest(points: Tensor) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
    """Return the distances of the two nearest others: candidates by a matrix product, then exactly."""
    count = min(4, len(points) - 1)
    squares = points.square().sum(dim=1)
    rough = squares[:, None] + squares[None] - 2 * points @ points.T
    rough.fill_diagonal_(math.inf)
    candidates = rough.topk(count, largest=False).indices
    exact = (points[candidates] - points[:, None]).norm(dim=2).sort(dim=1).values
    return exact[:, 0], exact[:, 1]


MEASURE = Measure(
    name="two_nn",
    title="two-NN intrinsic dimension",
    definition="Two-NN intrinsic dimension: (n − 1) / Σ log(r₂ / r₁) over the distances to the two nearest rows.",
    uses="rows",
    formula="(n - 1) / sum log(r2 / r1)",
    source="Facco et al. 2017",
    function=two_nn,
    needs="states",
    cost="pairs",
    invariances=frozenset({"scale", "rotation", "order", "centring"}),
    least=0.0,
    stderr="of the Pareto index, points taken as independent",
)
