"""Transitions: where every measure changes, and where every layer has fallen half way, for all quantities at once."""

from __future__ import annotations

import polars as pl

from pythiageo.events.find import EVENT_COLUMNS, MIN_FLOOR_CHECKPOINTS
from pythiageo.events.trajectory import QUANTITY_KEY, RUN_KEY, without_duplicates
from pythiageo.observations.measures import HALF_WAY, MAXIMUM, MINIMUM, transitions_of_measures, unmoving_measures
from pythiageo.study.protocols import AT_EDGE, FOUND, NOT_REACHED, UNDEFINED, Protocol, get_protocol

_KEY = [*RUN_KEY, *QUANTITY_KEY]


def transitions(observations: pl.DataFrame, protocol: Protocol | str) -> pl.DataFrame:
    """Return two events of every measured quantity that is no score (columns: ``EVENT_COLUMNS``).

    - ``transition``: the step of the minimum or of the maximum in the protocol's floor window (of equal ones the
      first), or, for a measure that is ``half-way``, the first checkpoint of the run at which it is at least half as
      far from its first value as it ever gets. the file that declares the measure says which.
    - ``half_collapse``, where the transition is the minimum: the first checkpoint up to it whose value is at or below
      the middle of the first value and the minimum. Both ends are the layer's own, so a profile that is there at step
      0 cancels.

    ``at-edge``: the extreme is the last value of the window, or a more extreme one follows after the window before the
    measure is half way back: both events have a step and a value, and whether they count is the protocol's
    (``Protocol.edge_counts``). ``not-reached``: the extreme is the run's last checkpoint, so it was perhaps still
    moving (censored). ``undefined``: no value at the run's first checkpoint, fewer than three values, a probe set that
    changed, or no movement away from the first value at all, or a minimum that lies less than ``protocol.least_fall``
    below it. Never step 0, never the last step.
    """
    protocol = get_protocol(protocol) if isinstance(protocol, str) else protocol
    measured = without_duplicates(observations)
    run = measured.group_by(RUN_KEY).agg(
        pl.col("step").min().alias("run_first"), pl.col("step").max().alias("run_last")
    )
    rows = measured.filter(
        ~pl.col("measure").is_in(unmoving_measures())
        & ~pl.col("measure").str.starts_with("linear_probe")
        & pl.col("task").is_not_null()
        & pl.col("readout").is_not_null()  # a score of others, whatever its name
    )
    kind = pl.col("measure").replace_strict(transitions_of_measures(), default=HALF_WAY, return_dtype=pl.String)
    rows = (
        rows.join(run, on=RUN_KEY, nulls_equal=True).with_columns(kind.alias("kind")).sort("step", maintain_order=True)
    )
    summary = _summary(rows, protocol)
    found = rows.join(summary, on=_KEY, nulls_equal=True, suffix="_of").filter(pl.col("value").is_not_null())
    away = (pl.col("value") - pl.col("first_value")).abs()
    sign = pl.when(pl.col("kind") == MAXIMUM).then(-1.0).otherwise(1.0)
    later = pl.col("step") > pl.col("extreme_step")
    beyond = later & (sign * pl.col("value") < sign * pl.col("extreme_value"))
    farthest = (sign * pl.col("value")).filter(beyond).arg_min()
    reached = found.group_by(_KEY).agg(
        pl.col("step").filter(beyond).first().alias("beyond_step"),
        pl.col("step").filter(beyond).gather(farthest).first().alias("farthest_step"),
        pl.col("value").filter(beyond).gather(farthest).first().alias("farthest_value"),
        pl.col("step").filter(later & (sign * pl.col("value") > sign * pl.col("threshold"))).first().alias("back_step"),
        pl.col("step").filter(away >= pl.col("span") / 2).first().alias("half_step"),
        pl.col("value").filter(away >= pl.col("span") / 2).first().alias("half_value"),
        pl.col("tokens").filter(away >= pl.col("span") / 2).first().alias("half_tokens"),
        pl.col("step")
        .filter((pl.col("step") <= pl.col("extreme_step")) & (pl.col("value") <= pl.col("threshold")))
        .first()
        .alias("fall_step"),
        pl.col("value")
        .filter((pl.col("step") <= pl.col("extreme_step")) & (pl.col("value") <= pl.col("threshold")))
        .first()
        .alias("fall_value"),
        pl.col("tokens")
        .filter((pl.col("step") <= pl.col("extreme_step")) & (pl.col("value") <= pl.col("threshold")))
        .first()
        .alias("fall_tokens"),
    )
    whole = summary.join(reached, on=_KEY, how="left", nulls_equal=True).with_columns(_problem(protocol))
    half_way = pl.col("kind") == HALF_WAY
    moved = whole.with_columns(
        pl.when(half_way).then(pl.col(f"half_{name}")).otherwise(pl.col(f"extreme_{name}")).alias(f"event_{name}")
        for name in ("step", "tokens", "value")
    )
    fallen = whole.filter(pl.col("kind") == MINIMUM).with_columns(
        pl.col(f"fall_{name}").alias(f"event_{name}") for name in ("step", "tokens", "value")
    )
    parts = [_events(moved, protocol, "transition"), _events(fallen, protocol, "half_collapse")]
    return pl.concat(parts).sort("event", *_KEY, nulls_last=False)


def _summary(rows: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    """Return a row a quantity: its first value, its extreme, how many checkpoints were looked at."""
    low, high = protocol.floor_window
    half_way = pl.col("kind").first() == HALF_WAY
    measured = pl.col("value").is_not_null()
    inside = measured & (pl.col("step").is_between(low, high) | (pl.col("kind") == HALF_WAY))
    first = pl.col("value").filter(pl.col("step") == pl.col("run_first")).first()
    value = pl.col("value").filter(inside)
    at = (
        pl.when(half_way)
        .then((value - first).abs().arg_max())
        .when(pl.col("kind").first() == MAXIMUM)
        .then(value.arg_max())
        .otherwise(value.arg_min())
    )
    summary = rows.group_by(_KEY).agg(
        pl.col("kind").first(),
        pl.col("run_last").first(),
        pl.col("probe_set").drop_nulls().n_unique().alias("probe_sets"),
        first.alias("first_value"),
        inside.sum().cast(pl.Int64).alias("n_checkpoints"),
        pl.col("step").filter(inside).diff().median().alias("cadence"),
        (value - first).abs().max().alias("span"),
        pl.col("step").filter(inside).last().alias("window_last"),
        value.gather(at).first().alias("extreme_value"),
        pl.col("step").filter(inside).gather(at).first().alias("extreme_step"),
        pl.col("tokens").filter(inside).gather(at).first().alias("extreme_tokens"),
    )
    return summary.with_columns(((pl.col("first_value") + pl.col("extreme_value")) / 2).alias("threshold"))


def _problem(protocol: Protocol) -> list[pl.Expr]:
    """Return the status of a quantity's events and the reason for it."""
    low, high = protocol.floor_window
    where = pl.when(pl.col("kind") == HALF_WAY).then(pl.lit("")).otherwise(pl.lit(f" in steps {low}-{high}"))
    few = pl.format(
        "too few checkpoints with a value{}: {}, and it needs {}", where, "n_checkpoints", pl.lit(MIN_FLOOR_CHECKPOINTS)
    )
    still = (
        ((pl.col("kind") == MINIMUM) & (pl.col("extreme_value") >= pl.col("first_value")))
        | ((pl.col("kind") == MAXIMUM) & (pl.col("extreme_value") <= pl.col("first_value")))
        | ((pl.col("kind") == HALF_WAY) & (pl.col("span") == 0))
    )
    fall = (pl.col("first_value") - pl.col("extreme_value")) / pl.col("first_value").abs()
    shallow = (pl.col("kind") == MINIMUM) & (fall < protocol.least_fall)
    barely = pl.format(
        "it fell by {}% of its first value, and a collapse is {}% or more",
        (100 * fall).map_elements(lambda share: f"{share:.2f}", return_dtype=pl.String),
        pl.lit(f"{100 * protocol.least_fall:g}"),
    )
    never = (
        pl.when(pl.col("kind") == MINIMUM)
        .then(pl.lit("it never fell below its first value"))
        .when(pl.col("kind") == MAXIMUM)
        .then(pl.lit("it never rose above its first value"))
        .otherwise(pl.lit("it never moved"))
    )
    undefined = (
        pl.when(pl.col("probe_sets") > 1)
        .then(pl.lit("the probe set changed between checkpoints"))
        .when(pl.col("n_checkpoints") < MIN_FLOOR_CHECKPOINTS)
        .then(few)
        .when(pl.col("first_value").is_null())
        .then(pl.lit("no value at the run's first checkpoint"))
        .when(still)
        .then(never)
        .when(shallow)
        .then(barely)
    )
    censored = pl.when(pl.col("extreme_step") >= pl.col("run_last")).then(
        pl.lit("its extreme is the run's last checkpoint, so it was perhaps still moving")
    )
    edge = pl.when(pl.col("kind") == HALF_WAY).then(None).otherwise(_edge())
    status = (
        pl.when(undefined.is_not_null())
        .then(pl.lit(UNDEFINED))
        .when(censored.is_not_null())
        .then(pl.lit(NOT_REACHED))
        .when(edge.is_not_null())
        .then(pl.lit(AT_EDGE))
        .otherwise(pl.lit(FOUND))
    )
    return [status.alias("status"), pl.coalesce(undefined, censored, edge).alias("reason")]


def _edge() -> pl.Expr:
    """Return why the extreme of a window may lie outside of it, null where it was seen to end."""
    still = pl.col("back_step").is_null() | (pl.col("back_step") > pl.col("beyond_step"))
    return (
        pl.when(pl.col("extreme_step") == pl.col("window_last"))
        .then(pl.lit("it is the last checkpoint of the window, so the extreme may lie outside"))
        .when(still & pl.col("beyond_step").is_not_null())
        .then(
            pl.format(
                "it goes on outside the window, to {} at step {}, before it is half way back",
                pl.col("farthest_value").map_elements(lambda value: f"{value:.4g}", return_dtype=pl.String),
                "farthest_step",
            )
        )
    )


def _events(rows: pl.DataFrame, protocol: Protocol, event: str) -> pl.DataFrame:
    """Return rows of ``EVENT_COLUMNS``; what was not found, at the edge or within, has no step and no value."""
    found = pl.col("status").is_in([FOUND, AT_EDGE])
    depth = pl.when(found & (pl.col("first_value") != 0) & (pl.col("kind") == MINIMUM)).then(
        pl.col("extreme_value") / pl.col("first_value")
    )
    halves = event == "half_collapse"
    threshold = pl.when((pl.col("kind") == MINIMUM) & halves & (pl.col("status") != UNDEFINED)).then("threshold")
    whole = rows.with_columns(
        *(pl.when(found).then(f"event_{name}").alias(name) for name in ("step", "tokens", "value")),
        pl.lit(protocol.name).alias("protocol"),
        pl.lit(event).alias("event"),
        threshold.alias("threshold"),
        depth.alias("relative_depth"),
    )
    return whole.select(pl.col(name).cast(dtype) for name, dtype in EVENT_COLUMNS.items())
