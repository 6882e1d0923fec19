"""Runs that keep something beside their tables, opened for reading it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import polars as pl

from pythiageo.errors import UserError, nearest
from pythiageo.observations import Manifest, Observation, read_manifest, read_observations
from pythiageo.observations.manifest import CheckpointEntry
from pythiageo.observations.sidecars import SidecarStore

OPTIONS = {"spectra": "--spectra", "sketches": "--sketch 200"}
_EVERY_ROW = ("run", "series", "regime", "size", "seed", "step", "tokens")


def count_kept(run: Path) -> dict[str, int]:
    """Return of how many checkpoints a run keeps spectra, and of how many sketches. Raises ``UserError``: no run."""
    entries = _read_manifest(Path(run)).checkpoints
    return {kind: sum(kind in (one.kept or {}) for one in entries) for kind in OPTIONS}


def _read_manifest(path: Path) -> Manifest:
    if not path.is_dir():
        read_observations(path)  # says what is there of a similar name
    return read_manifest(path)


class KeptRun:
    """A run and what it keeps of one kind, ``spectra`` or ``sketches``.

    Raises:
        UserError: no run, or one that keeps none.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.path = Path(path)
        entries = _read_manifest(self.path).checkpoints
        self.entries: dict[int, CheckpointEntry] = {one.step: one for one in entries if kind in (one.kept or {})}
        """By step, those checkpoints of which something is kept."""
        if not self.entries:
            raise UserError(
                f"{self.path} keeps no {kind}: analyze or train with {OPTIONS[kind]} (excerpts hold the table alone)"
            )
        self.store = SidecarStore(self.path)

    @cached_property
    def table(self) -> pl.DataFrame:
        """The run's observations."""
        return read_observations(self.path)

    @cached_property
    def name(self) -> str:
        """The run's name in its table."""
        return str(self.table["run"][0])

    def origin(self, step: int) -> Observation:
        """Return an observation of one checkpoint of which all but what all its rows share is empty.

        Raises:
            UserError: the table has no row of it.
        """
        rows = self.table.filter(pl.col("step") == step)
        if not rows.height:
            raise UserError(f"{self.path}: the manifest has step {step}, and the table has no row of it.")
        empty = dict.fromkeys(Observation._fields)
        shared = rows.select(_EVERY_ROW).row(0, named=True)
        return Observation(**{**empty, **shared, "weight_sha": self.entries[step].weight_sha})


def check_known(what: str, names: Sequence[str], known: Sequence[str], where: Path) -> None:
    """Raise ``UserError`` for a name that is not among those of a run."""
    for name in names:
        if name not in known:
            raise UserError(f"{where}: no {what} {name!r}{nearest(name, known)}; it has {', '.join(known) or 'none'}")
