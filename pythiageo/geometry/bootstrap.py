"""Standard errors by the bootstrap: whole examples are drawn again, with all their rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pythiageo.geometry.measure import Measure
from pythiageo.geometry.readout import Layout, examples_of
from pythiageo.geometry.sinks import Sinks
from pythiageo.geometry.view import View, resample
from pythiageo.no_value import NoValueError


class Bootstrap:
    """Resamples of a probe set's examples, the same for every checkpoint, site, readout and measure.

    Rows of one example are not independent, so an example is drawn with all its rows or not at all. A probe set of
    several levels has a fixed number of examples of each, so each level is drawn from by itself: what differs between
    levels is no chance. The draws are fixed by ``sha`` (hex digits of the probe set's hash) and their number.

    Args:
        layout: of the probe set.
        sha: its hash.
        resamples: how many.
        strata: the level of each example; empty where there is one.
        owner: the example that each entry of the layout is of, from 0, where one has several (passages of a text).

    Raises:
        ValueError: levels of another number of examples.
    """

    def __init__(
        self, layout: Layout, sha: str, resamples: int, strata: Sequence[str] = (), owner: Sequence[int] | None = None
    ) -> None:
        self._owner = None if owner is None else torch.tensor(owner)
        self._examples = examples = len(layout.lengths) if owner is None else 1 + max(owner)
        if strata and len(strata) != examples:
            raise ValueError(f"expected the level of each of {examples} examples, got {len(strata)}")
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([int(sha, 16), resamples])))
        groups = [np.flatnonzero(np.array(strata) == level) for level in dict.fromkeys(strata)] or [np.arange(examples)]
        draws = [group[rng.integers(0, len(group), size=(resamples, len(group)))] for group in groups]
        self._draws = np.concatenate(draws, axis=1)
        self._layout = layout
        self._rows: dict[str, list[Tensor]] = {}

    def rows(self, positions: str, without: Sinks | None = None) -> list[Int[Tensor, " row"]]:
        """Return, for each resample, the rows of the readout's matrix that it holds; ``without`` some sinks, if so."""
        if without is not None:  # another site has others
            return self._find(examples_of(self._layout, positions, without.all))
        if positions not in self._rows:
            self._rows[positions] = self._find(examples_of(self._layout, positions))
        return self._rows[positions]

    def _find(self, examples: Int[Tensor, " row"]) -> list[Int[Tensor, " drawn"]]:
        blocks = rows_by_example(examples if self._owner is None else self._owner[examples], self._examples)
        return [torch.from_numpy(np.concatenate([blocks[chosen] for chosen in draw])) for draw in self._draws]

    def stderrs(self, view: View, positions: str, measures: Sequence[Measure]) -> dict[str, float | None]:
        """Return each measure's standard deviation over the resamples, by its name.

        ``None`` where a resample has no value, or there are fewer than two. A resample holds about 63% of the
        examples, some of them several times, so a measure that counts directions is lower on resamples than on the
        sample: their spread is used, never their mean.
        """
        taken: dict[str, list[float | None]] = {measure.name: [] for measure in measures}
        for rows in self.rows(positions, view.rows.without):
            again = resample(view, rows)
            for measure in measures:
                taken[measure.name].append(_value(measure, again))
        return {name: _spread(values) for name, values in taken.items()}


def rows_by_example(examples: Int[Tensor, " row"], count: int) -> list[np.ndarray]:
    """Return the rows of each of ``count`` examples, where ``examples`` says which one each row comes from."""
    example = examples.numpy()
    order = np.argsort(example, kind="stable")
    starts = np.searchsorted(example[order], np.arange(count + 1))
    return [order[a:b] for a, b in pairwise(starts)]


def _value(measure: Measure, view: View) -> float | None:
    try:
        return measure.value(view).value
    except NoValueError:
        return None


def _spread(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    if len(found) < max(2, len(values)):
        return None
    return float(np.std(found, ddof=1))
