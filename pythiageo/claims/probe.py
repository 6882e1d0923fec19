"""Probe against behaviour: does a linear probe know the answer before the model says it, like for like?"""

from __future__ import annotations

import polars as pl

from pythiageo.claims.evidence import Evidence
from pythiageo.claims.register import EVENT, declare
from pythiageo.claims.result import ClaimResult, Specification, judge, leave_undecided
from pythiageo.errors import count_noun
from pythiageo.events.find import FOUND
from pythiageo.events.trajectory import RUN_KEY
from pythiageo.stats.resampling import cluster_interval

CLAIM = "at the last checkpoint before acquisition the probe is right more often than the model, {}"
RULE = (
    "estimate: mean over models of the mean over tasks of {} - {} ({}); supported: its 95% t interval over models lies "
    "above 0; contradicted: below; else not decidable"
)
PER = {
    "probe": ("per token", "linear_probe", "linear_probe_model", "next token, same held-out positions"),
    "probe-answer": (
        "per answer",
        "linear_probe_answer",
        "linear_probe_answer_model",
        "every token of an answer, same held-out examples",
    ),
}
"""The claims: what is counted, the probe's measure and the model's, and of what they are."""
AT_SITES = ("linear_probe", "linear_probe_answer", "linear_probe_control")
MEASURES = (*AT_SITES, "linear_probe_model", "linear_probe_answer_model", "linear_probe_majority")


@declare("probe", 11, EVENT)
def probe(evidence: Evidence, specification: Specification) -> list[ClaimResult]:
    """Return probe and behaviour at the last checkpoint before acquisition, a row a run, task and level: two claims.

    Like for like, with the right answer fed to both: ``per_token`` is ``linear_probe - linear_probe_model``,
    ``per_answer`` is ``linear_probe_answer - linear_probe_answer_model``. ``unlike`` is the study's comparison, the
    probe's share of tokens less the model's share of whole answers (``accuracy``), which more tokens an answer enlarge
    by themselves. ``answer_tokenwise``: the model's next-token share less its whole-answer share, that very gap.
    """
    key = [*RUN_KEY, "task"]
    rows = evidence.observations.filter(pl.col("measure").is_in([*MEASURES, "accuracy"]))
    if not rows.filter(pl.col("measure") == "linear_probe").height:
        return [_undecided(name, "no linear probe was fitted", specification) for name in PER]
    acquired = evidence.acquisitions(specification).filter(pl.col("status") == FOUND)
    probed = rows.filter(pl.col("measure") == "linear_probe").select(*key, "step").unique()
    table = (
        acquired.select(*key, "level", pl.col("step").alias("acquired"))
        .join(probed, on=key, nulls_equal=True)
        .filter(pl.col("step") < pl.col("acquired"))
        .group_by(*key, "level", "acquired", maintain_order=True)
        .agg(pl.col("step").max())
    )
    for measure in MEASURES:
        some = rows.filter(pl.col("measure") == measure)
        if measure in AT_SITES:
            last = pl.col("layer").max().over(RUN_KEY)
            some = some.filter((pl.col("layer") == last) & pl.col("site").str.ends_with(".hook_resid_post"))
        # the probe set is that of geometry: all levels mixed
        values = some.group_by(*key, "step", maintain_order=True).agg(pl.col("value").first().alias(measure))
        table = table.join(values, on=[*key, "step"], how="left", nulls_equal=True)
    exact = rows.filter(pl.col("measure") == "accuracy").select(*key, "level", "step", "value")
    table = (
        table.join(exact.rename({"value": "accuracy"}), on=[*key, "level", "step"], how="left", nulls_equal=True)
        .with_columns(
            (pl.col("linear_probe") - pl.col("linear_probe_model")).alias("per_token"),
            (pl.col("linear_probe_answer") - pl.col("linear_probe_answer_model")).alias("per_answer"),
            (pl.col("linear_probe") - pl.col("accuracy")).alias("unlike"),
            (pl.col("linear_probe_model") - pl.col("accuracy")).alias("answer_tokenwise"),
        )
        .sort(*key, "level")
    )
    return [_answer(name, table, specification) for name in PER]


def _answer(name: str, table: pl.DataFrame, specification: Specification) -> ClaimResult:
    word, ours, theirs, what = PER[name]
    gap = word.replace(" ", "_")
    known = table.drop_nulls(gap).unique([*RUN_KEY, "task", "step"])
    if not known.height:
        reason = f"no {ours} beside {theirs} before an acquisition"
        return _undecided(name, reason, specification, table)
    means = known.group_by(RUN_KEY, maintain_order=True).agg(pl.col(gap).mean())[gap].to_numpy()
    interval = cluster_interval(means)
    notes = [] if interval else [count_noun(means.size, "model")]
    unlike = table["unlike"].drop_nulls().to_numpy()
    if unlike.size and name == "probe":
        notes.append(f"as the study compares (tokens with whole answers) the gap is {unlike.mean():.2f}")
    return ClaimResult(
        name, CLAIM.format(word), table, judge(interval, 0.0), RULE.format(ours, theirs, what), float(means.mean()),
        interval, 0.0, None, known.height, "; ".join(notes) or None, specification,
    )  # fmt: skip


def _undecided(name: str, reason: str, specification: Specification, table: pl.DataFrame | None = None) -> ClaimResult:
    word, ours, theirs, what = PER[name]
    return leave_undecided(name, CLAIM.format(word), RULE.format(ours, theirs, what), reason, specification, table)
