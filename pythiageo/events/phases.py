"""Phases of a rank over training, as Li et al. 2025 name them: a fall, a rise, and a fall while alpha-ReQ rises."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import polars as pl

from pythiageo.errors import count_noun
from pythiageo.events.find import timeline_rows
from pythiageo.events.trajectory import RUN_KEY, Trajectory, at_site, select_rows, trajectories
from pythiageo.names import COVARIANCE_RANK, FINAL_LN, PHASE_ALPHA, PHASE_READOUT
from pythiageo.observations.schema import COLUMNS
from pythiageo.study.protocols import FOUND, NOT_REACHED, UNDEFINED

WARM_UP, ENTROPY_SEEKING, COMPRESSION_SEEKING = "warm-up", "entropy-seeking", "compression-seeking"
PHASES = {
    WARM_UP: "the rank falls, from the run's first checkpoint to where its largest rise begins",
    ENTROPY_SEEKING: "the largest rise of the rank between two checkpoints, as a ratio",
    COMPRESSION_SEEKING: "from the end of that rise the rank falls to its lowest, and alpha-ReQ is higher there",
}
"""What each phase is."""
PHASE_COLUMNS: dict[str, pl.DataType] = {
    **{name: COLUMNS[name] for name in RUN_KEY},
    **{name: COLUMNS[name] for name in ("task", "level", "layer", "site", "readout", "measure")},
    "phase": pl.String(),
    **{name: pl.Int64() for name in ("begin", "begin_low", "begin_high", "end", "end_low", "end_high")},
    "change": pl.Float64(),
    "p": pl.Float64(),
    "status": pl.String(),
    "reason": pl.String(),
    "n_checkpoints": pl.Int64(),
}
"""Columns of a table of phases.

``begin``, ``end``: steps of its first and its last checkpoint, each with the steps between which the boundary may lie.
``change``: of the rank from one to the other, as a share of the first. ``p``: how often a random walk of the same moves
falls, rises and falls as much. ``n_checkpoints``: those with a value."""
LEAST = 0.05
"""Share by which the rank must change for a phase, as for a collapse under protocol ``pythiageo``."""
LEVEL = 0.05
"""Greatest ``p`` of a rank that has phases."""
FEWEST = 6
"""Checkpoints with a value, at least: of five there are too few orders of moves for any ``p`` below ``LEVEL``."""
DRAWS = 999
INSIDE = 4
"""Checkpoints of a fall, at least, whose order tells it from noise where no errors are known."""


@dataclass(frozen=True)
class _Curve:
    """A rank at the checkpoints that have one, its standard errors (0 where none is known), alpha-ReQ by step."""

    steps: tuple[int, ...]
    values: np.ndarray
    errors: np.ndarray
    alpha: Mapping[int, float]

    def change(self, first: int, last: int) -> float:
        return float(self.values[last] / self.values[first] - 1)

    def told_apart(self, a: int, b: int, level: float = LEVEL) -> bool:
        """Whether two values differ by more than their errors make."""
        z = NormalDist().inv_cdf(1 - level / 2)
        return bool(abs(self.values[a] - self.values[b]) > z * math.hypot(self.errors[a], self.errors[b]))

    def doubt_fall(self, first: int, last: int) -> str | None:
        """Return why a fall may be noise, ``None`` where it is not: its ends differ, or what lies between them falls.

        Ends are the extremes of as many values as lie between them, so their difference is held against that many.
        """
        if self.change(first, last) > -LEAST:
            return f"the rank did not fall by {LEAST:.0%}"
        if self.errors[first] > 0 and self.errors[last] > 0:
            apart = self.told_apart(first, last, LEVEL / (last - first))
            return None if apart else "its fall may be made by the errors of its values"
        inside = self.values[first + (first > 0) : last]  # the first of a run was not chosen
        if len(inside) < INSIDE:
            return (
                f"of {count_noun(len(inside), 'checkpoint')} and without errors a fall is not told from noise: more "
                f"checkpoints, or measures.bootstrap"
            )
        from scipy.stats import kendalltau  # type: ignore[import-untyped] # noqa: PLC0415 - takes a second

        p = kendalltau(np.arange(len(inside)), inside, alternative="less").pvalue
        return None if p <= LEVEL else f"the values of its fall may be in any order (p = {p:.2f})"

    def around(self, place: int) -> tuple[int, int]:
        """Return the steps between which an extreme lies: the next checkpoints to either side that are told apart."""
        low = high = place
        while low > 0 and (low == place or not self.told_apart(low, place)):
            low -= 1
        while high < len(self.steps) - 1 and (high == place or not self.told_apart(high, place)):
            high += 1
        return self.steps[low], self.steps[high]


def phases(
    observations: pl.DataFrame,
    measure: str = COVARIANCE_RANK,
    readout: str = PHASE_READOUT,
    site: str = FINAL_LN,
    alpha: str = PHASE_ALPHA,
    seed: int = 0,
) -> pl.DataFrame:
    """Return the three phases of each task's rank in every run, one row a phase (columns: ``PHASE_COLUMNS``).

    With v the rank at the checkpoints that have one, entropy-seeking is from checkpoint i to a later j with the largest
    v_j / v_i; warm-up is from the run's first checkpoint to i; compression-seeking from j to the lowest v after it.
    Each must change the rank by 5%. A fall must be more than the rows' standard errors make of the extremes of as many
    values, or, without these, its values must fall in their order (Kendall's tau, one-sided, at 5%).

    A random walk falls and rises, too. So the sum of the three changes of log v is set beside that of walks made of the
    same moves in random order (``p``); where more than 5% of these have as much, no phase is told. The test is exact
    where moves between neighbouring checkpoints can be exchanged; it does not ask each phase by itself.

    Status: ``found``; ``not-reached`` (the rank still rises at the last checkpoint, or has not fallen by 5% since);
    ``undefined`` (no fall or no rise, a random walk has as much, too few checkpoints, or alpha-ReQ did not rise) with a
    reason, as is a fall that may be noise.

    A boundary's interval reaches to the next checkpoint on either side whose rank is told apart from the extreme's by
    the rows' standard errors; without these, to the neighbouring checkpoints.

    Args:
        observations: the table of one or more runs.
        measure: the rank.
        readout: its readout, and alpha's.
        site: ``last-block``, ``final-ln`` or a hook name.
        alpha: the measure whose rise compression-seeking asks for, where the table has it.
        seed: of the random orders.

    Raises:
        UserError: a readout, measure or site that the table does not hold.
    """
    chosen = select_rows(at_site(observations, site), "readout", readout)
    ranks = pl.concat([select_rows(chosen, "measure", measure), timeline_rows(observations)])
    others = {_place(each): each for each in trajectories(chosen, [alpha])}
    errors = _errors(chosen.filter(measure=measure))
    rows = [
        row
        for each in trajectories(ranks, [measure])
        for row in _phases_of(each, errors, others.get(_place(each)), np.random.default_rng(seed))
    ]
    return pl.DataFrame(rows, schema=PHASE_COLUMNS, orient="row")


def _place(trajectory: Trajectory) -> tuple[Any, ...]:
    return tuple(value for name, value in trajectory.key.items() if name != "measure")


def _errors(rows: pl.DataFrame) -> dict[tuple[Any, ...], float]:
    known = rows.drop_nulls("stderr").select(*RUN_KEY, "task", "level", "layer", "site", "readout", "step", "stderr")
    return {row[:-1]: row[-1] for row in known.iter_rows()}


def _phases_of(
    whole: Trajectory, errors: Mapping[tuple[Any, ...], float], alpha: Trajectory | None, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    place = _place(whole)
    there = [index for index, value in enumerate(whole.values) if value is not None and value > 0]
    known = {} if alpha is None else dict(zip(alpha.steps, alpha.values, strict=True))
    steps = tuple(whole.steps[index] for index in there)
    curve = _Curve(
        steps,
        np.array([whole.values[index] for index in there], dtype=float),
        np.array([errors.get((*place, step), 0.0) for step in steps]),
        {step: value for step, value in known.items() if value is not None},
    )
    base = dict.fromkeys(PHASE_COLUMNS) | whole.key | {"n_checkpoints": len(there)}
    problem, p = whole.problem or _too_little(whole, len(there)), None
    if problem is None:
        problem, p = _no_phases(curve, rng)
    if problem is not None:
        yield from (base | {"phase": name, "p": p, "status": UNDEFINED, "reason": problem} for name in PHASES)
        return
    i, j = _largest_rise(np.log(curve.values))
    yield base | {"phase": WARM_UP, "p": p, **_warm_up(curve, i)}
    yield base | {"phase": ENTROPY_SEEKING, "p": p, **_entropy_seeking(curve, i, j)}
    yield base | {"phase": COMPRESSION_SEEKING, "p": p, **_compression_seeking(curve, j)}


def _too_little(whole: Trajectory, measured: int) -> str | None:
    if measured < FEWEST:
        return f"too few checkpoints with a value: {measured}, and phases need {FEWEST}"
    return "no value at the run's first checkpoint" if whole.values[0] is None else None


def _no_phases(curve: _Curve, rng: np.random.Generator) -> tuple[str | None, float | None]:
    """Return why a rank has no phases at all, if so, and how often a random walk has as much of them."""
    logs = np.log(curve.values)
    i, j = _largest_rise(logs)
    if curve.change(i, j) < LEAST or not curve.told_apart(i, j):
        return f"the rank never rises by {LEAST:.0%} or more, and by more than its errors make", None
    p = _share_of_walks(logs, rng)
    if p > LEVEL:
        return f"a random walk of the same moves falls, rises and falls as much in {p:.0%} of all orders", p
    return None, p


def _largest_rise(logs: np.ndarray) -> tuple[int, int]:
    """Return where the largest rise begins and where it ends; both the first checkpoint where there is none."""
    rises = logs - np.minimum.accumulate(logs)
    end = int(rises.argmax())
    return int(logs[: end + 1].argmin()), end


def _share_of_walks(logs: np.ndarray, rng: np.random.Generator) -> float:
    """Return the share of random orders of a curve's moves that fall, rise and fall as much as it does."""
    moves = rng.permuted(np.tile(np.diff(logs), (DRAWS, 1)), axis=1)
    walks = np.concatenate([np.zeros((DRAWS, 1)), moves.cumsum(axis=1)], axis=1)
    sums = _sum_of_changes(np.concatenate([logs[None] - logs[0], walks]))
    return float((1 + (sums[1:] >= sums[0] - 1e-9).sum()) / (1 + DRAWS))


def _sum_of_changes(curves: np.ndarray) -> np.ndarray:
    """Return fall, largest rise and fall after it of each curve (curve, checkpoint), which begins at 0, added up."""
    lowest = np.minimum.accumulate(curves, axis=1)
    end = (curves - lowest).argmax(axis=1)[:, None]
    after = np.minimum.accumulate(curves[:, ::-1], axis=1)[:, ::-1]
    bottom, top, last = (np.take_along_axis(each, end, axis=1)[:, 0] for each in (lowest, curves, after))
    return -bottom + (top - bottom) + (top - last)


def _warm_up(curve: _Curve, i: int) -> dict[str, Any]:
    doubt = curve.doubt_fall(0, i)
    return {"status": UNDEFINED, "reason": doubt} if doubt else {"status": FOUND, **_from_to(curve, 0, i)}


def _entropy_seeking(curve: _Curve, i: int, j: int) -> dict[str, Any]:
    found = _from_to(curve, i, j)
    if j < len(curve.steps) - 1:
        return {"status": FOUND, **found}
    lacking = dict.fromkeys(("end", "end_low", "end_high"))
    return found | lacking | {"status": NOT_REACHED, "reason": "the rank was still rising at the last checkpoint"}


def _compression_seeking(curve: _Curve, j: int) -> dict[str, Any]:
    last = len(curve.steps) - 1
    k = j + int(curve.values[j:].argmin())
    if j == last or curve.change(j, k) > -LEAST:
        return {"status": NOT_REACHED, "reason": f"the rank has not fallen by {LEAST:.0%} since its largest rise"}
    if doubt := curve.doubt_fall(j, k):
        return {"status": UNDEFINED, "reason": doubt}
    found, notes = _from_to(curve, j, k), []
    before, after = (curve.alpha.get(curve.steps[place]) for place in (j, k))
    if before is None or after is None:
        notes.append("alpha-ReQ is not in the table at both ends, so that it is not known whether it rose")
    elif after <= before:
        reason = f"the rank fell, and alpha-ReQ did not rise: {before:.3g} to {after:.3g}"
        return found | {"status": UNDEFINED, "reason": reason}
    if k == last:
        notes.append("it was still falling at the last checkpoint")
    return found | {"status": FOUND, "reason": "; ".join(notes) or None}


def _from_to(curve: _Curve, first: int, last: int) -> dict[str, Any]:
    begin = (curve.steps[0],) * 2 if first == 0 else curve.around(first)
    end = curve.around(last)
    return {
        **dict(zip(("begin", "begin_low", "begin_high"), (curve.steps[first], *begin), strict=True)),
        **dict(zip(("end", "end_low", "end_high"), (curve.steps[last], *end), strict=True)),
        "change": curve.change(first, last),
    }
