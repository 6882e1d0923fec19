"""Where checkpoints come from: the Hub, a folder, or a model in training."""

from __future__ import annotations

import importlib
import pkgutil

from pythiageo.errors import UserError
from pythiageo.series import sources
from pythiageo.series.checkpoint import Checkpoint, OpenCheckpoint, Series

__all__ = ["Checkpoint", "OpenCheckpoint", "Series", "open_series"]


def open_series(target: str, step_pattern: str | None = None) -> Series:
    """Return the series that ``target`` names: a folder where there is one of that path, else a Hub repository.

    Every module of ``series.sources`` with a function ``open_target(target, step_pattern) -> Series | None`` is a
    source; they are asked in the order of their names. ``step_pattern``: how its revisions or folders are named, as for
    ``steps.StepNames``.

    Raises:
        UserError: no source knows it, or the one that does cannot open it.
    """
    for module in sorted(pkgutil.iter_modules(sources.__path__), key=lambda entry: entry.name):
        open_target = getattr(importlib.import_module(f"{sources.__name__}.{module.name}"), "open_target", None)
        series: Series | None = open_target(target, step_pattern) if open_target else None
        if series is not None:
            return series
    raise UserError(f"{target}: no such folder here, and not a Hub repository's name (owner/name)")
