"""Attention sinks as positions: which ones they are at a site, what they hold of it, and where they make a rank."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pythiageo.geometry.readout import Layout

OUTLIER = 5.0
"""A position whose norm exceeds the median by this factor is a sink. At it, one position in 26 holds half of the
squared norm, and so half of what a rank is taken of. Massive positions of trained decoders lie at 10^2 to 10^3."""
HEAD = 0.3
"""A head sinks where its mean attention to the first position exceeds this (Gu et al. 2025; Queipo-de-Llano et al.)."""
POSITION_LIMIT = 0.25
"""A rank of whose matrix sinks bring more than this share of the squared norm says so: one direction with a share s
beside a rank R makes a covariance effective rank of exp(h(s)) R^(1 - s), h the entropy of (s, 1 - s). At a quarter, 40
becomes 28."""
DIRECTION_LIMIT = 0.9
"""A rank of whose matrix one direction holds more than this says so: its participation ratio is at most 1.23."""


class SinkMeasure(NamedTuple):
    """A number of a site or of a block's heads: its name in the table, in a sentence what it is, and how it is made."""

    name: str
    definition: str
    formula: str
    source: str


SINK_MEASURES = (
    SinkMeasure(
        name="first_norm",
        definition="Norm of the first position, a mean over examples.",
        formula="mean over examples of |x_1|",
        source="Queipo-de-Llano et al. 2026",
    ),
    SinkMeasure(
        name="first_norm_ratio",
        definition="Norm of the first position over the median norm of all others, a mean over examples.",
        formula="mean over examples of |x_1|, over the median of |x_t|, t > 1",
        source="Sun et al. 2024; Queipo-de-Llano et al. 2026",
    ),
    SinkMeasure(
        name="massive_positions",
        definition="Number of positions whose norm is more than 5 times the median of all but first ones.",
        formula="#{t: |x_t| > 5 median}",
        source="Sun et al. 2024, of positions in place of single activations",
    ),
    SinkMeasure(
        name="largest_position_share",
        definition="Share of all squared norm that the largest position of each example holds.",
        formula="sum over examples of max_t |x_t|^2, over the sum of all |x_t|^2",
        source="Queipo-de-Llano et al. 2026",
    ),
    SinkMeasure(
        name="largest_dimension_share",
        definition="Share of all squared norm that lies in the largest dimension of the states.",
        formula="max_d sum_t x_td^2, over the sum of all x_td^2",
        source="Sun et al. 2024",
    ),
    SinkMeasure(
        name="sink_rate",
        definition="Share of a block's heads whose mean attention to the first position exceeds 0.3.",
        formula="mean over heads and examples of 1(mean_t A_t1 > 0.3), t from the first position on",
        source="Gu et al. 2025",
    ),
)


@dataclass(frozen=True)
class Sinks:
    """The positions of a site that a readout ``-but-sinks`` leaves out: the first of each example, and outliers.

    ``norms`` (position): their norms in float64. ``firsts`` and ``outliers`` (position): which are the first ones, and
    which have a norm above ``OUTLIER`` times ``median``, that of all positions but the first ones. ``finite``: whether
    every state is; of others no median is one.
    """

    norms: Float[Tensor, " position"]
    median: float
    firsts: Bool[Tensor, " position"]
    outliers: Bool[Tensor, " position"]
    finite: bool

    @classmethod
    def of(cls, states: Float[Tensor, "position d_model"], layout: Layout) -> Sinks:
        """Find them among all states of a site, the examples one after another."""
        return cls.of_norms(measure_norms(states), layout.lengths)

    @classmethod
    def of_norms(cls, norms: Float[Tensor, " position"], lengths: Int[Tensor, " example"]) -> Sinks:
        """Find them by the norms of all states of a site alone."""
        firsts = torch.zeros(len(norms), dtype=torch.bool, device=norms.device)
        firsts[lengths.cumsum(0) - lengths] = True
        others = norms[~firsts] if not bool(firsts.all()) else norms
        median = float(np.median(others.cpu().numpy()))
        return cls(norms, median, firsts, norms > OUTLIER * median, bool(norms.isfinite().all()))

    def at(self, places: Int[Tensor, " place"]) -> Sinks:
        """Return the same of some positions alone; the median stays that of all."""
        places = places.to(self.norms.device)
        return replace(self, norms=self.norms[places], firsts=self.firsts[places], outliers=self.outliers[places])

    @property
    def all(self) -> Bool[Tensor, " position"]:
        """Whether each position is one."""
        return self.firsts | self.outliers

    def count(self, places: Int[Tensor, " place"]) -> str:
        """Return in words how many of some positions are left out, and of how many."""
        firsts, outliers = self.firsts[places], self.outliers[places] & ~self.firsts[places]
        return (
            f"{int((firsts | outliers).sum()):,} of {len(places):,} positions left out: {int(firsts.sum()):,} first "
            f"ones, and {int(outliers.sum()):,} others of more than {OUTLIER:g} times the median norm"
        )


def measure_norms(states: Float[Tensor, "*position d_model"]) -> Float[Tensor, "*position"]:
    """Return the norm of each state, in float64."""
    return torch.linalg.vector_norm(states, dim=-1, dtype=torch.float64)


def measure_sinks(states: Float[Tensor, "position d_model"], sinks: Sinks, layout: Layout) -> dict[str, float | None]:
    """Return the numbers of a site among ``SINK_MEASURES`` by name, ``None`` where all states are zero.

    For 30 positions an example, one of them of norm r and the others of norm 1, the first: r, the number of examples
    where r > 5, r^2 / (r^2 + 29).
    """
    squares = sinks.norms.square()
    total = float(squares.sum())
    found: dict[str, float | None] = {"massive_positions": float(sinks.outliers.sum())}
    first = float(sinks.norms[sinks.firsts].mean())
    found["first_norm"] = first
    found["first_norm_ratio"] = first / sinks.median if sinks.median > 0 else None
    largest = torch.segment_reduce(squares, "max", lengths=layout.lengths.to(squares.device), axis=0)
    found["largest_position_share"] = float(largest.sum()) / total if total > 0 else None
    columns = torch.linalg.vector_norm(states, dim=0, dtype=torch.float64).square()
    found["largest_dimension_share"] = float(columns.max()) / total if total > 0 else None
    return found


def spread_evenly(length: int) -> float:
    """Return the mean attention to the first position of a head that spreads it evenly over what it sees.

    The harmonic number of the length over the length: 0.29 for 10 positions, 0.05 for 100.
    """
    return sum(1 / position for position in range(1, length + 1)) / length
