"""Where checkpoints come from: the Hub, a folder, or a model in training."""

from __future__ import annotations

from pythiageo import extensions
from pythiageo.errors import UserError
from pythiageo.series import sources
from pythiageo.series.checkpoint import Checkpoint, Fetchable, OpenCheckpoint, Series, check_parts
from pythiageo.series.layout import Naming

__all__ = ["Checkpoint", "Fetchable", "Naming", "OpenCheckpoint", "Series", "open_series"]


def open_series(target: str, naming: Naming | None = None) -> Series:
    """Return the series that ``target`` names: a folder where there is one of that path, else a Hub repository.

    Every module of ``series.sources`` with a function ``open_target(target, naming) -> Series | None`` is a
    source, and so is every module that an installed package names in the entry points ``pythiageo.sources``. These are
    asked first, each in the order of their names. ``naming``: how its checkpoints are named, and which are meant.

    Raises:
        UserError: no source knows it, or the one that does cannot open it.
    """
    for open_target in extensions.load_parts(sources, extensions.SOURCES, "open_target"):
        series: Series | None = open_target(target, naming or Naming())
        if series is not None:
            check_parts(series, Series, f"the series {target}")
            return series
    raise UserError(f"{target}: no such folder here, and not a Hub repository's name (owner/name)")
