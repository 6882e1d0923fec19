"""A run opened for reading: its observations, its manifest, its events."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import polars as pl

from pythiageo.errors import UserError
from pythiageo.events.find import events
from pythiageo.events.place import Place, choose_place
from pythiageo.events.trajectory import without_duplicates
from pythiageo.locations import find_run
from pythiageo.names import BLOCK_END, FINAL_LN, FINAL_NORM, LAST_BLOCK, READOUT
from pythiageo.observations.export import visible_table
from pythiageo.observations.extent import read_bounded
from pythiageo.observations.manifest import Manifest, read_manifest, without_mistakes
from pythiageo.observations.measures import rank_measures
from pythiageo.observations.reader import read_observations
from pythiageo.observations.shown import ObservationTable
from pythiageo.study.protocols import PROTOCOLS
from pythiageo.untrusted_text import visible, visible_all


class Run:
    """One run, one's own or a stranger's. Nothing is written to its folder, and nothing in it is run.

    Everything is read when it is first asked for, and kept.

    Args:
        path: the run folder; ``None`` for a run in memory, whose ``observations`` are given.
        observations, manifest: what was read already.
        bounded: refuse a table that is too large for comparisons, claims and pages.
    """

    def __init__(
        self,
        path: Path | None,
        observations: pl.DataFrame | None = None,
        manifest: Manifest | None = None,
        bounded: bool = False,
    ) -> None:
        self.path = path
        self._bounded = bounded
        self._shown: dict[str, pl.DataFrame] = {}
        if observations is not None:
            self.observations = observations
        if manifest is not None or path is None:
            self.manifest = manifest or Manifest()

    def __repr__(self) -> str:
        facts = self._facts()
        words = [f"{name} {value}" if name in ("seed", "checkpoints") else value for name, value in facts.items()]
        return visible(f"<Run {', '.join(words)}>")

    def _repr_html_(self) -> str:
        """Return what the run is as a small table, for a notebook."""
        facts = self._facts()
        with suppress(UserError):
            facts |= _contents(self.observations)
        cells = [f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items()]
        return visible(f"<table>{''.join(cells)}</table>")

    def _facts(self) -> dict[str, str]:
        """Return what the manifest says of the run; of one without, where it lies. Nothing large is read."""
        facts: dict[str, str] = {}
        with suppress(UserError):
            said = self.manifest
            known = {"run": said.name, "kind": said.kind, "regime": said.regime, "size": said.size, "seed": said.seed,
                     "status": said.status}  # fmt: skip
            facts = {name: str(value) for name, value in known.items() if value is not None}
            if steps := [entry.step for entry in said.checkpoints if entry.step is not None]:
                facts["checkpoints"] = f"{len(steps):,} (step {min(steps):,} to {max(steps):,})"
        return facts | {"folder": "in memory" if self.path is None else str(self.path)}

    @cached_property
    def observations(self) -> pl.DataFrame:
        """The table, one row an observation (columns: ``observations.schema``).

        Of an unfinished run, the checkpoints finished so far.

        Raises:
            UserError: nothing finished yet, a damaged table, or one that a newer pythiageo wrote.
        """
        assert self.path is not None
        return ObservationTable(read_bounded(self.path) if self._bounded else read_observations(self.path))

    @cached_property
    def manifest(self) -> Manifest:
        """What the run says of itself: config, provenance, probe sets, checkpoints, status.

        Raises:
            UserError: there is none, it is damaged, or a newer pythiageo wrote it.
        """
        assert self.path is not None
        return read_manifest(self.path)

    @property
    def config(self) -> dict[str, Any]:
        """The run's settings, with every default filled in. Raises as ``manifest``, and where it holds none."""
        if "config" not in self.manifest.model_fields_set:
            raise UserError(f"{self.path}: its manifest holds no config")
        return self.manifest.config

    @cached_property
    def distinct(self) -> pl.DataFrame:
        """The observations with each weight fingerprint once, at its first step."""
        return without_duplicates(self.observations)

    @cached_property
    def label(self) -> str:
        """The run's name in the table. Raises ``UserError`` where that holds none, or several runs."""
        names = self.observations["run"].unique().sort().to_list()
        if len(names) != 1:
            where = "a table" if self.path is None else self.path
            raise UserError(f"{where} holds {len(names)} runs ({', '.join(names[:3])}), expected one.")
        return str(names[0])

    @property
    def regime(self) -> str:
        """``task-aligned``, ``naturalistic`` or ``mix:P``."""
        return str(self.observations["regime"][0])

    @property
    def size(self) -> str:
        """The run's size name."""
        return str(self.observations["size"][0])

    @cached_property
    def readout(self) -> str | None:
        """The readout that pages show, or ``None`` for a run without geometry."""
        ranks = self.observations.filter(pl.col("measure").is_in(rank_measures()))
        known = ranks["readout"].drop_nulls().unique().sort().to_list()
        return READOUT if READOUT in known else (str(known[0]) if known else None)

    @cached_property
    def place(self) -> Place:
        """The rank, readout and site of the floors that pages show: whichever the run has (``choose_place``)."""
        return choose_place([self.distinct], readout=self.readout)

    @cached_property
    def geometry(self) -> pl.DataFrame:
        """The rank measures of the blocks and the final LayerNorm under the readout shown."""
        site = pl.col("site").str.ends_with(BLOCK_END) | (pl.col("site") == FINAL_NORM)
        shown = pl.col("measure").is_in(rank_measures()) & (pl.col("readout") == (self.readout or "")) & site
        return self.distinct.filter(shown)

    def events(
        self,
        protocol: str | None = None,
        readout: str | None = None,
        measure: str | None = None,
        site: str | None = None,
    ) -> pl.DataFrame:
        """Return acquisition, collapse floor and recovery (columns: ``events.EVENT_COLUMNS``), one row an event.

        One set of weights counts once. ``protocol``: ``pythiageo``, ``billa-v1`` or ``billa-v4``; by default all, one
        after the other. Floors are those of ``measure`` at ``site`` under ``readout``: where one of these is ``None``,
        of whichever rank the run has (``choose_place``), and the rows name it.

        Raises:
            UserError: as ``observations``; no such protocol, readout, measure or site in this run.
        """
        names = list(PROTOCOLS) if protocol is None else [protocol]
        place = choose_place([self.distinct], measure, readout, site)
        return pl.concat([events(self.observations, name, place.readout, place.measure, place.site) for name in names])

    def shown_events(self, measure: str | None = None) -> pl.DataFrame:
        """Return the events that pages show: under every protocol, floors of ``measure`` (``None``: of the rank shown)
        where ``place`` says.

        A run without the measure has no floors.
        """
        place = self.place
        measure = measure or place.measure
        if measure not in self._shown:
            at_hook = place.site not in {LAST_BLOCK, FINAL_LN}
            known = self.distinct.filter(pl.col("site") == place.site) if at_hook else self.geometry
            same = (pl.col("measure") == measure) & (pl.col("readout") == place.readout)
            # what no event is read from is left away, but for one row a step, so that every checkpoint is still one
            timeline = self.distinct.filter(~pl.col("measure").is_in(rank_measures()) & pl.col("site").is_null())
            missing = self.distinct.filter(~pl.col("step").is_in(timeline["step"].unique().implode())).unique("step")
            missing = missing.with_columns(pl.lit("checkpoint").alias("measure"))
            table = pl.concat([timeline, missing, known.filter(same)])
            each = [events(table, name, place.readout, measure, place.site) for name in PROTOCOLS]
            self._shown[measure] = pl.concat(each)
        return self._shown[measure]


def common_place(
    runs: Sequence[Run], measure: str | None = None, readout: str | None = None, site: str | None = None
) -> Place:
    """Return the place of the floors of runs that are taken together: ``choose_place``, under the readout they show."""
    shown = readout or next((run.readout for run in runs if run.readout), None)
    return choose_place([run.distinct for run in runs], measure, shown, site)


def _contents(table: pl.DataFrame) -> dict[str, str]:
    """Return what a table holds, in words: how many rows, and the names of what was measured."""
    names = {
        f"{column}s": ", ".join(table[column].drop_nulls().unique().sort()) for column in ("task", "readout", "measure")
    }
    blocks = table["layer"].drop_nulls().n_unique()
    bad = table.filter(pl.col("status") != "ok").height
    counted = f"{table.height:,}, {bad:,} of them without a value"
    found = {"observations": counted, **names, "blocks": str(blocks or "")}
    return {name: value for name, value in found.items() if value}


def open_run(path: str | Path) -> Run:
    """Open a run folder for reading, by its path or by its name in ``outputs``.

    Raises:
        UserError: there is no such folder.
    """
    folder = find_run(Path(path).expanduser())
    if not folder.is_dir():
        read_observations(folder)  # says what is there of a similar name
    return Run(folder)


def open_runs(paths: Sequence[Path]) -> list[Run]:
    """Read the run folders of a page, in the order given, each under a label of its own in ``label`` and the table.

    Control characters in them are spelt out.

    Raises:
        UserError: no folder, a folder given twice, one that is no run folder, one that holds two runs, or more
            than a page can show.
    """
    if not paths:
        raise UserError("a report needs at least one run folder.")
    folders = [Path(path).resolve() for path in paths]
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise UserError(f"the run folder {twice[0]} is given twice.")
    runs = []
    for folder in folders:
        manifest = without_mistakes(visible_all(read_manifest(folder).as_json()))
        runs.append(Run(folder, visible_table(read_bounded(folder)), manifest))
    for run, label in zip(
        runs, _labels([(folder.name, run.label) for folder, run in zip(folders, runs, strict=True)]), strict=True
    ):
        run.label, run.observations = label, run.observations.with_columns(pl.lit(label).alias("run"))
    return runs


def _labels(named: Sequence[tuple[str, str]]) -> list[str]:
    """Return the runs' names; runs of one name are told apart by their folders, or by their order."""
    names = [name for _, name in named]
    labels = [name if names.count(name) == 1 else f"{name} ({visible(folder)})" for folder, name in named]
    return [label if labels.count(label) == 1 else f"{label} [{index}]" for index, label in enumerate(labels, start=1)]
