"""Rows of the observation table: the columns that all rows of a checkpoint share, and those of one row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pythiageo.observations import Observation


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
