"""Where a run's floors are read: which rank, under which readout, at which site, of those that its table holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from pythiageo.names import BLOCK_END, COVARIANCE_RANK, FINAL_LN, FINAL_NORM, LAST_BLOCK, RANKME, READOUT
from pythiageo.observations.measures import rank_measures


@dataclass(frozen=True)
class Place:
    """A rank measure, its readout (``positions/centring``), and ``last-block``, ``final-ln`` or a hook name."""

    measure: str = COVARIANCE_RANK
    readout: str = READOUT
    site: str = LAST_BLOCK

    def __str__(self) -> str:
        return f"{self.measure}, {self.readout}, {self.site}"


def choose_place(
    tables: Sequence[pl.DataFrame], measure: str | None = None, readout: str | None = None, site: str | None = None
) -> Place:
    """Return the place of the floors of these runs: what is named, and for what is ``None`` whichever rank there is.

    Taken is a place at which as few runs as possible have no value; of several the last block before other sites, the
    rank that the study's floors fit (``covariance_effective_rank``) before RankMe and that before others, and
    ``answer/centred`` before other readouts. Runs without any rank leave the study's.
    """
    parts = [_places(table) for table in tables]
    every = {place for part in parts for place in part}
    if not every:
        return Place(measure or COVARIANCE_RANK, readout or READOUT, site or LAST_BLOCK)
    asked = (measure, readout, site)
    fitting = {
        place
        for place in every
        if all(wanted is None or wanted == each for wanted, each in zip(asked, place, strict=True))
    }
    ranks = [COVARIANCE_RANK, RANKME, *rank_measures()]

    def order(place: tuple[str, str, str]) -> tuple[int, int, int, bool, str, str]:
        lacking = sum(not part.get(place, False) for part in parts if part)
        at = {LAST_BLOCK: 0, FINAL_LN: 1}.get(place[2], 2)
        return lacking, at, ranks.index(place[0]), place[1] != READOUT, place[1], place[2]

    # a name that no run has stays as it was given: whoever reads the events is told so
    best = min(fitting or every, key=order)
    return Place(*(wanted or each for wanted, each in zip(asked, best, strict=True)))


def _places(table: pl.DataFrame) -> dict[tuple[str, str, str], bool]:
    """Return the places of a run's ranks, and whether a rank has a value there."""
    ranks = table.filter(pl.col("measure").is_in(rank_measures())).drop_nulls(["readout", "site"])
    ends = pl.col("site").str.ends_with(BLOCK_END)
    deepest = pl.col("layer") == pl.col("layer").filter(ends).max()
    site = (
        pl.when(pl.col("site") == FINAL_NORM)
        .then(pl.lit(FINAL_LN))
        .when(ends & deepest)
        .then(pl.lit(LAST_BLOCK))
        .otherwise(pl.col("site"))
    )
    found = ranks.group_by("measure", "readout", site.alias("place")).agg(pl.col("value").is_not_null().any())
    return {(str(measure), str(readout), str(place)): bool(known) for measure, readout, place, known in found.rows()}
