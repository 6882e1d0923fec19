"""Every claim, and the specification curve: each claim under every definition that it depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import polars as pl

from pythiageo.claims.evidence import Evidence
from pythiageo.claims.register import claims
from pythiageo.claims.result import (
    CONTRADICTED,
    NOT_DECIDABLE,
    SUPPORTED,
    TIES,
    ClaimResult,
    Specification,
    leave_undecided,
    summary_table,
)
from pythiageo.errors import UserError, nearest
from pythiageo.names import FINAL_LN, FINAL_NORM, LAST_BLOCK
from pythiageo.observations import Manifest
from pythiageo.observations.measures import rank_measures
from pythiageo.study.protocols import PROTOCOLS
from pythiageo.study.tasks import TASKS as STUDY_TASKS

CURVE_RESAMPLES = 199
"""A curve asks the same claim hundreds of times; p is then a multiple of 1/200."""


SHARE_COLUMNS: dict[str, pl.DataType] = {
    "name": pl.String(), "specifications": pl.Int64(), "estimated": pl.Int64(), SUPPORTED: pl.Int64(),
    CONTRADICTED: pl.Int64(), NOT_DECIDABLE: pl.Int64(), "share_supported": pl.Float64(),
    "share_contradicted": pl.Float64(), "lowest": pl.Float64(), "median": pl.Float64(), "highest": pl.Float64(),
}  # fmt: skip


def all_claims(
    observations: pl.DataFrame | Evidence,
    specification: Specification | None = None,
    families: Sequence[str] | None = None,
) -> list[ClaimResult]:
    """Return the results of the claims of these families (all if ``None``) under one specification.

    Raises:
        UserError: an unknown family; or a readout or site that the table does not hold.
    """
    evidence = observations if isinstance(observations, Evidence) else Evidence(observations)
    asked = specification or Specification()
    return [result for name in check_families(families) for result in claims()[name].ask(evidence, asked)]


def specification_curve(
    observations: pl.DataFrame | Evidence,
    base: Specification | None = None,
    families: Sequence[str] | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> pl.DataFrame:
    """Return every claim under every combination of what it depends on (columns: ``SUMMARY_COLUMNS``).

    Protocols, acquisition by accuracy and by half the log-probability, rank measures, readouts and sites that the
    table holds, when a measure leads (v1 by checkpoints and by steps, v4, ours with k = 1 and 3), rules for ties. A
    field that a claim does not depend on stays as in ``base``. In order of the estimate within a claim. ``progress``
    is called with each family's name and its count of specifications before it is asked.
    """
    evidence = observations if isinstance(observations, Evidence) else Evidence(observations)
    start = replace(base or Specification(), resamples=CURVE_RESAMPLES)
    results: list[ClaimResult] = []
    for name in check_families(families):
        grid = list(_grid(claims()[name].depends, evidence, start))
        if progress:
            progress(name, len(grid))
        for asked in grid:
            results += claims()[name].ask(evidence, asked, in_curve=True)
    return summary_table(results).sort("name", "estimate", nulls_last=True, maintain_order=True)


def holding_shares(curve: pl.DataFrame) -> pl.DataFrame:
    """Return, a row a claim, under how many specifications it is supported, contradicted or not decidable.

    ``share_supported`` is over all specifications, those without an estimate too. ``lowest``, ``median`` and
    ``highest`` are of the estimates.
    """
    counts = [(pl.col("verdict") == word).sum().alias(word) for word in (SUPPORTED, CONTRADICTED, NOT_DECIDABLE)]
    table = curve.group_by("name", maintain_order=True).agg(
        pl.len().alias("specifications"),
        pl.col("estimate").is_not_null().sum().alias("estimated"),
        *counts,
        (pl.col("verdict") == SUPPORTED).mean().alias("share_supported"),
        (pl.col("verdict") == CONTRADICTED).mean().alias("share_contradicted"),
        pl.col("estimate").min().alias("lowest"),
        pl.col("estimate").median().alias("median"),
        pl.col("estimate").max().alias("highest"),
    )
    return table.select(pl.col(name).cast(dtype) for name, dtype in SHARE_COLUMNS.items())


def ask_each(observations: pl.DataFrame | Evidence, specification: Specification | None = None) -> list[ClaimResult]:
    """Return the results of all claims; one that this table cannot be asked is not decidable, and its reason says why.

    Such as a table without rank measures or without the readout, or runs that were not asked the same questions.
    """
    asked = specification or Specification()
    results: list[ClaimResult] = []
    try:
        evidence = observations if isinstance(observations, Evidence) else Evidence(observations)
    except UserError as error:
        return leave_all_undecided(str(error), asked)
    for name in claims():
        try:
            results += all_claims(evidence, asked, [name])
        except UserError as error:
            results.append(leave_undecided(name, name, "", str(error), asked))
    return results


def leave_all_undecided(reason: str, asked: Specification) -> list[ClaimResult]:
    """Return every claim, not decidable for one reason."""
    return [leave_undecided(name, name, "", reason, asked) for name in claims()]


def trained_tasks(manifest: Manifest) -> tuple[str, ...] | None:
    """Return the tasks a run's manifest says it was trained on; ``None`` where that cannot be said.

    A run on tasks, or on a mixture, names them, or names none and means the study's eight; those with shuffled answers
    were not trained. Running text contains what it contains, and a model of others was trained on what they know.
    """
    data = manifest.settings("data")
    if data.get("source") not in ("tasks", "mix"):
        return None
    named, shuffled = data.get("tasks"), data.get("shuffled")
    tasks = tuple(str(task) for task in named) if isinstance(named, list) and named else STUDY_TASKS
    return tuple(task for task in tasks if not isinstance(shuffled, list) or task not in shuffled)


def check_families(families: Sequence[str] | None) -> list[str]:
    """Return the names of the claims asked for, all if ``None``.

    Raises:
        UserError: there is no such claim.
    """
    known = claims()
    for name in families or ():
        if name not in known:
            raise UserError(f"no claim {name!r}{nearest(name, known)}; there are {', '.join(known)}.")
    return list(known if families is None else dict.fromkeys(families))


def _grid(depends: tuple[str, ...], evidence: Evidence, base: Specification) -> Iterator[Specification]:
    """Yield ``base`` with every combination of the fields; of equal definitions (v1 has no log-probability) one."""
    choices: list[list[dict[str, Any]]] = []
    if "event" in depends:
        events = ("acquisition", "log_prob_acquisition")
        choices.append(
            [
                {"protocol": name, "event": event}
                for name, protocol in PROTOCOLS.items()
                for event in events
                # the log-probability is that of billa-v4 wherever there is one; only accuracy is corrected for chance
                if event == "acquisition" or (protocol.log_prob_shares and name != "pythiageo")
            ]
        )
    elif "protocol" in depends:
        choices.append([{"protocol": name} for name in PROTOCOLS])
    if "measure" in depends:
        taken = evidence.observations.filter(pl.col("measure").is_in(rank_measures()))
        places = taken.select("measure", "readout").unique().sort("measure", "readout")
        sites = [LAST_BLOCK, FINAL_LN] if (taken["site"] == FINAL_NORM).any() else [LAST_BLOCK]
        pairs = [{"measure": measure, "readout": readout} for measure, readout in places.iter_rows()]
        choices.append(pairs or [{}])
        if "site" in depends:
            choices.append([{"site": site} for site in sites])
    if "rule" in depends:
        v1 = [{"rule": "v1", "axis": axis} for axis in ("checkpoints", "steps")]
        choices.append([*v1, {"rule": "v4"}, {"rule": "ours", "k": 1}, {"rule": "ours", "k": 3}])
    if "ties" in depends:
        choices.append([{"ties": ties} for ties in TIES])
    for combination in product(*choices):
        yield replace(base, **{key: value for part in combination for key, value in part.items()})
