"""The ranges that values of known measures lie in: a value outside is another quantity, such as a rate in per cent."""

from __future__ import annotations

import math

import polars as pl

_SHARE, _UP_TO_0 = (0.0, 1.0), (-math.inf, 0.0)
_FROM_0, _FROM_1 = (0.0, math.inf), (1.0, math.inf)
_SHARES = ("accuracy", "accuracy_normalised", "chance_accuracy", "majority_rate")
_RANKS = ("rankme", "covariance_effective_rank", "participation_ratio", "stable_rank")
_ENTROPIES = ("dataset_entropy", "dataset_entropy_skean", "prompt_entropy", "prompt_entropy_skean")
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_SHARES, _SHARE),
    "log_prob": _UP_TO_0,
    "held_out_loss": _FROM_0,
    "perplexity": _FROM_1,
    "answer_perplexity": _FROM_1,
    **dict.fromkeys(_RANKS, _FROM_1),
    "mean_cosine": (-1.0, 1.0),
    **dict.fromkeys(("two_nn", *_ENTROPIES), _FROM_0),
    "prompt_entropy_normalised": _SHARE,
    "curvature": (0.0, math.pi),
    "curvature_skean": (0.0, math.pi / 2),
    **dict.fromkeys(("first_norm", "first_norm_ratio", "massive_positions"), _FROM_0),
    **dict.fromkeys(("largest_position_share", "largest_dimension_share", "sink_rate"), _SHARE),
    "weight_rms": _FROM_0,
    "weight_distance": _FROM_0,
    "weight_stable_rank": _FROM_1,
}
"""Lowest and highest value by the name of the measure; a measure that is not here may have any value."""
_ROUNDING = 1e-4
"""How far beyond its range a value may lie, as a share of its size."""


def range_of(measure: str) -> tuple[float, float] | None:
    """Return the range of a measure, also of its variants (``accuracy:flexible-extract``); ``None``: it has none."""
    return RANGES.get(measure.partition(":")[0])


def outside(measure: str, value: float) -> str | None:
    """Return in words what a value of this measure should have been, ``None`` where it lies in the measure's range.

    >>> outside("accuracy", 54.2)
    'expected a share, 0 to 1, and not per cent'
    >>> outside("rankme", 54.2)
    """
    known = range_of(measure)
    if known is None:
        return None
    low, high = known
    slack = _ROUNDING * max(1.0, abs(value))
    if low - slack <= value <= high + slack:
        return None
    if known == _SHARE and 1 < value <= 100:
        return "expected a share, 0 to 1, and not per cent"
    if math.inf in (-low, high):
        return f"expected at most {high:g}" if low == -math.inf else f"expected at least {low:g}"
    return f"expected {low:g} to {high:g}"


def first_outside(table: pl.DataFrame) -> tuple[dict[str, object], str] | None:
    """Return the first row whose value is outside its measure's range, and what was expected, or ``None``."""
    ends = [pl.col("value").min().alias("low"), pl.col("value").max().alias("high")]
    for measure, low, high in table.drop_nulls("value").group_by("measure").agg(ends).sort("measure").iter_rows():
        for value in (high, low):
            if problem := outside(measure, value):
                found = table.filter((pl.col("measure") == measure) & (pl.col("value") == value))
                return found.row(0, named=True), problem
    return None
