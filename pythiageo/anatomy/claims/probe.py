"""Probe against behaviour: does a linear probe know the answer before the model says it, like for like?"""

from __future__ import annotations

import polars as pl

from pythiageo.anatomy.claims.evidence import Evidence
from pythiageo.anatomy.claims.resampling import cluster_interval
from pythiageo.anatomy.claims.result import ClaimResult, Specification, counted, judge, undecided
from pythiageo.anatomy.events import FOUND
from pythiageo.anatomy.trajectory import RUN_KEY

CLAIM = "at the last checkpoint before acquisition the probe is right more often than the model, per token"
RULE = (
    "estimate: mean over models of the mean over tasks of linear_probe - linear_probe_model (next token, same "
    "held-out positions); supported: its 95% t interval over models lies above 0; contradicted: below; else not "
    "decidable"
)
MEASURES = ("linear_probe", "linear_probe_model", "linear_probe_control", "linear_probe_majority")


def probe(evidence: Evidence, specification: Specification) -> ClaimResult:
    """Return probe and behaviour at the last checkpoint before acquisition, a row a run, task and level.

    ``per_token`` compares like with like: ``linear_probe - linear_probe_model``. ``unlike`` is the study's comparison,
    the probe's share of tokens less the model's share of whole answers (``accuracy``), which more tokens an answer
    enlarge by themselves. ``answer_tokenwise``: the model's next-token share less its whole-answer share, that very
    gap. A probe is not scored by whole answers, so that like for like there is the model's side alone.
    """
    key = [*RUN_KEY, "task"]
    rows = evidence.observations.filter(pl.col("measure").is_in([*MEASURES, "accuracy"]))
    if not rows.filter(pl.col("measure") == "linear_probe").height:
        return undecided("probe", CLAIM, RULE, "no linear probe was fitted", specification)
    acquired = evidence.acquisitions(specification).filter(pl.col("status") == FOUND)
    probed = rows.filter(pl.col("measure") == "linear_probe").select(*key, "step").unique()
    before = (
        acquired.select(*key, "level", pl.col("step").alias("acquired"))
        .join(probed, on=key, nulls_equal=True)
        .filter(pl.col("step") < pl.col("acquired"))
        .group_by(*key, "level", "acquired")
        .agg(pl.col("step").max())
    )
    table = before
    for measure in MEASURES:
        some = rows.filter(pl.col("measure") == measure)
        if measure in ("linear_probe", "linear_probe_control"):
            last = pl.col("layer").max().over(RUN_KEY)
            some = some.filter((pl.col("layer") == last) & pl.col("site").str.ends_with(".hook_resid_post"))
        # the probe set is that of geometry: all levels mixed
        values = some.group_by(*key, "step").agg(pl.col("value").first().alias(measure))
        table = table.join(values, on=[*key, "step"], how="left", nulls_equal=True)
    exact = rows.filter(pl.col("measure") == "accuracy").select(*key, "level", "step", "value")
    table = (
        table.join(exact.rename({"value": "accuracy"}), on=[*key, "level", "step"], how="left", nulls_equal=True)
        .with_columns(
            (pl.col("linear_probe") - pl.col("linear_probe_model")).alias("per_token"),
            (pl.col("linear_probe") - pl.col("accuracy")).alias("unlike"),
            (pl.col("linear_probe_model") - pl.col("accuracy")).alias("answer_tokenwise"),
        )
        .sort(*key, "level")
    )
    known = table.drop_nulls("per_token").unique([*key, "step"])
    if not known.height:
        reason = "no probe beside the model's next-token score before an acquisition"
        return undecided("probe", CLAIM, RULE, reason, specification, table)
    means = known.group_by(RUN_KEY).agg(pl.col("per_token").mean())["per_token"].to_numpy()
    interval = cluster_interval(means)
    unlike = table["unlike"].drop_nulls().to_numpy()
    note = f"as the study compares (tokens with whole answers) the gap is {unlike.mean():.2f}" if unlike.size else None
    few = None if interval else counted(means.size, "model")
    return ClaimResult(
        "probe", CLAIM, table, judge(interval, 0.0), RULE, float(means.mean()), interval, 0.0, None, known.height,
        "; ".join(each for each in (few, note) if each) or None, specification,
    )  # fmt: skip
