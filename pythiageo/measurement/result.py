"""What comes of one checkpoint: the rows of the observation table, and what a manifest and a log say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pythiageo.observations import Observation
from pythiageo.observations.sidecars import NOTHING, Kept
from pythiageo.series.origin import Source


@dataclass(frozen=True)
class Origin:
    """The columns that all rows of a checkpoint share."""

    run: str
    series: str
    regime: str
    size: str
    seed: int | None
    step: int
    tokens: int | None
    weight_sha: str | None

    def row(self, **columns: Any) -> Observation:
        """Return an observation; what is not given is null."""
        empty = dict.fromkeys(Observation._fields)
        return Observation(**{**empty, **vars(self), "status": "ok", **columns})

    def failed(self, measure: str, status: str, reason: str, **columns: Any) -> Observation:
        """Return an observation without a value."""
        return self.row(measure=measure, status=status, reason=reason, **columns)


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
    passes: str | None = None
    """How prompts went through the model: as a prefix forest, or in plain passes and why."""
    kept: Kept = NOTHING
    """What is kept beside the rows: spectra, sketches."""

    @classmethod
    def failed(
        cls, origin: Origin, label: str, status: str, reason: str, tracebacks: tuple[str, ...] = ()
    ) -> CheckpointResult:
        """Return the result of one row that says why there are no others."""
        rows = [origin.failed("checkpoint", status, reason)]
        return cls(origin.step, label, origin.weight_sha, status, reason, rows, tracebacks=tracebacks)
