"""The timer of ``plan`` and ``price``: a sample of the work is done here, the rest is multiplication."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from pythiageo.compute.side_by_side import SideBySide

T = TypeVar("T")
TRIAL_SECONDS = 3.0
"""How long each part of a checkpoint is tried at most."""


def time_items(
    items: Sequence[T],
    work: Callable[[T], float | None],
    most: float = TRIAL_SECONDS,
    warm_up: bool = False,
    at_once: int = 1,
) -> list[tuple[T, float]]:
    """Return items with the seconds that ``work`` takes over each: spread over all, until ``most`` seconds are spent.

    ``work`` may return seconds that do not count. ``warm_up``: it is done once before, for nothing. ``at_once``: it is
    done by so many threads at a time, as it will be, and each counts with its part of the seconds: what they take from
    one another (memory's bandwidth, Python's lock, a busy core) is in them.
    """
    timed: list[tuple[T, float]] = []
    with SideBySide(at_once, 0) as threads:

        def do(item: T) -> float:
            begun = time.perf_counter()
            idle = [one.result() or 0.0 for one in [threads.submit_first(partial(work, item)) for _ in range(at_once)]]
            return (time.perf_counter() - begun) / at_once - sum(idle) / at_once**2

        if warm_up and items:
            do(items[0])
        for item in spread(items):
            timed.append((item, do(item)))
            if at_once * sum(seconds for _, seconds in timed) > most:
                break
    return timed


def scale(timed: Sequence[tuple[T, float]], amount: Callable[[T], float], total: float) -> float:
    """Return the seconds of ``total`` units of work, from items that hold ``amount`` of them each; 0 of no items."""
    done = sum(amount(item) for item, _ in timed)
    return sum(seconds for _, seconds in timed) / done * total if done else 0.0


def finish(costs: Iterable[float], threads: int) -> float:
    """Return when the last of some pieces of work is done, each begun in order by the first thread that is free."""
    free = [0.0] * threads
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


def spread(items: Sequence[T]) -> Iterator[T]:
    """Yield items in an order in which every beginning is spread over all of them."""
    first = max(1, round(len(items) * 0.618))
    stride = next(k for k in range(first, 2 * len(items) + 2) if math.gcd(k, len(items)) == 1)
    yield from (items[k * stride % len(items)] for k in range(len(items)))
