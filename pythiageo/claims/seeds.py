"""Seeds: how much events differ between runs that differ in nothing but the seed."""

from __future__ import annotations

import numpy as np
import polars as pl

from pythiageo.claims.evidence import Evidence, counted_events, edge_note
from pythiageo.claims.register import EVENT, declare
from pythiageo.claims.result import (
    CONTRADICTED,
    NOT_DECIDABLE,
    SUPPORTED,
    ClaimResult,
    Specification,
    leave_undecided,
)
from pythiageo.names import shared_by_seeds
from pythiageo.stats.resampling import cluster_interval
from pythiageo.stats.variance import share_within

CLAIM = "events differ little between seeds: less than a tenth of their variance is within a task"
SMALL = 0.1
RULE = (
    "estimate: share of the variance of log(1 + step) of acquisition, tasks and levels of one size and regime, that "
    "lies between seeds: components of a one-way analysis, so that it does not depend on how many seeds there are; "
    f"supported: its 95% interval (F) lies below {SMALL}; contradicted: above; else not decidable; two seeds at least"
)
QUANTITIES = ("acquisition", "floor step", "floor")


@declare("seeds", 12, EVENT)
def seeds(evidence: Evidence, specification: Specification) -> ClaimResult:
    """Return mean and spread over seeds, a row a quantity, regime, size, task and level.

    ``table``: ``seeds`` (with a value), ``runs``, ``mean``, ``low``, ``high`` (t interval, from three seeds on),
    ``std``. ``cases``: a row a quantity, regime and size: ``between_seeds``, the share of the variance that lies
    within task and level (``stats.variance.share_within``), over those that all its seeds have. Steps are
    taken as log(1 + step) for the shares, not for the means.
    """
    who = ["regime", "size", "seed", "task", "level", "status"]
    acquired = evidence.acquisitions(specification)
    moves = evidence.moves(specification) if specification.measure in evidence.measures else acquired.clear()
    parts = [
        acquired.select(*who, pl.lit(QUANTITIES[0]).alias("quantity"), pl.col("step").cast(pl.Float64).alias("value")),
        moves.select(*who, pl.lit(QUANTITIES[1]).alias("quantity"), pl.col("step").cast(pl.Float64).alias("value")),
        moves.select(*who, pl.lit(QUANTITIES[2]).alias("quantity"), pl.col("value")),
    ]
    rows = pl.concat(parts)
    key = ["quantity", "regime", "size", "task", "level"]
    out, shares = [], []
    for group, part in rows.sort(key).group_by(key, maintain_order=True):
        known = counted_events(part, specification)["value"].drop_nulls().to_numpy()
        low, high = cluster_interval(known) or (None, None)
        std = float(known.std(ddof=1)) if known.size > 1 else None
        out.append([*group, known.size, part.height, float(known.mean()) if known.size else None, low, high, std])
    schema = {name: pl.String() for name in key} | {"seeds": pl.Int64(), "runs": pl.Int64()}
    table = pl.DataFrame(
        out, schema=schema | {name: pl.Float64() for name in ("mean", "low", "high", "std")}, orient="row"
    )
    headline: list[np.ndarray] = []
    for (quantity, regime, size), part in rows.group_by(key[:3], maintain_order=True):
        count = part["seed"].n_unique()
        grid = [
            each["value"].to_numpy()
            for _, each in counted_events(part, specification)
            .sort("seed")
            .group_by("task", "level", maintain_order=True)
            if each.height == count
        ]
        if count < 2 or len(grid) < 2:
            continue
        values = np.array(grid) if quantity == "floor" else np.log1p(np.array(grid))
        found = share_within(values)
        shares.append([quantity, regime, size, count, len(grid), found and found[0]])
        if quantity == QUANTITIES[0]:
            headline.append(values)
    names = {"quantity": pl.String(), "regime": pl.String(), "size": pl.String(), "seeds": pl.Int64()}
    cases = pl.DataFrame(shares, schema=names | {"tasks": pl.Int64(), "between_seeds": pl.Float64()}, orient="row")
    alike = [said for size in rows["size"].unique().sort().to_list() if (said := shared_by_seeds(size))]
    told = [(values, found) for values in headline if (found := share_within(values)) is not None]
    if not told:
        reason = "; ".join(["no size with two seeds that share acquisitions", *alike])
        return leave_undecided("seeds", CLAIM, RULE, reason, specification, table)
    values, (estimate, interval) = max(told, key=lambda each: each[0].size)
    verdict = SUPPORTED if interval[1] < SMALL else CONTRADICTED if interval[0] > SMALL else NOT_DECIDABLE
    note = f"{values.shape[1]} seeds, {len(values)} tasks and levels that all of them acquired"
    note = "; ".join([note, *alike, *edge_note(moves, specification)])
    return ClaimResult(
        "seeds", CLAIM, table, verdict, RULE, estimate, interval, SMALL, None, len(values), note, specification, cases
    )
