"""What came of one checkpoint, wherever it was measured, and how it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pythiageo.observations import Observation
from pythiageo.runs.folder import RunFolder


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


def keep_all(results: Iterable[CheckpointResult], folder: RunFolder, kept: Callable[[CheckpointResult], None]) -> None:
    """Write each result into the run folder as it comes, tell ``kept``, and only then ask for the next one.

    This is the loop of every run, of a saved series as of a model in training.
    """
    for result in results:
        folder.observations.write(result.step, result.rows)
        if result.model is not None:
            folder.manifest["model"] = result.model
        folder.add_checkpoint(result.step, result.label, result.weight_sha, result.status, result.reason)
        kept(result)
