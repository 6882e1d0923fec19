"""Which observations a plot shows: what is asked for is looked up, what is left open is decided and said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from pythiageo.errors import UserError, nearest
from pythiageo.events.run import Run
from pythiageo.figures.seeds import pool_seeds
from pythiageo.names import FINAL_LN, LAST_BLOCK, READOUT
from pythiageo.observations.export import RESIDUAL, place_rows
from pythiageo.observations.layers import FINAL_PLACE, keep_layers

BY = ("step", "layer", "task", "run")
"""What can lie along x."""
FEW_STEPS = 6
"""Checkpoints that are drawn where each is a line and nobody says which."""
_COLUMNS = ["measure", "run", "regime", "size", "seed", "task", "level", "probe_set", "readout", "site_kind", "place",
            "layer", "step", "value", "stderr", "status"]  # fmt: skip
_COUNT = re.compile(r";count=\d+$")


@dataclass(frozen=True)
class Asked:
    """What a plot is asked to show; ``None``: whatever there is, or a default that the plot names."""

    measures: Sequence[str]
    by: str = "step"
    tasks: Sequence[str] | None = None
    levels: Sequence[str] | None = None
    readouts: Sequence[str] | None = None
    sites: Sequence[str] | None = None
    layers: str | None = None
    steps: Sequence[int] | None = None
    pooled: bool = False
    """Whether runs that differ in seed alone are one, with their mean and range."""


@dataclass(frozen=True)
class Selection:
    """Rows with a value, and sentences on the choice.

    Columns: those of the table, ``site_kind`` and ``place``, ``depth`` (blocks of the row's run), ``low`` and ``high``
    (ends of the band of seeds, or value -+ standard error; null where there is neither).
    """

    rows: pl.DataFrame
    said: tuple[str, ...]


def select_rows(runs: Sequence[Run], asked: Asked) -> Selection:
    """Return the observations that are asked for.

    Raises:
        UserError: nothing of that name, or several things that are no line of one plot; the choices are named.
    """
    said: list[str] = []
    table = place_rows(_named(pl.concat([run.distinct for run in runs]), "measure", asked.measures)).select(_COLUMNS)
    for run in runs:
        if run.label not in set(table["run"]):
            said.append(f"not drawn: {run.label} has no {' and no '.join(asked.measures)}")
    # a count of parameters tells nothing apart that the run does not
    table = table.with_columns(pl.col("readout").str.replace(_COUNT.pattern, ""))
    table = _named(table, "task", asked.tasks)
    table = _choose_site(table, asked.sites, said)
    table = _choose_readout(table, asked.readouts, said)
    table = _named(table, "level", asked.levels)
    depth = pl.col("layer").max().over("run") + 1
    table = _choose_layers(table.with_columns(depth.alias("depth")), asked, said)
    if asked.pooled:
        table = pool_seeds(table, runs)
    else:
        error = pl.col("stderr")
        table = table.with_columns((pl.col("value") - error).alias("low"), (pl.col("value") + error).alias("high"))
    table = _choose_steps(table, asked, said)
    drawn = table.drop_nulls("value")
    if drawn.height < table.height:
        counted = table.filter(pl.col("value").is_null()).group_by("status").len().sort("status").rows()
        reasons = ", ".join(f"{count:,} {status}" for status, count in counted)
        said.append(
            f"not drawn: {table.height - drawn.height:,} of {table.height:,} observations have no value ({reasons})"
        )
    if not drawn.height:
        raise UserError(
            f"nothing to draw: {said[-1].removeprefix('not drawn: ') if said else 'no observation is left'}"
        )
    return Selection(drawn, tuple(said))


def _named(table: pl.DataFrame, column: str, names: Sequence[str] | None, option: str | None = None) -> pl.DataFrame:
    """Return the rows of these names.

    Raises:
        UserError: a name that no row has.
    """
    if names is None:
        return table
    known = table[column].drop_nulls().unique().sort().to_list()
    for name in names:
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "these observations have none"
            raise UserError(f"--{option or column}: no {column} {name!r} here{nearest(name, known)}; {there}")
    return table.filter(pl.col(column).is_in(list(names)))


def _choose_site(table: pl.DataFrame, wanted: Sequence[str] | None, said: list[str]) -> pl.DataFrame:
    if wanted is not None:
        words = {LAST_BLOCK, FINAL_LN}
        places = [pl.col("site_kind").is_in([name for name in wanted if name not in words])]
        last = pl.col("layer") == pl.col("layer").max().over("run")
        if LAST_BLOCK in wanted:
            places.append((pl.col("site_kind") == RESIDUAL) & (pl.col("place") != FINAL_PLACE) & last)
        if FINAL_LN in wanted:
            places.append(pl.col("place") == FINAL_PLACE)
        kept = table.filter(pl.any_horizontal(places).fill_null(False))
        if not kept.height or set(wanted) - words - set(table["site_kind"]):
            known = [*table["site_kind"].drop_nulls().unique().sort(), LAST_BLOCK, FINAL_LN]
            bad = next((name for name in wanted if name not in known), wanted[0])
            raise UserError(f"--site: no site {bad!r} here{nearest(bad, known)}; there are {', '.join(known)}")
        return kept
    kinds = table["site_kind"].unique().sort().to_list()  # null, for what has no layer, is first
    if len(kinds) < 2:
        return table
    chosen = None if None in kinds else RESIDUAL
    if chosen not in kinds:
        raise UserError(f"--site: taken at {_listed(kinds)}: say which")
    others = [str(kind) for kind in kinds if kind not in (None, chosen)]
    said.append(f"site: {chosen or 'none'}; there {_are(others)} too (--site)")
    return table.filter(pl.col("site_kind").eq_missing(pl.lit(chosen, dtype=pl.String)))


def _choose_readout(table: pl.DataFrame, wanted: Sequence[str] | None, said: list[str]) -> pl.DataFrame:
    if wanted is not None:
        return _named(table, "readout", wanted)
    for measure, rows in table.group_by("measure", maintain_order=True):
        known = rows["readout"].drop_nulls().unique().sort().to_list()
        if len(known) < 2:
            continue
        if READOUT not in known:
            raise UserError(f"--readout: {measure[0]} was taken under {_listed(known)}: say which")
        said.append(f"readout: {READOUT}, one of {len(known)} (--readout)")
        other = (pl.col("measure") == measure[0]) & (pl.col("readout") != READOUT)
        table = table.filter(~other.fill_null(False))
    return table


def _choose_layers(table: pl.DataFrame, asked: Asked, said: list[str]) -> pl.DataFrame:
    if table["place"].is_null().all():
        return table
    text = asked.layers
    if text is None:
        if asked.by in ("step", "layer") or table["place"].n_unique() < 2 or asked.sites is not None:
            return table
        text = "last"
        said.append("layer: each run's last block, before the final LayerNorm (--layers)")
    return keep_layers(table, text)


def _choose_steps(table: pl.DataFrame, asked: Asked, said: list[str]) -> pl.DataFrame:
    steps = table["step"].unique().sort().to_list()
    if asked.steps is not None:
        chosen = set(asked.steps)
        if not chosen & set(steps):
            raise UserError(
                f"--steps: none of these is a checkpoint with this measure; there are {steps[0]} to {steps[-1]}"
            )
        return table.filter(pl.col("step").is_in(list(chosen)))
    if asked.by == "step" or len(steps) == 1:
        return table
    if asked.by == "layer":
        # only steps that every run has: a line that is missing in one panel looks like a finding
        common = _common_steps(table.drop_nulls("value"))
        few = spread_steps(common or steps, FEW_STEPS)
        if len(few) < len(steps):
            said.append(f"steps: {', '.join(f'{step:,}' for step in few)}, {len(few)} of {len(steps)} (--steps)")
        return table.filter(pl.col("step").is_in(few))
    last = table.drop_nulls("value").group_by("measure", "run", maintain_order=True).agg(pl.col("step").max())
    ends = sorted(set(last["step"]))
    where = f"{ends[0]:,}" if len(ends) == 1 else ", ".join(f"{step:,} of {run}" for _, run, step in last.rows())
    said.append(f"step: the last with a value, {where} (--steps)")
    return table.join(last, on=["measure", "run", "step"], maintain_order="left")


def _common_steps(table: pl.DataFrame) -> list[int]:
    runs = table["run"].n_unique()
    shared = table.group_by("step").agg(pl.col("run").n_unique()).filter(pl.col("run") == runs)
    return sorted(shared["step"])


def spread_steps(steps: Sequence[int], count: int) -> list[int]:
    """Return at most ``count`` of the steps, spread evenly over a logarithmic axis of them, first and last among them.

    >>> spread_steps([0, 1, 2, 4, 8, 16, 32, 64, 128], 4)
    [0, 4, 32, 128]
    """
    first = min((step for step in steps if step > 0), default=1)
    places = np.log1p(np.asarray(sorted(steps), dtype=float) / first)
    wanted = np.linspace(places[0], places[-1], count)
    return sorted({sorted(steps)[int(np.abs(places - place).argmin())] for place in wanted})


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(str(name) for name in names)


def _are(names: Sequence[str]) -> str:
    return f"{'is' if len(names) == 1 else 'are'} {_listed(names)}"
