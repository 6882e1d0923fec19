"""Look-ups that several of the paper's figures share: trajectories, events and what a run lacks."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from pythiageo.events import AT_EDGE, PROTOCOLS
from pythiageo.events.run import Run
from pythiageo.names import BLOCK_END, COVARIANCE_RANK, FINAL_NORM, RANKME
from pythiageo.study.sizes import SEEDS, VERSION_1
from pythiageo.study.tasks import DIAGNOSTIC

SPECTRA = {COVARIANCE_RANK: "Covariance effective rank (σ²)", RANKME: "RankMe (σ)"}
"""The ranks that figures show, with their names there."""
PROTOCOL = "billa-v4"
DIAGNOSTIC_SETS = len(DIAGNOSTIC)


def last_block(run: Run, measure: str, task: str | None = None) -> pl.DataFrame:
    """Return ``task``, ``step`` and ``value`` of a measure at the run's last block, before the final LayerNorm."""
    block = pl.col("site").str.ends_with(BLOCK_END)
    rows = run.geometry.filter(block)
    rows = rows.filter((pl.col("measure") == measure) & (pl.col("layer") == pl.col("layer").max()))
    rows = rows if task is None else rows.filter(pl.col("task") == task)
    return rows.select("task", "step", "value", "stderr").sort("task", "step")


def blocks(run: Run, measure: str, task: str) -> pl.DataFrame:
    """Return ``layer``, ``final`` (whether after the final LayerNorm), ``step`` and ``value`` of every block."""
    rows = run.geometry.filter((pl.col("measure") == measure) & (pl.col("task") == task))
    final = (pl.col("site") == FINAL_NORM).alias("final")
    return rows.select("layer", final, "step", "value").sort("final", "layer", "step")


def depth(run: Run) -> int:
    """Return the number of blocks with a rank, 0 where there is none."""
    deepest = run.geometry["layer"].max()
    return 0 if deepest is None else int(deepest) + 1  # type: ignore[arg-type]


def score(run: Run, measure: str, task: str, level: str) -> pl.DataFrame:
    """Return ``step`` and ``value`` of a score."""
    here = (pl.col("measure") == measure) & (pl.col("task") == task) & (pl.col("level") == level)
    return run.distinct.filter(here & pl.col("site").is_null()).select("step", "value").sort("step")


def find_events(run: Run, event: str, protocol: str = PROTOCOL, measure: str = COVARIANCE_RANK) -> pl.DataFrame:
    """Return the run's events of one kind that were found, and those at the edge of a window where they count."""
    same = (pl.col("event") == event) & (pl.col("protocol") == protocol)
    return run.shown_events(measure).filter(same & pl.col("status").is_in(PROTOCOLS[protocol].counted))


def edge_floors(run: Run, measure: str, tasks: Sequence[str] | None = None) -> list[str]:
    """Return a sentence on floors at the edge of the protocol's window, of these tasks or of all; or none."""
    edge = find_events(run, "floor", measure=measure).filter(pl.col("status") == AT_EDGE)
    names = [task for task in edge["task"].sort() if tasks is None or task in tasks]
    what = f"floors at the edge of the window of {PROTOCOL}, the fall may go on outside"
    return [f"{run.label}, {spectrum_name(measure)}: {what}: {', '.join(names)}"] if names else []


def tasks(runs: Sequence[Run]) -> list[str]:
    """Return the tasks with a rank, sorted."""
    return sorted({task for run in runs for task in run.geometry["task"].drop_nulls().unique()})


def values(rows: pl.DataFrame) -> list[float | None]:
    """Return the values as a list, gaps as ``None``."""
    return rows["value"].to_list()


def spectrum_name(measure: str) -> str:
    """Return the measure's name on an axis."""
    return SPECTRA.get(measure, measure)


def missing_sizes(runs: Sequence[Run]) -> list[str]:
    """Return a sentence on the paper's sizes that no run has, and on its seeds."""
    if not runs:
        return [NO_ALIGNED]
    there = {run.size for run in runs}
    absent = [size for size in VERSION_1 if size not in there]
    said = [f"no run of size {', '.join(absent)}"] if absent else []
    seeds = {run.distinct["seed"][0] for run in runs if run.distinct["seed"][0] is not None}
    if len(seeds) < len(SEEDS):
        numbers = ", ".join(map(str, sorted(seeds))) or "none named"
        said.append(f"seeds: {numbers}; the paper has {len(SEEDS)}")
    return said


def short_runs(runs: Sequence[Run], until: int) -> list[str]:
    """Return a sentence for each run that ends before the paper's figure does."""
    ends = [(run.label, int(run.distinct["step"].max())) for run in runs]  # type: ignore[arg-type]
    return [f"{label} ends at step {last:,}, the paper's figure at {until:,}" for label, last in ends if last < until]


NO_ALIGNED = "none of the runs is task-aligned"
NO_NATURAL = "none of the runs is naturalistic"
NO_RANK = "no rank measure was taken at a block"
