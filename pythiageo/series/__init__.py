"""Where checkpoints come from: the Hub, a folder, or a model in training."""

from __future__ import annotations

import re
from pathlib import Path

from pythiageo.errors import UserError
from pythiageo.series.checkpoint import Checkpoint, OpenCheckpoint, Series

__all__ = ["Checkpoint", "OpenCheckpoint", "Series", "open_series"]

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def open_series(target: str) -> Series:
    """Return the series that ``target`` names: a folder where there is one of that path, else a Hub repository.

    Raises:
        UserError: it can be neither.
    """
    from pythiageo.series.folder import FolderSeries  # noqa: PLC0415 - a folder needs no Hub client
    from pythiageo.series.hub import HubSeries  # noqa: PLC0415

    if Path(target).exists() or target.startswith((".", "/", "~")):
        return FolderSeries(Path(target).expanduser())
    if _REPOSITORY.fullmatch(target):
        return HubSeries(target)
    raise UserError(f"{target}: no such folder here, and not a Hub repository's name (owner/name)")
