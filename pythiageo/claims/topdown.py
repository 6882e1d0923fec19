"""Top-down, twice: as a profile at one step, as the study scores it, and as propagation in time."""

from __future__ import annotations

import numpy as np
import polars as pl

from pythiageo.claims.evidence import Evidence, counted_events, edge_note
from pythiageo.claims.register import LAYERS, declare
from pythiageo.claims.result import ClaimResult, Specification, judge, leave_undecided, single_ones
from pythiageo.errors import count_noun
from pythiageo.events.trajectory import RUN_KEY
from pythiageo.stats.resampling import MIN_CLUSTERS, both_tails, cluster_interval, kendall_scores, label_orders, upper_p

PROFILE_CLAIM = "training makes the first block lie above the last one when blocks are at their floors"
PROFILE_RULE = (
    "estimate: mean over models and tasks of the share of floors, those of all blocks, at which the first block lies "
    "above the last (a tie half), less the same at the first checkpoint; at the last block's own floor alone it would "
    "lie low by the choice of the step; blocks that change places turn the sign, so the null is 0; supported: its 95% "
    "t interval over models lies above 0; contradicted: below; else not decidable; three models at least"
)
TIME_CLAIM = "the collapse runs from the last layers to the first"
TIME_RULE = (
    "estimate: minus Kendall's tau-b of half-collapse step against depth, mean over tasks, then models (1: the last "
    "layer first); supported: p <= 0.05 when the layers of each model are permuted (all orders up to 7 layers) and the "
    "95% t interval over models above 0; contradicted: the mirror image; else not decidable; three models at least, "
    "since neighbouring layers of one fall alike, which a permutation does not know"
)


@declare("top-down-profile", 4, ("protocol", *LAYERS))
def top_down_profile(evidence: Evidence, specification: Specification) -> ClaimResult:
    """Return first and last block at every block's floor and at the run's first checkpoint.

    ``table``: a row a run and task. ``gain``, which the verdict is on: ``above``, the share of its blocks' floors at
    which the first block lies above the last (a tie half), less ``above_at_start``, the same at the first checkpoint,
    before the training that is to explain it. ``scored`` is the study's: first above last at the last block's own
    floor, a step that is chosen because the last block is low there. ``cases``: a row a run, task and block with a
    floor.
    """
    every = evidence.layers(specification, "transition").filter(pl.col("site").str.ends_with(".hook_resid_post"))
    key = [*RUN_KEY, "task", "level"]
    last = pl.col("layer").max().over(RUN_KEY)
    found = counted_events(every.with_columns(last.alias("last_layer")), specification).filter(pl.col("last_layer") > 0)
    starts = evidence.observations.group_by(RUN_KEY, maintain_order=True).agg(pl.col("step").min().alias("first_step"))
    values = evidence.values(specification).select(*key, "layer", "step", "value")
    cases = found.select(*key, "layer", "last_layer", pl.col("step").alias("floor_step")).join(
        starts, on=RUN_KEY, nulls_equal=True
    )
    for name, layer, step in (
        ("first_at_floor", pl.lit(0, pl.Int32), "floor_step"),
        ("last_at_floor", pl.col("last_layer"), "floor_step"),
        ("first_at_start", pl.lit(0, pl.Int32), "first_step"),
        ("last_at_start", pl.col("last_layer"), "first_step"),
    ):
        place = values.rename({"value": name, "step": step, "layer": "at"})
        cases = cases.with_columns(layer.alias("at")).join(place, on=[*key, "at", step], how="left", nulls_equal=True)
        cases = cases.drop("at")
    cases = (
        cases.with_columns(
            _above("first_at_floor", "last_at_floor").alias("above"),
            _above("first_at_start", "last_at_start").alias("above_at_start"),
        )
        .drop_nulls(["above", "above_at_start"])
        .sort(*key, "layer")
    )
    own = pl.col("layer") == pl.col("last_layer")
    table = cases.group_by(key, maintain_order=True).agg(
        pl.col("floor_step").filter(own).first(),
        pl.col("first_step").first(),
        *(pl.col(name).filter(own).first() for name in ("first_at_floor", "last_at_floor")),
        *(pl.col(name).first() for name in ("first_at_start", "last_at_start")),
        (pl.col("above").filter(own).first() == 1).alias("scored"),
        pl.len().cast(pl.Int64).alias("floors"),
        pl.col("above").mean(),
        pl.col("above_at_start").first(),
    )
    table = table.with_columns((pl.col("above") - pl.col("above_at_start")).alias("gain"))
    if not table.height:
        reason = "no model of two blocks or more has a floor and both its ends"
        return leave_undecided("top-down-profile", PROFILE_CLAIM, PROFILE_RULE, reason, specification, table)
    means = table.group_by(RUN_KEY, maintain_order=True).agg(pl.col("gain").mean())["gain"].to_numpy()
    interval = cluster_interval(means)
    others = cases.filter(~own)
    note = (
        f"as the study scores it: {table['scored'].sum()} of {table['scored'].drop_nulls().len()} in "
        f"{count_noun(means.size, 'model')}; at other blocks' floors: {(others['above'] == 1).sum()} of "
        f"{others.height}; at the first checkpoint: {(table['above_at_start'] == 1).sum()} of {table.height}"
    )
    note = "; ".join([note, *edge_note(every, specification)])
    return ClaimResult(
        "top-down-profile", PROFILE_CLAIM, table, judge(interval, 0.0), PROFILE_RULE, float(means.mean()), interval,
        0.0, None, table.height, note, specification, cases, single_ones(model=means.size),
    )  # fmt: skip


def _above(first: str, last: str) -> pl.Expr:
    return pl.when(pl.col(first) == pl.col(last)).then(0.5).otherwise((pl.col(first) > pl.col(last)).cast(pl.Float64))


@declare("top-down-in-time", 5, ("protocol", *LAYERS))
def top_down_propagation(evidence: Evidence, specification: Specification) -> ClaimResult:
    """Return Kendall's tau-b of half-collapse step against depth, a row a run and task.

    ``p_earlier_below``: share of the orders of the layers with at most this tau, so small where later layers fall
    first. Only layers with a half-collapse count. All tasks of a model are permuted alike: the layers are the cases,
    not the tasks. The null is that the layers of a model are exchangeable: with fewer than three models it decides
    nothing, for layers that are next to one another fall alike.
    """
    every = evidence.layers(specification, "half_collapse").filter(pl.col("site").str.ends_with(".hook_resid_post"))
    steps = counted_events(every, specification)
    rng = np.random.default_rng(specification.seed)
    rows, drawn_models, exact_all = [], [], True
    for run in steps.sort(*RUN_KEY, "task", "layer").partition_by(RUN_KEY, maintain_order=True):
        layers = run["layer"].unique().sort().to_numpy()
        parts = [
            part
            for part in run.partition_by(["task", "level"], maintain_order=True)
            if part.height == layers.size and layers.size > 1
        ]
        if not parts:
            continue
        orders, exact = label_orders(layers.size, specification.resamples, rng)
        exact_all &= exact
        drawn = np.array([kendall_scores(layers, part["step"].to_numpy(), orders) for part in parts])
        drawn_models.append(-drawn.mean(axis=0))
        for part, taus in zip(parts, drawn, strict=True):
            low, high = part["step"].min(), part["step"].max()
            of = part.select(*RUN_KEY, "task", "level").row(0)
            tau = float(taus[0])
            rows.append([*of, layers.size, part["step"].n_unique(), low, high, tau, upper_p(-taus, -tau)])
    schema = {name: steps.schema[name] for name in (*RUN_KEY, "task", "level")} | {
        "layers": pl.Int64(), "distinct_steps": pl.Int64(), "first_step": pl.Int64(), "last_step": pl.Int64(),
        "tau": pl.Float64(), "p_earlier_below": pl.Float64(),
    }  # fmt: skip
    table = pl.DataFrame(rows, schema=schema, orient="row")
    if not drawn_models:
        reason = "no model has the half-collapse step of two layers or more"
        return leave_undecided("top-down-in-time", TIME_CLAIM, TIME_RULE, reason, specification, table)
    means = np.array([drawn[0] for drawn in drawn_models])
    estimate = float(means.mean())
    p, p_below = _joint(drawn_models, estimate, specification.resamples, rng)
    interval = cluster_interval(means)
    verdict = judge(interval, 0.0, p, p_below)
    ties = table.filter(pl.col("distinct_steps") < pl.col("layers")).height
    notes = [f"{ties} of {table.height} cases have layers that fall at the same checkpoint"] if ties else []
    if means.size < MIN_CLUSTERS:
        notes.append(
            f"{count_noun(means.size, 'model')}, and neighbouring layers of a model are not independent cases, as p "
            f"takes them to be; {MIN_CLUSTERS} models are needed"
        )
    notes += edge_note(every, specification)
    return ClaimResult(
        "top-down-in-time", TIME_CLAIM, table, verdict, TIME_RULE, estimate, interval, 0.0, p, table.height,
        "; ".join(notes) or None, specification, rests_on=single_ones(model=means.size),
    )  # fmt: skip


def _joint(drawn: list[np.ndarray], observed: float, resamples: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return both one-sided p of the mean over models, each model's layers permuted on their own."""
    if len(drawn) == 1:
        together = drawn[0]
    else:
        picks = [one[rng.integers(0, one.size, resamples)] for one in drawn]
        together = np.append(np.mean(picks, axis=0), observed)
    return both_tails(together, observed)
