"""What came of one checkpoint, wherever it was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pythiageo.observations import Observation
from pythiageo.series.origin import Source


@dataclass(frozen=True)
class CheckpointResult:
    """A finished checkpoint: its rows, what the manifest says of it, and how many seconds its phases took."""

    step: int
    label: str
    weight_sha: str | None
    status: str
    reason: str | None
    rows: list[Observation]
    model: dict[str, Any] | None = None
    seconds: dict[str, float] | None = None
    """``None``: timed by whoever follows the work."""
    source: Source | None = None
    """What a saved checkpoint was read from."""
    tracebacks: tuple[str, ...] = ()
    """Of errors that cost it numbers, for the log."""
