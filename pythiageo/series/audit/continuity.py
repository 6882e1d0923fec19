"""Whether steps lie in their order: the shortest path through the weights should visit them as they are named.

Distances in, places out; nothing is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pythiageo.series.audit.relations import Array

_RATIO, _MOST_RATIO, _MADS = 1.5, 2.0, 6.0
"""A step is misplaced where its place costs so many times the best other one, at least the first, at most the second
ratio: between, so many median absolute deviations more than the series' other steps do."""
_DETOUR, _DETOUR_MADS = 4.0, 8.0
_LEAST = 5
"""Fewer steps have no order that could be told."""
_MAD = 1.4826
"""Median absolute deviations of a normal distribution in a standard deviation."""


class Misplaced(NamedTuple):
    """A step by its index ``at``, and between which others it lies better (``None``: beyond the first, or the last).

    ``cost``: by how much the path gets longer where it visits the step in its place; ``best``: in the other one; both
    in the units of the distances. Where ``before`` and ``after`` are its own neighbours it has no better place: it
    is far off a way that hardly moves meanwhile.
    """

    at: int
    before: int | None
    after: int | None
    cost: float
    best: float


def find_misplaced(distance: Array, floor: float) -> list[Misplaced]:
    """Return the steps that are out of their order, by their indices, the clearest first.

    For a step i, visiting it between j and k makes a path longer by d(j, i) + d(i, k) - d(j, k), at an end by d(i, j).
    That is little in its own place and more in any other for every walk whose increments do not undo one another, and
    about the same everywhere for one whose checkpoints scatter around a point: in either case the ratio of its own
    place to the best other one does not lie above 1. The clearest is taken out and the rest looked at anew, for a step
    that is out of place puts its neighbours in doubt.

    ``floor``: a distance below which all is rounding.
    """
    active = list(range(len(distance)))
    found = []
    while len(active) >= _LEAST:
        part = distance[np.ix_(active, active)]
        own, other, gap = _costs(part)
        excess = np.log((own + floor) / (other + floor))
        limit = np.clip(np.median(excess) + _MADS * _spread(excess), np.log(_RATIO), np.log(_MOST_RATIO))
        saved = np.where(excess > limit, own - other, -np.inf)
        at = int(saved.argmax())
        if not np.isfinite(saved[at]):
            break
        rest = [index for index in active if index != active[at]]
        place = int(gap[at])
        before = rest[place - 1] if place else None
        after = rest[place] if place < len(rest) else None
        found.append(Misplaced(active[at], before, after, float(own[at]), float(other[at])))
        active = rest
    return [*found, *_find_detours(distance, active)]


def _costs(distance: Array) -> tuple[Array, Array, Array]:
    """Return for each step the cost of its own place, of the best other one, and the latter's number.

    Places are counted among the other steps: 0 before the first of them, n - 1 after the last.
    """
    count = len(distance)
    own, best, gap = np.empty(count), np.empty(count), np.empty(count, dtype=int)
    for index in range(count):
        others = np.delete(np.arange(count), index)
        to = distance[index, others]
        between = distance[others[:-1], others[1:]]
        costs = np.concatenate([[to[0]], to[:-1] + to[1:] - between, [to[-1]]])
        own[index] = costs[index]
        costs[index] = np.inf
        gap[index] = int(costs.argmin())
        best[index] = costs[gap[index]]
    return np.maximum(own, 0), np.maximum(best, 0), gap


def _find_detours(distance: Array, active: Sequence[int]) -> list[Misplaced]:
    """Return the steps that are far off a way that goes on beside them as if they were not there."""
    if len(active) < _LEAST:
        return []
    inner = [(a, b, c) for a, b, c in zip(active, active[1:], active[2:], strict=False) if distance[a, c] > 0]
    ratio = np.array([(distance[a, b] + distance[b, c]) / distance[a, c] for a, b, c in inner])
    logs = np.log(ratio)
    limit = max(np.log(_DETOUR), float(np.median(logs)) + _DETOUR_MADS * _spread(logs)) if len(logs) else 0.0
    return [
        Misplaced(b, a, c, float(distance[a, b] + distance[b, c] - distance[a, c]), float(distance[a, c]))
        for (a, b, c), log in zip(inner, logs, strict=True)
        if log > limit
    ]


def _spread(values: Array) -> float:
    return float(_MAD * np.median(np.abs(values - np.median(values))))
