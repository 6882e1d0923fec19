"""What a run shows, in sentences made from its events."""

from __future__ import annotations

import polars as pl

from pythiageo.events import get_protocol
from pythiageo.events.run import Run
from pythiageo.names import COVARIANCE_RANK, FINAL_LN, LAST_BLOCK, RANKME
from pythiageo.observations.dominated import count_dominated
from pythiageo.observations.measures import rank_measures
from pythiageo.report.words import format_number, measure_title, readout_title


def findings(run: Run) -> list[str]:
    """Return the sentences of a run: acquisition, collapse and recovery, what dominates ranks, and what is missing."""
    events = run.shown_events()
    return [*_acquisition(events), *_collapse(run, events), *_dominated(run), *_gaps(run)]


def _of(events: pl.DataFrame, protocol: str, event: str) -> pl.DataFrame:
    return events.filter((pl.col("protocol") == protocol) & (pl.col("event") == event))


def _acquisition(events: pl.DataFrame) -> list[str]:
    rows = _of(events, "billa-v4", "acquisition")
    if not rows.height:
        return ["No accuracy was measured, so nothing can be said about acquisition."]
    if (rows["status"] == "undefined").all():
        return [f"Acquisition cannot be read from this run: {rows['reason'][0]}."]
    corrected = _of(events, "pythiageo", "acquisition")
    fair = f"corrected for chance (pythiageo), {_found(corrected).height} of {corrected.height}"
    found = _found(rows).sort("step", "task", "level")
    if not found.height:
        return [f"None of {rows.height} tasks and levels reaches acquisition under billa-v4; {fair}."]
    first, last = found.row(0, named=True), found.row(-1, named=True)
    return [
        f"{found.height} of {rows.height} tasks and levels are acquired under billa-v4, "
        f"the first {_where(first)}, the last {_where(last)}; {fair}."
    ]


def _found(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col("status") == "found")


def _counted(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the events under billa-v4 that count, at the edge of its window or within."""
    return rows.filter(pl.col("status").is_in(get_protocol("billa-v4").counted))


def _where(row: dict[str, object]) -> str:
    return f"{row['task']} {row['level']} at step {row['step']:,}"


def _collapse(run: Run, events: pl.DataFrame) -> list[str]:
    floors = _of(events, "billa-v4", "floor")
    if not floors.height:
        ranks = run.distinct.filter(pl.col("measure").is_in(rank_measures()))["measure"].unique().sort().to_list()
        if not ranks:
            return ["No rank measure was taken, so nothing can be said about collapse."]
        return [f"Of the ranks that were taken ({', '.join(ranks)}) no floor can be read: none has a task and a site."]
    name, where = describe_rank(run), describe_site(run)
    name = name[0].upper() + name[1:]
    found = _counted(floors).drop_nulls("relative_depth").sort("relative_depth", "task")
    if not found.height:
        return [f"A floor cannot be read from this run ({name} {where}): {floors['reason'][0]}."]
    row = found.row(0, named=True)
    if row["relative_depth"] >= 1:
        return [f"{name} {where} falls for no task: every one is lowest at the first checkpoint."]
    recovered = _counted(_of(events, "billa-v4", "recovery")).height
    share = f"{100 * row['relative_depth']:.0f}% of its value at the first checkpoint"
    note = f" ({row['reason']})" if row["reason"] else ""
    return [
        f"{name} {where} ({readout_title(run.place.readout)}) falls furthest for {row['task']}: "
        f"to {format_number(row['value'])} at step {row['step']:,}, {share}{note}; "
        f"{recovered} of {floors.height} tasks recover to more than half of their fall."
    ]


def describe_rank(run: Run) -> str:
    """Return the name of the rank that a run shows."""
    spectrum = {COVARIANCE_RANK: " (σ²)", RANKME: " (σ)"}
    return measure_title(run.place.measure) + spectrum.get(run.place.measure, "")


def describe_site(run: Run) -> str:
    """Return in words where a run's floors are read."""
    words = {LAST_BLOCK: "after the last block", FINAL_LN: "after the final LayerNorm"}
    return words.get(run.place.site, f"at {run.place.site}")


def _dominated(run: Run) -> list[str]:
    """Say which readouts have ranks that sinks or one direction make, and where."""
    sentences = []
    for row in count_dominated(run.distinct).iter_rows(named=True):
        sites = "1 site" if row["sites"] == 1 else f"{row['sites']} sites"
        first, last = f"{row['first_step']:,}", f"{row['last_step']:,}"
        place = f"step {first}, {sites}" if first == last else f"steps {first} to {last}, {sites}"
        ranks = f"{row['dominated']:,} of {row['of']:,} ranks of {readout_title(row['readout'])}"
        sentences.append(
            f"{ranks} are of matrices that {row['by']} "
            f"{'dominate' if row['by'].endswith('s') else 'dominates'} ({place}): they say little of all other states."
        )
    return sentences


def _gaps(run: Run) -> list[str]:
    bad = run.observations.filter(pl.col("status") != "ok")
    repeated = run.observations["step"].n_unique() - run.distinct["step"].n_unique()
    sentences = []
    if bad.height:
        sentences.append(
            f"{bad.height:,} of {run.observations.height:,} observations have no value "
            f"(steps affected: {bad['step'].n_unique()}); the reasons are listed below."
        )
    if repeated:
        sentences.append(f"Checkpoints that repeat the weights of an earlier one and are left out: {repeated}.")
    return sentences
