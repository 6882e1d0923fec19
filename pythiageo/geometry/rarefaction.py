"""Ranks at a stated number of rows: a rank grows with the rows it is taken of, so only equal numbers compare."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pythiageo.geometry.bootstrap import rows_by_example
from pythiageo.geometry.measure import Estimate, Measure
from pythiageo.geometry.view import View, resample
from pythiageo.no_value import NoValueError


class Rarefaction:
    """Draws of whole examples of a probe set, without repetition, that hold ``rows`` rows of a readout.

    Rows of one example are not independent, so examples are drawn, each with all its rows; of the last one only as many
    as are still wanted, at random. A probe set of several levels gives each of them its part of every draw. The draws
    are fixed by ``sha`` (hex digits of the probe set's hash), ``rows`` and their number, the same at every checkpoint,
    site and measure.

    Args:
        examples: how many the probe set has.
        rows: how many rows a draw holds.
        draws: how many draws.
        strata: the level of each example; empty where there is one.
    """

    def __init__(self, examples: int, sha: str, rows: int, draws: int, strata: Sequence[str] = ()) -> None:
        self.rows = rows
        self._draws = draws
        self._seed = [int(sha, 16), rows, draws]
        levels = np.unique(np.array(strata or [""] * examples), return_inverse=True)[1]
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(self._seed)))
        self._orders = [_interleave(levels, rng) for _ in range(draws)]

    def take(self, view: View, examples: Int[Tensor, " row"], measures: Sequence[Measure]) -> dict[str, Estimate]:
        """Return each measure's mean over the draws, by its name, with a standard error.

        ``examples``: which one each row comes from. With m of n examples in a draw and a variance v between draws, the
        mean over draws varies from sample to sample by v m / (n - m), the delete-d jackknife's estimate, and by v over
        the number of draws: the standard error is the root of their sum. Where a draw holds all there is, none is told.

        Raises:
            NoValueError: the readout has fewer rows; or a draw has no value.
        """
        total = len(examples)
        if total < self.rows:
            raise NoValueError(f"the readout has {total:,} rows, and {self.rows:,} were asked for")
        blocks = rows_by_example(examples, len(self._orders[0]))
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([*self._seed, 1])))
        values: dict[str, list[float]] = {measure.name: [] for measure in measures}
        drawn = 0.0
        for order in self._orders if total > self.rows else self._orders[:1]:
            rows, count = _fill([blocks[example] for example in order], self.rows, rng)
            drawn += count / self._draws
            again = resample(view, torch.from_numpy(rows))
            for measure in measures:
                values[measure.name].append(measure.value(again).value)
        there = sum(len(block) > 0 for block in blocks)
        return {name: _estimate(found, drawn, there) for name, found in values.items()}


def _interleave(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return all examples in random order, the levels' among one another in their proportions all along it."""
    place = np.empty(len(levels))
    for level in np.unique(levels):
        own = np.flatnonzero(levels == level)
        place[own] = (rng.permutation(len(own)) + rng.random(len(own))) / len(own)
    return np.argsort(place, kind="stable")


def _fill(blocks: list[np.ndarray], wanted: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Return rows of the first examples until there are as many as wanted, and how many examples they are."""
    chosen: list[np.ndarray] = []
    count, room = 0.0, wanted
    for block in blocks:
        if not room:
            break
        part = block if len(block) <= room else rng.permutation(block)[:room]
        chosen.append(part)
        room -= len(part)
        count += len(part) / len(block) if len(block) else 0.0
    return np.concatenate(chosen), count


def _estimate(values: list[float], drawn: float, there: int) -> Estimate:
    if len(values) < 2 or there - drawn < 1:
        return Estimate(float(np.mean(values)))
    variance = float(np.var(values, ddof=1))
    return Estimate(float(np.mean(values)), (variance * (drawn / (there - drawn) + 1 / len(values))) ** 0.5)
