"""Which readout did the study use? Its floors are published, its readout is not: chosen here, tried elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pythiageo.durable_files import replace_file
from pythiageo.errors import UserError
from pythiageo.events import AT_EDGE, Run, floors, get_protocol
from pythiageo.events.questions import check_questions
from pythiageo.events.trajectory import depth_of
from pythiageo.locations import make_folder
from pythiageo.names import FINAL_LN, FINAL_NORM, LAST_BLOCK
from pythiageo.observations import write_table
from pythiageo.study.published import published

PROTOCOL = "billa-v4"
_SPECTRUM = {
    "rankme": "sigma",
    "covariance_effective_rank": "sigma^2",
    "participation_ratio": "sigma^2, moments",
    "stable_rank": "sigma^2, moments",
}
MEASURES = tuple(_SPECTRUM)
CHOSEN_ON = ("MOD", "MUL")
"""The tasks whose published floors are told apart best by the readouts; the others are shown, and decide nothing."""
PROFILE_TASK = "MOD"
CANDIDATE = ["measure", "readout", "place"]


@dataclass(frozen=True)
class ReadoutChoice:
    """Which readout fits published floors best, and how the choice fares elsewhere.

    Attributes:
        candidates: one row a candidate (measure, readout, place), best first: ``log_rmse`` (its mean over runs),
            ``lowest``, ``highest`` (over runs), ``at_edge`` (floors at the edge of the protocol's window),
            ``beyond_best`` (whether its lowest lies above the best candidate's highest), ``spectrum`` (``sigma``,
            ``sigma^2``, ``sigma^2, moments``).
        determined: whether every other candidate is ``beyond_best``.
        rivals: candidates that are not, the best one left out.
        floors: published and our floors of the best candidate in every run, chosen on or tried on, with their status.
        last_step: no step beyond it was looked at, so that every run had the same chance of a lower value.
        profile: the best candidate's value at every layer at the floor of ``PROFILE_TASK``, of runs whose size has a
            published profile.
    """

    candidates: pl.DataFrame
    determined: bool
    rivals: pl.DataFrame
    floors: pl.DataFrame
    profile: pl.DataFrame
    last_step: int

    @property
    def best(self) -> dict[str, str]:
        """The best candidate's measure, readout and place."""
        return self.candidates.select(CANDIDATE).row(0, named=True)

    @property
    def excluded(self) -> list[str]:
        """Spectra under which no readout comes within the spread."""
        within = self.candidates.filter(~pl.col("beyond_best"))["spectrum"]
        return sorted(set(self.candidates["spectrum"]) - set(within))

    @property
    def verdict(self) -> str:
        """One sentence."""
        return self._choice + (f"; no readout of {' or '.join(self.excluded)} comes near" if self.excluded else "")

    @property
    def _choice(self) -> str:
        best, second = self.candidates.row(0, named=True), self.candidates.row(1, named=True)
        name = "{measure} of {readout} at {place}".format(**best)
        if self.determined:
            return f"determined: {name}; every other candidate lies beyond the spread of its runs"
        return (
            f"undetermined: {name} fits best (log-RMSE {best['log_rmse']:.3f}), but {self.rivals.height} others lie "
            "within the spread of the runs, first {measure} of {readout} at {place}".format(**second)
            + f" ({second['log_rmse']:.3f})"
        )


def choose_readout(choosing: Sequence[Run], trying: Sequence[Run] = ()) -> ReadoutChoice:
    """Choose the readout whose floors come nearest the published ones, and try it on other runs untouched.

    The distance of a candidate in one run is the log-RMSE ``sqrt(mean_t (ln ours_t - ln published_t)^2)`` over the
    tasks ``CHOSEN_ON``, each floor taken under ``billa-v4``; the candidates are ordered by its mean over ``choosing``
    (runs of one size and several seeds). The best one is determined where in no run of ``choosing`` it fits worse than
    any other candidate does in any: ranges over seeds that do not touch.

    Steps beyond the end of the shortest run of ``choosing`` are left out. Candidates: ``MEASURES`` under every
    readout, at the last block and after the final LayerNorm, as far as every run has them.

    Raises:
        UserError: fewer than two runs to choose on (one has no spread), a run of a size without published floors, runs
            of different sizes, a run both chosen and tried on, runs with other probe sets, or less than two candidates
            common to all runs.
    """
    chosen_on, tried_on = ([run.observations for run in runs] for runs in (choosing, trying))
    names = [run.label for run in (*choosing, *trying)]
    if len(chosen_on) < 2:
        raise UserError(f"a readout is chosen on two or more runs, for their spread; got {len(chosen_on)}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"the run {twice[0]} is given twice: what a readout is tried on must not have chosen it")
    sizes = {_one(run, "size") for run in chosen_on}
    if len(sizes) > 1:
        raise UserError(f"a readout is chosen on runs of one size, got {', '.join(sorted(sizes))}")
    shared = ["run", "series", "regime", "size", "seed", "task", "level", "probe_set"]
    floors_of = [run.filter(pl.col("level") == "mixed").select(shared) for run in (*chosen_on, *tried_on)]
    check_questions(pl.concat(floors_of))
    last_step = min(int(run["step"].max()) for run in chosen_on)  # type: ignore[arg-type]
    chosen_on, tried_on = ([run.filter(pl.col("step") <= last_step) for run in runs] for runs in (chosen_on, tried_on))
    found = pl.concat([_floors(run) for run in chosen_on])
    candidates = _candidates(found, len(chosen_on))
    best = candidates.head(1).select(CANDIDATE)
    rivals = candidates[1:].filter(~pl.col("beyond_best"))
    everywhere = pl.concat([found, *(_floors(run) for run in tried_on)])
    used = pl.DataFrame({"run": names, "use": ["chosen on"] * len(chosen_on) + ["tried on"] * len(tried_on)})
    kept = everywhere.join(best, on=CANDIDATE, how="semi").join(used, on="run").sort("use", "run", "task")
    profiles = [_profile(run, kept, best.row(0, named=True)) for run in (*chosen_on, *tried_on)]
    return ReadoutChoice(candidates, not rivals.height, rivals, kept, pl.concat(profiles), last_step)


def write_choice(choice: ReadoutChoice, folder: Path) -> list[Path]:
    """Write ``candidates.csv``, ``floors.csv``, ``profile.csv`` and ``verdict.json``; return the paths."""
    make_folder(folder)
    tables = {"candidates": choice.candidates, "floors": choice.floors, "profile": choice.profile}
    paths = [write_table(table, folder / f"{name}.csv", "csv") for name, table in tables.items()]
    said = {
        "verdict": choice.verdict,
        "determined": choice.determined,
        "best": choice.best,
        "protocol": PROTOCOL,
        "last_step": choice.last_step,
        "excluded_spectra": choice.excluded,
    }
    path = folder / "verdict.json"
    replace_file(path, (json.dumps(said, indent=1) + "\n").encode(), "the tables written before are whole")
    return [*paths, path]


def _one(run: pl.DataFrame, column: str) -> str:
    values = run[column].unique().to_list()
    if len(values) != 1 or values[0] is None:
        raise UserError(f"each table must hold one {column}, got {len(values)}")
    return str(values[0])


def _floors(run: pl.DataFrame) -> pl.DataFrame:
    """Return every candidate's floor of every task with a published one, with the logarithm of their ratio."""
    figures, size = published()["floor"][PROTOCOL], _one(run, "size")
    if size not in figures["sizes"]:
        raise UserError(f"no floors are published for size {size!r}; there are some for {', '.join(figures['sizes'])}")
    index = figures["sizes"].index(size)
    known = {task: float(by["mixed"][index]) for task, by in figures.items() if isinstance(by, dict)}
    last = f"blocks.{(depth_of(run) or 0) - 1}.hook_resid_post"
    place = pl.col("site").replace_strict({last: LAST_BLOCK, FINAL_NORM: FINAL_LN}, default=None)
    found = floors(run.filter(pl.col("task").is_in(list(known))), get_protocol(PROTOCOL), MEASURES)
    ours = found.filter(pl.col("status").is_in(get_protocol(PROTOCOL).counted)).with_columns(place.alias("place"))
    target = pl.col("task").replace_strict(known, return_dtype=pl.Float64)
    return (
        ours.drop_nulls("place")
        .with_columns(target.alias("published"), (pl.col("value") / target).log().alias("log_ratio"))
        .select("run", "size", "seed", "task", *CANDIDATE, "step", "value", "status", "published", "log_ratio")
    )


def _candidates(found: pl.DataFrame, runs: int) -> pl.DataFrame:
    deciding = found.filter(pl.col("task").is_in(CHOSEN_ON))
    per_run = deciding.group_by(*CANDIDATE, "run", maintain_order=True).agg(
        (pl.col("log_ratio") ** 2).mean().sqrt().alias("log_rmse"),
        pl.len().alias("tasks"),
        (pl.col("status") == AT_EDGE).sum().alias("at_edge"),
    )
    per_candidate = (
        per_run.filter(pl.col("tasks") == len(CHOSEN_ON))
        .group_by(CANDIDATE, maintain_order=True)
        .agg(
            pl.col("log_rmse").mean(),
            pl.col("log_rmse").min().alias("lowest"),
            pl.col("log_rmse").max().alias("highest"),
            pl.len().alias("runs"),
            pl.col("at_edge").sum(),
        )
        .filter(pl.col("runs") == runs)
        .sort("log_rmse", *CANDIDATE)
    )
    if per_candidate.height < 2:
        raise UserError(
            f"these runs have {per_candidate.height} readouts with floors of {' and '.join(CHOSEN_ON)} in common; "
            "a choice needs two (measures.readouts = ['all'])"
        )
    return per_candidate.with_columns(
        (pl.col("lowest") > pl.col("highest").first()).alias("beyond_best"),
        pl.col("measure").replace_strict(_SPECTRUM).alias("spectrum"),
    )


def _profile(run: pl.DataFrame, kept: pl.DataFrame, best: dict[str, str]) -> pl.DataFrame:
    """Return the best candidate by block at the step of the task's floor, beside the published profile."""
    columns = {"run": pl.String, "step": pl.Int64, "layer": pl.Int32, "value": pl.Float64, "published": pl.Float64}
    figures, size = published()["profile"][PROTOCOL], _one(run, "size")
    floor = kept.filter((pl.col("run") == _one(run, "run")) & (pl.col("task") == PROFILE_TASK))
    if size not in figures or not floor.height:
        return pl.DataFrame(schema=columns)
    known = figures[size][PROFILE_TASK]
    rows = run.filter(
        (pl.col("task") == PROFILE_TASK)
        & (pl.col("measure") == best["measure"])
        & (pl.col("readout") == best["readout"])
        & (pl.col("step") == floor["step"][0])
        & pl.col("site").str.ends_with(".hook_resid_post")
    ).sort("layer")
    if rows.height != len(known):
        return pl.DataFrame(schema=columns)
    return rows.with_columns(pl.Series("published", known, dtype=pl.Float64)).select(
        pl.col(name).cast(dtype) for name, dtype in columns.items()
    )
