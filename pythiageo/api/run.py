"""A run folder, opened for reading: its table, its manifest, its events."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from pythiageo.errors import UserError
from pythiageo.events import PROTOCOLS, events
from pythiageo.names import READOUT
from pythiageo.observations import read_manifest, read_observations


@dataclass(frozen=True)
class Run:
    """One run folder, one's own or a stranger's. Nothing is written there, and nothing in it is run.

    Everything is read when it is first asked for, and kept.
    """

    path: Path

    @cached_property
    def observations(self) -> pl.DataFrame:
        """The table, one row an observation (columns: ``observations.schema``).

        Of an unfinished run, the checkpoints finished so far.

        Raises:
            UserError: nothing finished yet, a damaged table, or one that a newer pythiageo wrote.
        """
        return read_observations(self.path)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the run says of itself: config, provenance, probe sets, checkpoints, status.

        Raises:
            UserError: there is none, it is damaged, or a newer pythiageo wrote it.
        """
        return read_manifest(self.path)

    @property
    def config(self) -> dict[str, Any]:
        """The run's settings, with every default filled in. Raises as ``manifest``, and where it holds none."""
        config = self.manifest.get("config")
        if not isinstance(config, dict):
            raise UserError(f"{self.path}: its manifest holds no config")
        return config

    def events(
        self,
        protocol: str | None = None,
        readout: str = READOUT,
        measure: str = "covariance_effective_rank",
    ) -> pl.DataFrame:
        """Return acquisition, collapse floor and recovery (columns: ``events.EVENT_COLUMNS``), one row an event.

        One set of weights counts once. ``protocol``: ``pythiageo``, ``billa-v1`` or ``billa-v4``; by default all, one
        after the other. Floors are those of ``measure`` at the last block under ``readout``.

        Raises:
            UserError: as ``observations``; no such protocol, readout or measure in this run.
        """
        names = list(PROTOCOLS) if protocol is None else [protocol]
        return pl.concat([events(self.observations, name, readout, measure) for name in names])


def open_run(path: str | Path) -> Run:
    """Open a run folder for reading.

    Raises:
        UserError: there is no such folder.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        read_observations(folder)  # says what is there of a similar name
    return Run(folder)
