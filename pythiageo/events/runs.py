"""The runs of a report: tables and manifests, each run under a label of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from pythiageo.errors import UserError
from pythiageo.events import PROTOCOLS, events, without_duplicates
from pythiageo.names import BLOCK_END, COVARIANCE_RANK, FINAL_NORM, RANKME, READOUT
from pythiageo.observations import read_manifest
from pythiageo.observations.export import visible_table
from pythiageo.observations.extent import read_bounded
from pythiageo.observations.measures import rank_measures
from pythiageo.untrusted_text import visible, visible_all

SPECTRA = {COVARIANCE_RANK: "Covariance effective rank (σ²)", RANKME: "RankMe (σ)"}


@dataclass(frozen=True)
class ReadRun:
    """One run: ``label`` is unique in the report; ``table`` has each weight fingerprint once."""

    label: str
    manifest: Mapping[str, Any]
    table: pl.DataFrame
    every: pl.DataFrame
    """The table with repeated weights still in it."""
    readout: str | None
    """The readout shown, or ``None`` for a run without geometry."""
    folder: Path | None = None
    """Where the run lies."""
    known: dict[str, pl.DataFrame] = field(default_factory=dict, repr=False, compare=False)
    """Events read so far, by measure."""

    @property
    def regime(self) -> str:
        """``task-aligned`` or ``naturalistic``."""
        return str(self.table["regime"][0])

    @property
    def size(self) -> str:
        """The run's size name."""
        return str(self.table["size"][0])

    @cached_property
    def geometry(self) -> pl.DataFrame:
        """The rank measures of the blocks and the final LayerNorm under the readout shown."""
        site = pl.col("site").str.ends_with(BLOCK_END) | (pl.col("site") == FINAL_NORM)
        shown = pl.col("measure").is_in(rank_measures()) & (pl.col("readout") == (self.readout or "")) & site
        return self.table.filter(shown)

    def events(self, measure: str = COVARIANCE_RANK) -> pl.DataFrame:
        """Return the run's events under every protocol; its floors are those of ``measure`` at the last
        block."""
        if measure not in self.known:
            self.known[measure] = self._read_events(measure)
        return self.known[measure]

    def _read_events(self, measure: str) -> pl.DataFrame:
        shown = self.geometry.filter(pl.col("measure") == measure)
        # what no event is read from is left away, but for one row a step, so that every checkpoint is still one
        timeline = self.table.filter(~pl.col("measure").is_in(rank_measures()) & pl.col("site").is_null())
        missing = self.table.filter(~pl.col("step").is_in(timeline["step"].unique().implode())).unique("step")
        table = pl.concat([timeline, missing.with_columns(pl.lit("checkpoint").alias("measure")), shown])
        return pl.concat([events(table, name, self.readout or READOUT, measure) for name in PROTOCOLS])


def load_runs(paths: Sequence[Path]) -> list[ReadRun]:
    """Read the run folders of a report, in the order given; control characters in them are spelt out.

    Raises:
        UserError: no folder, a folder given twice, one that is no run folder, one that holds two runs, or more
            than a page can show.
    """
    if not paths:
        raise UserError("a report needs at least one run folder.")
    folders = [Path(path).resolve() for path in paths]
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise UserError(f"the run folder {twice[0]} is given twice.")
    loaded = [(folder, visible_all(read_manifest(folder)), visible_table(read_bounded(folder))) for folder in folders]
    labels = _labels([(folder, _one_run(folder, table)) for folder, _, table in loaded])
    result = []
    for label, (folder, manifest, table) in zip(labels, loaded, strict=True):
        named = table.with_columns(pl.lit(label).alias("run"))
        result.append(ReadRun(label, manifest, without_duplicates(named), named, _readout(named), folder))
    return result


def _one_run(folder: Path, table: pl.DataFrame) -> str:
    names = table["run"].unique().sort().to_list()
    if len(names) != 1:
        raise UserError(f"{folder} holds {len(names)} runs ({', '.join(names[:3])}), expected one.")
    return str(names[0])


def _labels(named: Sequence[tuple[Path, str]]) -> list[str]:
    """Return the runs' names; runs of one name are told apart by their folders, or by their order."""
    names = [name for _, name in named]
    labels = [name if names.count(name) == 1 else f"{name} ({visible(folder.name)})" for folder, name in named]
    return [label if labels.count(label) == 1 else f"{label} [{index}]" for index, label in enumerate(labels, start=1)]


def _readout(table: pl.DataFrame) -> str | None:
    found = table.filter(pl.col("measure").is_in(rank_measures()))["readout"].drop_nulls().unique().sort().to_list()
    return READOUT if READOUT in found else (str(found[0]) if found else None)
