"""Trajectories: one measured quantity of one run along its checkpoints, gaps kept as gaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import polars as pl

from pythiageo.errors import UserError, nearest
from pythiageo.names import FINAL_LN, FINAL_NORM, LAST_BLOCK

RUN_KEY = ["run", "series", "regime", "size", "seed"]
"""The columns that tell one training run from another."""
QUANTITY_KEY = ["task", "level", "layer", "site", "readout", "measure"]
"""The columns that tell one measured quantity from another within a run."""


@dataclass(frozen=True)
class Trajectory:
    """A quantity at every checkpoint of its run; ``values[i]`` is ``None`` where there is no observation.

    ``key`` holds the columns of ``RUN_KEY`` and ``QUANTITY_KEY``. ``steps`` ascends and holds each weight
    fingerprint once. ``problem`` says why no event can be read from it at all, if so.
    """

    key: dict[str, Any]
    steps: tuple[int, ...]
    tokens: tuple[int | None, ...]
    values: tuple[float | None, ...]
    problem: str | None = None

    def window(self, first: int, last: int) -> Trajectory:
        """Return the part with ``first <= step <= last``."""
        inside = [index for index, step in enumerate(self.steps) if first <= step <= last]
        return Trajectory(
            self.key,
            tuple(self.steps[index] for index in inside),
            tuple(self.tokens[index] for index in inside),
            tuple(self.values[index] for index in inside),
            self.problem,
        )

    @property
    def measured(self) -> int:
        """Number of checkpoints that have a value."""
        return sum(value is not None for value in self.values)

    @property
    def cadence(self) -> float | None:
        """Median distance in steps of neighbouring checkpoints; ``None`` for fewer than two."""
        if len(self.steps) < 2:
            return None
        return float(median(b - a for a, b in pairwise(self.steps)))


def is_at_edge(whole: Trajectory, window: Trajectory, index: int) -> bool:
    """Return whether the minimum at ``index`` of the window may lie outside of it: the fall was not seen to end."""
    measured = [place for place, each in enumerate(window.values) if each is not None]
    if index in (measured[0], measured[-1]):
        return True
    floor, first = window.values[index], whole.values[0]
    for step, value in zip(whole.steps, whole.values, strict=True):
        if step <= window.steps[index] or value is None or floor is None:
            continue
        if value < floor:
            return True
        if first is not None and value > (floor + first) / 2:
            return False
    return False


def without_duplicates(observations: pl.DataFrame) -> pl.DataFrame:
    """Return the observations with each weight fingerprint of a run at its first step only.

    A repository may hold the same weights under two revisions; a blob is never two observations. Checkpoints
    without a fingerprint (they could not be opened) are kept: they are gaps.

    Raises:
        UserError: a step of a run has two different fingerprints.
    """
    prints = observations.select(*RUN_KEY, "step", "weight_sha").drop_nulls("weight_sha").unique()
    mixed = prints.filter(prints.select(*RUN_KEY, "step").is_duplicated())
    if mixed.height:
        row = mixed.row(0, named=True)
        raise UserError(f"step {row['step']} of run {row['run']!r} has two weight fingerprints, expected one.")
    first = prints.group_by(*RUN_KEY, "weight_sha").agg(pl.col("step").min().alias("first_step"))
    again = (
        prints.join(first, on=[*RUN_KEY, "weight_sha"], nulls_equal=True)
        .filter(pl.col("step") > pl.col("first_step"))
        .select(*RUN_KEY, "step")
    )
    return observations.join(again, on=[*RUN_KEY, "step"], how="anti", nulls_equal=True, maintain_order="left")


def trajectories(observations: pl.DataFrame, measures: Sequence[str]) -> Iterator[Trajectory]:
    """Yield the trajectory of every quantity of these measures, runs and quantities in sorted order.

    The checkpoints of a trajectory are all distinct checkpoints of its run, so that one at which this
    quantity was not observed is a gap, not a shorter series.
    """
    distinct = without_duplicates(observations)
    for run in _sorted_parts(distinct, RUN_KEY):
        timeline = run.group_by("step").agg(pl.col("tokens").max()).sort("step")
        steps, tokens = tuple(timeline["step"]), tuple(timeline["tokens"])
        for quantity in _sorted_parts(run.filter(pl.col("measure").is_in(list(measures))), QUANTITY_KEY):
            found = dict(zip(quantity["step"], quantity["value"], strict=True))
            yield Trajectory(
                quantity.select(*RUN_KEY, *QUANTITY_KEY).row(0, named=True),
                steps,
                tokens,
                tuple(found.get(step) for step in steps),
                _problem(quantity),
            )


def depth_of(observations: pl.DataFrame) -> int | None:
    """Return the number of blocks seen in the observations, or ``None`` where no layer was measured."""
    deepest = observations["layer"].max()
    return None if deepest is None else int(deepest) + 1  # type: ignore[arg-type]


def at_site(observations: pl.DataFrame, site: str) -> pl.DataFrame:
    """Return the rows at ``site``: ``last-block``, ``final-ln`` or a hook name. Each run has its own last
    block.

    Raises:
        UserError: the observations hold sites, and none is called so.
    """
    if site == FINAL_LN:
        return observations.filter(pl.col("site") == FINAL_NORM)
    if site == LAST_BLOCK:
        last = observations.filter(pl.col("layer") == pl.col("layer").max().over(RUN_KEY))
        return last.filter(pl.col("site").str.ends_with(".hook_resid_post"))
    return select_rows(observations, "site", site, extra=(LAST_BLOCK, FINAL_LN))


def select_rows(observations: pl.DataFrame, column: str, name: str, extra: Sequence[str] = ()) -> pl.DataFrame:
    """Return the rows whose ``column`` is ``name``.

    Raises:
        UserError: the column has entries, and ``name`` is none of them.
    """
    known = observations[column].drop_nulls().unique().sort().to_list()
    if known and name not in known:
        raise UserError(
            f"no {column} {name!r} in these observations{nearest(name, [*known, *extra])}; "
            f"they hold {', '.join(map(str, known[:12]))}{' ...' if len(known) > 12 else ''}."
        )
    return observations.filter(pl.col(column) == name)


def _sorted_parts(frame: pl.DataFrame, by: list[str]) -> list[pl.DataFrame]:
    return frame.sort(*by, "step", maintain_order=True).partition_by(by, maintain_order=True)


def _problem(quantity: pl.DataFrame) -> str | None:
    """Return why the rows of a quantity do not make one trajectory, or ``None``."""
    probe_sets = quantity["probe_set"].drop_nulls().unique().sort().to_list()
    if len(probe_sets) > 1:
        return f"the probe set changed between checkpoints ({', '.join(probe_sets[:3])})"
    return None
