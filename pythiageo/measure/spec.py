"""What is asked of every checkpoint of an analysis, and where one is measured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from pythiageo.compute.allocator import loading
from pythiageo.config.runs import AnalyzeConfig
from pythiageo.errors import CheckpointError
from pythiageo.measure.checkpoint import Meter
from pythiageo.measure.geometry import Origin
from pythiageo.measure.probe_sets import Probe
from pythiageo.measure.result import Piece
from pythiageo.series.checkpoint import Checkpoint, OpenCheckpoint


@dataclass(frozen=True)
class Order:
    """What is asked of every checkpoint of a run. Plain data: it is the same in another process, or on another machine.

    ``steps``: those of the whole run. ``identity``: series, regime, size and seed.
    """

    config: AnalyzeConfig
    identity: dict[str, Any]
    probes: list[Probe]
    device: str
    steps: list[int]

    def origin(self, step: int, tokens: int | None, weight_sha: str | None) -> Origin:
        """Return the columns that all rows of a checkpoint share."""
        return Origin(run=self.config.name, step=step, tokens=tokens, weight_sha=weight_sha, **self.identity)

    def failed(self, origin: Origin, label: str, status: str, reason: str) -> Piece:
        """Return the piece of one row that says why there are no others."""
        rows = [origin.failed("checkpoint", status, reason)]
        return Piece(origin.step, label, origin.weight_sha, status, reason, rows)


class Follower(Protocol):
    """Is told what the work is at."""

    def phase(self, name: str, doing: str) -> AbstractContextManager[None]:
        """Enclose a phase of the checkpoint under way."""

    def measured(self, share: float) -> None:
        """Note which share of the checkpoint is measured."""


class Workbench:
    """Measures one checkpoint after the other for an order. Raises ``UserError`` as ``Meter``."""

    def __init__(self, order: Order, follower: Follower) -> None:
        config = order.config
        self._order = order
        self._follower = follower
        self._meter = Meter(config.measures, config.compute, order.device, order.probes, order.steps)

    def measure(
        self, checkpoint: Checkpoint, failure: Exception | None = None, look: Callable[[], None] = lambda: None
    ) -> Piece:
        """Open and measure a checkpoint; ``look`` is called between its probe sets.

        ``failure``: why it could not be fetched. Whatever is the checkpoint's own fault gives a piece that says so;
        any other error is raised.
        """
        try:
            if failure is not None:
                raise failure
            with self._follower.phase("load", f"opening {checkpoint.label}"), loading():
                opened = checkpoint.open()
            with self._follower.phase("compute", f"measuring {checkpoint.label}"):
                return self._take(checkpoint, opened, look)
        except CheckpointError as error:
            origin = self._order.origin(checkpoint.step, checkpoint.tokens, None)
            return self._order.failed(origin, checkpoint.label, error.status, str(error))

    def _take(self, checkpoint: Checkpoint, opened: OpenCheckpoint, look: Callable[[], None]) -> Piece:
        def tell(share: float) -> None:
            look()
            self._follower.measured(share)

        origin = self._order.origin(checkpoint.step, checkpoint.tokens, opened.weight_sha)
        taken = self._meter.take(opened, origin, tell)
        status = "nonfinite" if opened.nonfinite else "ok"
        sha, label = opened.weight_sha, checkpoint.label
        return Piece(checkpoint.step, label, sha, status, opened.nonfinite, taken.rows, taken.model)
