"""Which checkpoints of two runs stand side by side: at equal steps, tokens, or fraction of training."""

from __future__ import annotations

from typing import Literal, get_args

import polars as pl

from pythiageo.errors import UserError, nearest
from pythiageo.events import Run

Align = Literal["steps", "tokens", "fraction"]
TOLERANCE = {"tokens": 0.05, "fraction": 0.005}
"""Farthest that paired checkpoints may lie apart: tokens by this share of the larger, fractions by this much."""
PAIRS: dict[str, pl.DataType] = {"step": pl.Int64(), "step_b": pl.Int64(), "apart": pl.Float64()}


def check_align(align: str) -> Align:
    """Return ``align`` if it is one. Raises ``UserError`` otherwise."""
    known = get_args(Align)
    if align not in known:
        raise UserError(f"--align: no way {align!r}{nearest(align, known)}; there are {', '.join(known)}")
    return align  # type: ignore[return-value]


def checkpoint_pairs(a: Run, b: Run, align: Align) -> pl.DataFrame:
    """Return the pairs of checkpoints of two runs: ``step`` of a, ``step_b``, ``apart``.

    By steps, equal ones are pairs. Otherwise a pair are two checkpoints each of which is the other's nearest, within
    ``TOLERANCE``; ``apart`` says how far they are, as a share of the larger (tokens) or in fractions of training. The
    fraction is that of the *planned* schedule, which the manifest says: an unfinished run has not come to 1.

    Raises:
        UserError: a run does not say its tokens, or the length of its training.
    """
    if align == "steps":
        common = sorted(set(a.distinct["step"]) & set(b.distinct["step"]))
        return pl.DataFrame({"step": common, "step_b": common, "apart": [0.0] * len(common)}, schema=PAIRS)
    places = [_places(run, align) for run in (a, b)]
    forth, back = _nearest(*places), _nearest(*reversed(places))
    pairs = []
    for step, other in forth.items():
        at, there = places[0][step], places[1][other]
        apart = abs(at - there) / (max(at, there, 1.0) if align == "tokens" else 1.0)
        if back[other] == step and apart <= TOLERANCE[align]:
            pairs.append((step, other, apart))
    return pl.DataFrame(pairs, schema=PAIRS, orient="row")


def _places(run: Run, align: Align) -> dict[int, float]:
    """Return where in training each checkpoint is."""
    if align == "tokens":
        known = run.distinct.drop_nulls("tokens").group_by("step").agg(pl.col("tokens").max())
        if not known.height:
            raise UserError(f"--align tokens: run {run.label} does not say how many tokens its checkpoints have seen")
        return {step: float(tokens) for step, tokens in known.sort("step").iter_rows()}
    planned = run.manifest.settings("training").get("steps")
    if not isinstance(planned, int) or planned < 1:
        raise UserError(
            f"--align fraction: the manifest of run {run.label} does not say how long its training is to be"
        )
    return {step: step / planned for step in sorted(set(run.distinct["step"]))}


def _nearest(of: dict[int, float], among: dict[int, float]) -> dict[int, int]:
    """Return for each checkpoint the nearest of the others, the earlier of two at one distance."""
    return {step: min(among, key=lambda other: (abs(among[other] - at), other)) for step, at in of.items()}
