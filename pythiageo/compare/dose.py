"""The dose-response: from which share of task examples in the training data on an event appears."""

from __future__ import annotations

import polars as pl

from pythiageo.events import get_protocol

NATURALISTIC, TASK_ALIGNED, MIX = "naturalistic", "task-aligned", "mix:"
EVENTS = ("acquisition", "floor")
DOSE_SCHEMA: dict[str, pl.DataType] = {
    "protocol": pl.String(),
    "event": pl.String(),
    "task": pl.String(),
    "level": pl.String(),
    "dose": pl.Float64(),
    "run": pl.String(),
    "status": pl.String(),
    "step": pl.Int64(),
    "tokens": pl.Int64(),
    "value": pl.Float64(),
    "appears_from": pl.Float64(),
    "reason": pl.String(),
}


def dose_of(regime: str) -> float | None:
    """Return the share of task examples that a regime trains on: 0 for text, 1 for tasks; ``None`` for another word."""
    if regime in {NATURALISTIC, TASK_ALIGNED}:
        return float(regime == TASK_ALIGNED)
    try:
        return float(regime.removeprefix(MIX)) if regime.startswith(MIX) else None
    except ValueError:
        return None


def dose_response(events: pl.DataFrame) -> pl.DataFrame:
    """Return acquisition and floor of every run, by dose (columns: ``DOSE_SCHEMA``); nothing for less than three doses.

    ``appears_from``: the lowest dose from which on *every* run found the event (or, where the protocol counts it, has
    it at the edge of the window: the status says so); null where the highest dose has a run that did not.
    ``not-reached`` is of the steps that a run took: a lower dose may only need longer.
    """
    known = events.filter(pl.col("event").is_in(EVENTS)).with_columns(
        pl.col("regime").map_elements(dose_of, return_dtype=pl.Float64).alias("dose")
    )
    known = known.drop_nulls("dose").sort("protocol", "event", "task", "level", "dose", "run")
    if known["dose"].n_unique() < 3:
        return pl.DataFrame(schema=DOSE_SCHEMA)
    place = ["protocol", "event", "task", "level"]
    rows = []
    for group in known.partition_by(place, maintain_order=True):
        found_all = pl.col("status").is_in(get_protocol(group["protocol"][0]).counted).all().alias("found")
        by_dose = group.group_by("dose").agg(found_all).sort("dose", descending=True)
        appears = None
        for dose, found in by_dose.iter_rows():
            if not found:
                break
            appears = dose
        rows.append(group.with_columns(pl.lit(appears, dtype=pl.Float64).alias("appears_from")))
    return pl.concat(rows).select(pl.col(name).cast(dtype) for name, dtype in DOSE_SCHEMA.items())
