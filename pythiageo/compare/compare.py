"""Runs side by side: their events, the observations both have, and what only one of them has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import polars as pl

from pythiageo.claims import Specification
from pythiageo.compare.alignment import Align, checkpoint_pairs
from pythiageo.compare.claims import claims_by_run
from pythiageo.compare.dose import dose_response
from pythiageo.compare.warnings import pair_warnings, probe_mismatches
from pythiageo.durable_files import replace_file
from pythiageo.errors import UserError
from pythiageo.events import PROTOCOLS, Place, Run, events
from pythiageo.events.questions import other_questions
from pythiageo.events.run import common_place
from pythiageo.events.trajectory import depth_of
from pythiageo.locations import make_folder
from pythiageo.names import FINAL_LN, FINAL_NORM, LAST_BLOCK
from pythiageo.observations import write_table
from pythiageo.observations.measures import rank_measures
from pythiageo.untrusted_text import escaped

PLACE = ["task", "level", "place", "readout", "measure"]
"""What must be equal for two observations to be of the same thing; ``place`` is a hook name where the
models are equally deep, else ``last-block`` or ``final-ln``, and null for a score."""

_IS_RANK = pl.col("measure").is_in(rank_measures())
_KEPT = "the tables written before are whole"

ALIGNED_SCHEMA: dict[str, pl.DataType] = {
    "run_a": pl.String(),
    "run_b": pl.String(),
    "regime_a": pl.String(),
    "regime_b": pl.String(),
    **{name: pl.String() for name in PLACE},
    "layer_a": pl.Int32(),
    "layer_b": pl.Int32(),
    "step": pl.Int64(),
    "step_b": pl.Int64(),
    "apart": pl.Float64(),
    "tokens_a": pl.Int64(),
    "tokens_b": pl.Int64(),
    "value_a": pl.Float64(),
    "value_b": pl.Float64(),
    "difference": pl.Float64(),
    "ratio": pl.Float64(),
}
MISSING_SCHEMA: dict[str, pl.DataType] = {
    "run": pl.String(),
    "not_in": pl.String(),
    **{name: pl.String() for name in PLACE},
    "why": pl.String(),
    "count": pl.Int64(),
    "first_step": pl.Int64(),
    "last_step": pl.Int64(),
}


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` found.

    Attributes:
        events: events of all runs under all protocols asked for (columns: ``events.EVENT_COLUMNS``).
        aligned: one row an observation that both runs of a pair have, ``ok`` in both (columns:
            ``ALIGNED_SCHEMA``). ``step`` is a's checkpoint and ``step_b`` b's, ``apart`` how far from one another they
            are (see ``checkpoint_pairs``). ``difference`` is ``value_b - value_a``; ``ratio`` is ``value_b /
            value_a``, null unless both are positive.
        missing: ``ok`` observations of one run that the other lacks, counted over steps (columns:
            ``MISSING_SCHEMA``).
        dose: acquisition and floor by the share of task examples trained on (see ``dose_response``).
        claims: each of the study's claims asked of each run by itself (see ``claims_by_run``).
        warnings: sentences on what makes the runs less comparable than they look.
        place: measure, readout and site of the floors.
    """

    events: pl.DataFrame
    aligned: pl.DataFrame
    missing: pl.DataFrame
    dose: pl.DataFrame
    claims: pl.DataFrame
    warnings: list[str]
    place: Place


def compare(
    runs: Sequence[Run],
    protocols: Sequence[str] = tuple(PROTOCOLS),
    readout: str | None = None,
    measure: str | None = None,
    site: str | None = None,
    align: Align = "steps",
) -> Comparison:
    """Compare two or more runs.

    Observations are aligned for every pair of runs of different regimes (of any two runs, where all are of
    one regime), at equal task, level, place, readout and measure, and at checkpoints that ``align`` pairs. Tasks whose
    probe sets differ are not aligned.

    Args:
        runs: the runs; their manifests serve for warnings on device, dtype and processing, and say which tasks were
            trained on.
        protocols: names of the protocols for the events.
        readout, measure, site: where floors are read, and what claims are asked of; ``None``: whichever rank most runs
            have (``common_place``).
        align: checkpoints at equal ``steps``, or nearest in ``tokens`` or in the ``fraction`` of planned training.

    Raises:
        UserError: fewer than two runs, two runs of one name, an unknown protocol, or a run that does not say its tokens
            or the length of its training.
    """
    names = [run.label for run in runs]
    if len(runs) < 2:
        raise UserError(f"a comparison needs at least two runs, got {len(runs)}.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two runs are called {twice[0]!r}: a comparison needs different names.")
    warnings: list[str] = []
    place = common_place(runs, measure, readout, site)
    found = []
    for run in runs:
        without_floors = _lacks(run.distinct, place)
        if without_floors:
            where = "" if place.site == LAST_BLOCK else f" at {place.site}"
            warnings.append(
                f"run {run.label} has no {place.measure} under {place.readout}{where}, so it has no floors here."
            )
        kept = run.distinct.filter(~_IS_RANK) if without_floors else run.distinct
        found += [events(kept, protocol, place.readout, place.measure, place.site) for protocol in protocols]
    aligned, missing = [], []
    for a, b in _pairs(runs, warnings):
        warnings += pair_warnings(a, b)
        left, right = _placed(a.distinct, b.distinct)
        pairs = checkpoint_pairs(a, b, align)
        warnings += _unpaired(a, b, pairs, align)
        aligned.append(_aligned(left, right, pairs))
        other = pairs.select(pl.col("step_b").alias("step"), pl.col("step").alias("step_b"), "apart")
        missing += [_missing(left, right, b.label, pairs), _missing(right, left, a.label, other)]
    # events and doses of runs of one regime stand side by side too, and of no pair was it said above
    regimes = sorted({run.regime for run in runs})
    for regime in regimes if len(regimes) > 1 else ():
        if differ := other_questions(pl.concat([run.distinct for run in runs if run.regime == regime])):
            warnings.append(f"{differ}: events that stand side by side are of other questions there.")
    all_events = pl.concat(found)
    return Comparison(
        all_events,
        pl.concat([pl.DataFrame(schema=ALIGNED_SCHEMA), *aligned]),
        pl.concat([pl.DataFrame(schema=MISSING_SCHEMA), *missing]),
        dose_response(all_events),
        claims_by_run(runs, Specification(measure=place.measure, site=place.site), readout),
        list(dict.fromkeys(warnings)),
        place,
    )


def write_comparison(comparison: Comparison, out_dir: Path) -> list[Path]:
    """Write ``events.csv``, ``aligned.csv``, ``missing.csv``, ``claims.csv`` and ``warnings.json``; return the paths.

    Where the runs' regimes are of three doses or more, ``dose.csv`` too.

    Raises:
        UserError: the folder cannot be made or written to.
        MachineError: a file could not be written.
    """
    out_dir = make_folder(Path(out_dir))
    frames = {name: getattr(comparison, name) for name in ("events", "aligned", "missing", "claims")}
    frames |= {"dose": comparison.dose} if comparison.dose.height else {}
    paths = [write_table(frame, out_dir / f"{name}.csv", "csv") for name, frame in frames.items()]
    warnings = out_dir / "warnings.json"
    text = escaped(json.dumps(comparison.warnings, ensure_ascii=False, indent=1))
    replace_file(warnings, f"{text}\n".encode(), _KEPT)
    return [*paths, warnings]


def _lacks(run: pl.DataFrame, place: Place) -> bool:
    """Return whether a run has geometry, and none at this place."""
    ranks = run.filter(_IS_RANK)
    asked = (pl.col("readout") == place.readout) & (pl.col("measure") == place.measure)
    if place.site not in {LAST_BLOCK, FINAL_LN}:
        asked &= pl.col("site") == place.site
    return ranks.height > 0 and ranks.filter(asked).height == 0


def _pairs(runs: Sequence[Run], warnings: list[str]) -> Iterator[tuple[Run, Run]]:
    one_regime = len({run.regime for run in runs}) == 1
    if one_regime:
        warnings.append(f"all runs are {runs[0].regime}; every two of them are aligned, and no regimes are compared.")
    for a, b in combinations(runs, 2):
        if one_regime or a.regime != b.regime:
            # task-aligned stands on the left in every table
            yield (b, a) if a.regime < b.regime else (a, b)


def _placed(a: pl.DataFrame, b: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return both tables with a ``place`` column, without tasks whose probe sets differ."""
    depth_a, depth_b = depth_of(a), depth_of(b)
    mismatched = probe_mismatches(a, b).select("task", "level")
    tables = []
    for table, depth in ((a, depth_a), (b, depth_b)):
        kept = table.join(mismatched, on=["task", "level"], how="anti", nulls_equal=True)
        if depth_a != depth_b:
            last = (pl.col("layer") == (depth or 0) - 1) & pl.col("site").str.ends_with(".hook_resid_post")
            place = pl.when(pl.col("site") == FINAL_NORM).then(pl.lit(FINAL_LN)).when(last).then(pl.lit(LAST_BLOCK))
            kept = kept.with_columns(place.otherwise(None).alias("place"))
            kept = kept.filter(pl.col("site").is_null() | pl.col("place").is_not_null())
        else:
            kept = kept.with_columns(pl.col("site").alias("place"))
        tables.append(kept)
    return tables[0], tables[1]


def _unpaired(a: Run, b: Run, pairs: pl.DataFrame, align: Align) -> list[str]:
    """Say how many checkpoints stand alone where they were paired by something else than their steps."""
    if align == "steps":
        return []
    first, second = (f"{run.label} ({run.distinct['step'].n_unique()})" for run in (a, b))
    return [
        f"by {align}, {pairs.height} checkpoints of {first} and {second} are pairs, "
        f"{max(pairs['apart'].to_list(), default=0.0):.2%} apart at most."
    ]


def _aligned(a: pl.DataFrame, b: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    columns = ["run", "regime", "layer", "tokens", "value"]
    ok = pl.col("status") == "ok"
    left = a.filter(ok).select(*PLACE, "step", *(pl.col(name).alias(f"{name}_a") for name in columns))
    right = b.filter(ok).select(*PLACE, *(pl.col(name).alias(f"{name}_b") for name in ("step", *columns)))
    paired = left.join(pairs, on="step", how="inner", maintain_order="left")
    both = paired.join(right, on=[*PLACE, "step_b"], how="inner", nulls_equal=True, maintain_order="left")
    positive = (pl.col("value_a") > 0) & (pl.col("value_b") > 0)
    return both.with_columns(
        (pl.col("value_b") - pl.col("value_a")).alias("difference"),
        pl.when(positive).then(pl.col("value_b") / pl.col("value_a")).alias("ratio"),
    ).select(pl.col(name).cast(dtype) for name, dtype in ALIGNED_SCHEMA.items())


def _missing(a: pl.DataFrame, b: pl.DataFrame, other: str, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return what is ``ok`` in ``a`` and not in ``b`` at the checkpoint it is paired with, or at none."""
    key = [*PLACE, "step_b"]
    there = b.select(*PLACE, pl.col("step").alias("step_b"), pl.col("status").alias("why"))
    absent = (
        a.filter(pl.col("status") == "ok")
        .join(pairs, on="step", how="left", maintain_order="left")
        .join(there, on=key, how="left", nulls_equal=True, maintain_order="left")
        .filter((pl.col("why") != "ok") | pl.col("why").is_null())
        .with_columns(pl.col("why").fill_null("not measured"), pl.lit(other).alias("not_in"))
    )
    counted = absent.group_by("run", "not_in", *PLACE, "why", maintain_order=True).agg(
        pl.len().alias("count"),
        pl.col("step").min().alias("first_step"),
        pl.col("step").max().alias("last_step"),
    )
    return counted.select(pl.col(name).cast(dtype) for name, dtype in MISSING_SCHEMA.items())
