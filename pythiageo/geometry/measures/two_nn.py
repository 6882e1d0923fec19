"""Two-NN: intrinsic dimension from the two nearest neighbours."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pythiageo.geometry.measure import Estimate, Measure
from pythiageo.geometry.rounding import Rounding, unit_of
from pythiageo.no_value import NoValueError

MOST = 2000
"""Rows that are compared, evenly spaced over all: every pair of 40,000 would take minutes a readout."""
SAME = 1e-6 / unit_of(torch.float32)
"""Rows are one point where they differ by less than this many roundings of a dimension's size in each, in the root
mean square (1e-6 for float32): equal prompts differ by rounding only."""
NEARLY = 3
"""Rows that are apart by more than ``SAME`` and less than this many times it are neither one point nor clearly two."""
LEAST = 3
CHUNK = 2**22
"""Numbers that are worked on at a time when close rows are compared."""


def two_nn(states: Float[Tensor, "row d_model"], rounding: Rounding | None = None) -> Estimate:
    """Return (n - 1) / sum log(r2_i / r1_i), r1 and r2 the distances of a point's two nearest neighbours.

    Where points lie with locally even density on a manifold of dimension d, r2 / r1 has the Pareto distribution of
    index d, whatever the density; this is its unbiased estimate, with standard error value / sqrt(n - 2) as if points
    were independent. At most 2,000 rows, evenly spaced, are taken, and rows that are equal but for rounding once. Of
    the same manifold a sparser sample gives another number where it is curved: compare at equal n. Invariant to scale,
    rotation of d_model, order of rows (up to which 2,000 are taken) and centring, as far as the states hold the digits:
    ``Estimate.rounded`` says which share of the sum of logarithms rounding of the rows may make.

    Args:
        states: in float64.
        rounding: of the rows, not centred; that of float32 where none is given.

    Source: Facco, d'Errico, Rodriguez, Laio, Scientific Reports 2017 (their fit replaced by the likelihood's estimate).

    Raises:
        NoValueError: fewer than 3 different points, or all at equal distances.
    """
    rounding = rounding or Rounding(states, unit_of(torch.float32))
    taken = torch.linspace(0, len(states) - 1, min(MOST, len(states)), device=states.device).round().long()
    centred = states[taken] - states[taken].mean(dim=0)
    size = float(centred.abs().max()) if len(centred) else 0.0
    # of size one: distances between rows far from zero would cancel
    points = centred / size if size > 0 else centred
    unequal = _first_of_equals(points)
    kept, close = _distinct(unequal, centred, rounding)
    points = points[kept]
    if len(points) < LEAST:
        why = f": {rounding.describe(centred)}" if len(unequal) >= LEAST else ""
        raise NoValueError(f"two nearest neighbours need {LEAST} different points, there are {len(points)}{why}")
    first, second, neighbours = _nearest(points)
    total = float((second / first).log().sum())
    if not total > 0:
        raise NoValueError("all nearest neighbours are equally far")
    value = (len(points) - 1) / total
    noise = (rounding.rows[taken][kept] / size).square()
    # a distance is rounded with both of its ends, whose roundings add up as squares, and are the same for both here
    both = noise + noise[neighbours].amax(dim=1)
    shares = [(both / each.square()).clamp_max(1 - 1e-12) for each in (first, second)]
    missing = 0.5 * float((torch.log1p(-shares[1]) - torch.log1p(-shares[0])).sum())
    rounded = max(missing / total, close / len(points))
    return Estimate(value, value / math.sqrt(len(points) - 2) if len(points) > 2 else None, rounded)


def _distinct(rows: Tensor, centred: Tensor, rounding: Rounding) -> tuple[Tensor, int]:
    """Return one of each group of ``rows`` (indices) that are the same, and how many of them are nearly another one.

    A difference is held against the size of its own dimension (of half the dimensions' size, if that is more), so that
    one that is massive and constant does not make all rows the same.
    """
    scale = rounding.columns / (rounding.unit * len(rounding.rows) ** 0.5)
    scale = scale.maximum(scale.median())
    relative = centred / torch.where(scale > 0, scale, 1.0)
    radius = SAME * rounding.unit * centred.shape[1] ** 0.5
    one, other, apart = _pairs_within(relative[rows], NEARLY * radius)
    same = apart <= radius
    kept = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    kept[other[same]] = False  # a row is kept unless an earlier one is the same
    near = ~same & kept[one] & kept[other]
    return rows[kept], len(torch.cat([one[near], other[near]]).unique())


def _first_of_equals(points: Tensor) -> Tensor:
    """Return the index of the first of each group of rows that are equal in every number."""
    # a projection finds candidates; it may differ in its last bit, for equal rows too: then they are at no distance
    angles = torch.arange(1.0, points.shape[1] + 1, dtype=points.dtype, device=points.device)
    order = (points @ angles.cos()).argsort(stable=True)
    new = torch.ones(len(points), dtype=torch.bool, device=points.device)
    new[1:] = (points[order[1:]] != points[order[:-1]]).any(dim=1)
    group = new.cumsum(0) - 1
    first = order.new_full((int(new.sum()),), len(points)).scatter_reduce(0, group, order, "amin")
    return first.sort().values


def _pairs_within(points: Tensor, distance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first and the second row of every pair within ``distance``, and how far apart they are."""
    squares = points.square().sum(dim=1)
    both = squares[:, None] + squares[None]
    rough = both - 2 * points @ points.T
    rounded = 64 * torch.finfo(points.dtype).eps * both
    one, other = (rough <= distance**2 + rounded).triu(1).nonzero(as_tuple=True)
    step = max(CHUNK // points.shape[1], 1)
    parts = [
        (points[one[at : at + step]] - points[other[at : at + step]]).norm(dim=1) for at in range(0, len(one), step)
    ]
    apart = torch.cat(parts) if parts else points.new_zeros(0)
    near = apart <= distance
    return one[near], other[near], apart[near]


def _nearest(points: Tensor) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"], Int[Tensor, "point 2"]]:
    """Return the distances of the two nearest others, and which they are: candidates by a product, then exactly."""
    count = min(4, len(points) - 1)
    squares = points.square().sum(dim=1)
    rough = squares[:, None] + squares[None] - 2 * points @ points.T
    rough.fill_diagonal_(math.inf)
    candidates = rough.topk(count, largest=False).indices
    exact, order = (points[candidates] - points[:, None]).norm(dim=2).sort(dim=1)
    return exact[:, 0], exact[:, 1], candidates.gather(1, order[:, :2])


MEASURE = Measure(
    name="two_nn",
    title="two-NN intrinsic dimension",
    unit="dimensions",
    definition="Two-NN intrinsic dimension: (n − 1) / Σ log(r₂ / r₁) over the distances to the two nearest rows.",
    uses="rows",
    formula="(n - 1) / sum log(r2 / r1)",
    source="Facco et al. 2017",
    function=two_nn,
    needs="distances",
    cost="pairs",
    invariances=frozenset({"scale", "rotation", "order", "centring"}),
    least=0.0,
    stderr="of the Pareto index, points taken as independent",
)
