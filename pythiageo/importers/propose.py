"""A map of a table that has none, guessed from the names of its columns and from what is in them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import tomli_w

from pythiageo.importers.cells import read_table
from pythiageo.importers.results import some
from pythiageo.importers.tidy_table import NEEDED, WHO
from pythiageo.observations.measures import declared_measures
from pythiageo.observations.ranges import outside, range_of
from pythiageo.untrusted_text import visible

NAMES: dict[str, tuple[str, ...]] = {
    "series": ("series", "model", "model_name"),
    "step": ("step", "steps", "training_step", "train_step", "global_step", "iteration", "iter", "checkpoint_step"),
    "tokens": ("tokens", "tokens_seen", "n_tokens", "num_tokens"),
    "task": ("task", "task_name", "dataset", "dataset_name", "benchmark"),
    "level": ("level", "difficulty"),
    "layer": ("layer", "layer_idx", "layer_index", "layer_id", "block"),
    "site": ("site", "hook", "hook_name"),
    "readout": ("readout",),
    "measure": ("measure", "metric", "metric_name"),
    "value": ("value", "metric_value", "score", "result"),
    "stderr": ("stderr", "std_err", "standard_error", "se"),
    "n": ("n", "n_samples", "num_examples", "n_examples"),
}
"""Our columns, and how other people's tables call them; the first that a table has is taken."""
MEASURES = {
    "acc": "accuracy",
    "acc_norm": "accuracy_normalised",
    "accuracy_norm": "accuracy_normalised",
    "ppl": "perplexity",
    "rank_me": "rankme",
    "logprob": "log_prob",
    "mean_log_prob": "log_prob",
    "effective_rank": "covariance_effective_rank",
}
"""Other names of our measures. ``effective_rank`` is of one of two spectra: whoever reads the proposal must say."""
_UNSURE = {"effective_rank": "of which spectrum is it? RankMe is of sigma, covariance_effective_rank of sigma^2"}


@dataclass(frozen=True)
class Proposal:
    """A map as TOML text; ``missing``: what no column seems to be and a map must say; ``remarks``: what to look at."""

    text: str
    missing: tuple[str, ...]
    remarks: tuple[str, ...]


def propose_map(source: Path) -> Proposal:
    """Return a map of a table's columns to ours, guessed from their names; nothing is written.

    Raises:
        UserError: the table cannot be read.
    """
    table = read_table(source)
    plain = {_plain(column): column for column in reversed(table.columns)}
    columns = {ours: plain[name] for ours, names in NAMES.items() if (name := _first(names, plain)) is not None}
    constants: dict[str, str] = {}
    remarks: list[str] = []
    wide = [column for column in table.columns if column not in columns.values() and _measure(column) is not None]
    if "measure" not in columns and wide:
        named = str(_measure(wide[0]))
        columns["value"], constants["measure"] = wide[0], named
        remarks += [f"{json.dumps(name)}: {_UNSURE[_plain(name)]}" for name in wide[:1] if _plain(name) in _UNSURE]
        if (error := plain.get(f"{_plain(wide[0])}_stderr")) is not None:
            columns["stderr"] = error
        if len(wide) > 1:
            others = ", ".join(map(json.dumps, wide[1:]))
            remarks.append(f"where each measure has a column, a map is of one of them; a map each for {others}, too")
    table_of: dict[str, Any] = {"regime": "naturalistic"}
    renamed = _renamed(table, columns)
    remarks += [f"{json.dumps(name)}: {_UNSURE[_plain(name)]}" for name in renamed if _plain(name) in _UNSURE]
    table_of["columns"] = columns
    if constants:
        table_of["constants"] = constants
    if renamed:
        table_of["rename"] = {"measure": renamed}
    if scale := _scale(table, columns, constants, renamed):
        table_of["scale"] = scale
        remarks.append("values beyond 1 are read as per cent (scale)")
    remarks += _several(table, columns)
    if "layer" in columns:
        remarks.append("is layer 0 the embedding? then first_layer_is_embedding = true, above [columns]")
    left = [column for column in table.columns if column not in columns.values()]
    if left:
        remarks.append(f"nothing is made of {', '.join(map(json.dumps, left))}")
    missing = tuple(ours for ours in NEEDED if ours not in columns and ours not in constants)
    head = [f"# A map of {json.dumps(source.name)}, proposed from its columns: read it before you use it."]
    head += [f"# Missing: which column is {ours!r}? Say so in [columns], or in [constants]." for ours in missing]
    head += [f"# {remark[:1].upper()}{remark[1:]}." for remark in remarks]
    head = [visible(" ".join(line.split())) for line in head]  # a name with a line break would end its comment
    return Proposal("\n".join([*head, "", tomli_w.dumps(table_of)]), missing, tuple(remarks))


def _plain(name: str) -> str:
    """Return a name in small letters, words joined by ``_``: ``Training Step`` is ``training_step``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _first(names: tuple[str, ...], plain: dict[str, str]) -> str | None:
    return next((name for name in names if name in plain), None)


def _measure(name: str) -> str | None:
    """Return the measure of ours that a name stands for, ``None`` if it is none."""
    plain = _plain(name)
    return plain if plain in declared_measures() else MEASURES.get(plain)


def _renamed(table: pl.DataFrame, columns: dict[str, str]) -> dict[str, str]:
    """Return names in the measure's column that are ours by another name."""
    if "measure" not in columns:
        return {}
    names = table[columns["measure"]].cast(pl.String).drop_nulls().unique().sort().to_list()
    return {name: ours for name in names if (ours := _measure(name)) is not None and ours != name}


def _scale(
    table: pl.DataFrame, columns: dict[str, str], constants: dict[str, str], renamed: dict[str, str]
) -> dict[str, float]:
    """Return what turns shares that are written in per cent into shares, by measure."""
    if "value" not in columns:
        return {}
    value = pl.col(columns["value"]).cast(pl.Float64, strict=False).alias("value")
    measure = pl.lit(constants["measure"]) if "measure" in constants else None
    if measure is None:
        if "measure" not in columns:
            return {}
        measure = pl.col(columns["measure"]).cast(pl.String).replace(renamed)
    highest = table.select(measure.alias("measure"), value).drop_nulls().group_by("measure").agg(pl.col("value").max())
    return {
        name: 0.01
        for name, top in highest.sort("measure").iter_rows()
        if range_of(name) == (0.0, 1.0) and outside(name, top) and top <= 100
    }


def _several(table: pl.DataFrame, columns: dict[str, str]) -> list[str]:
    """Return a remark for each column that tells several models apart: a run is of one."""
    found = []
    for column in table.columns:
        values = table[column].cast(pl.String, strict=False).drop_nulls().unique().sort().to_list()
        if (column == columns.get("series") or column.lower() in WHO) and len(values) > 1:
            names = some(values)
            found.append(f"rows of {len(values)} {json.dumps(column)} ({names}): choose one with --where COLUMN=VALUE")
    return found
