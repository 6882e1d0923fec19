"""What is asked of every checkpoint of an analysis, and where one is measured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from pythiageo.compute.allocator import loading
from pythiageo.config.runs import AnalyzeConfig
from pythiageo.measurement.checkpoint import OpenedMeasurer
from pythiageo.measurement.failures import Mishaps
from pythiageo.measurement.probe_sets import Probe
from pythiageo.measurement.result import CheckpointResult
from pythiageo.measurement.rows import Origin
from pythiageo.series.checkpoint import Checkpoint, OpenCheckpoint
from pythiageo.series.tokenizers import NamedTokenizer


@dataclass(frozen=True)
class MeasurementSpec:
    """What is asked of every checkpoint of a run. Plain data: it is the same in another process, or on another machine.

    ``steps``: those of the whole run. ``identity``: series, regime, size and seed. ``only``: tasks and levels of
    ``probes`` to measure, where the others are measured already. ``tokenizer``: in place of those of the checkpoints.
    """

    config: AnalyzeConfig
    identity: dict[str, Any]
    probes: list[Probe]
    device: str
    steps: list[int]
    tokenizer: NamedTokenizer | None = None
    only: frozenset[tuple[str, str]] | None = None

    def origin(self, step: int, tokens: int | None, weight_sha: str | None) -> Origin:
        """Return the columns that all rows of a checkpoint share."""
        return Origin(run=self.config.name, step=step, tokens=tokens, weight_sha=weight_sha, **self.identity)

    def failed(self, origin: Origin, label: str, status: str, reason: str) -> CheckpointResult:
        """Return the result of one row that says why there are no others."""
        rows = [origin.failed("checkpoint", status, reason)]
        return CheckpointResult(origin.step, label, origin.weight_sha, status, reason, rows)


class Follower(Protocol):
    """Is told what the work is at."""

    def phase(self, name: str, doing: str) -> AbstractContextManager[None]:
        """Enclose a phase of the checkpoint under way."""

    def measured(self, share: float) -> None:
        """Note which share of the checkpoint is measured."""


class CheckpointMeasurer:
    """Measures one checkpoint after the other for a specification. Raises ``UserError`` as ``OpenedMeasurer``."""

    def __init__(self, spec: MeasurementSpec, follower: Follower) -> None:
        config = spec.config
        self._spec = spec
        self._follower = follower
        self._meter = OpenedMeasurer(config.measures, config.compute, spec.device, spec.probes, spec.steps, spec.only)
        self._scratch: TemporaryDirectory[str] | None = None
        if spec.tokenizer is not None:
            self._scratch = TemporaryDirectory(prefix="pythiageo-tokenizer-")
            spec.tokenizer.write(Path(self._scratch.name))

    def measure(
        self, checkpoint: Checkpoint, failure: Exception | None = None, look: Callable[[], None] = lambda: None
    ) -> CheckpointResult:
        """Open and measure a checkpoint; ``look`` is called between its probe sets.

        ``failure``: why it could not be fetched. Whatever error is met, the result says so; only what concerns more
        than this checkpoint is raised.

        Raises:
            UserError: something that cannot be measured so.
            MachineError: the disk is full, or memory runs out over a single example.
        """
        mishaps = Mishaps()
        try:
            if failure is not None:
                raise failure
            with self._follower.phase("load", f"opening {checkpoint.label}"), loading():
                opened = checkpoint.open()
            if self._scratch is not None:
                opened = replace(opened, tokenizer_folder=Path(self._scratch.name))
            with self._follower.phase("compute", f"measuring {checkpoint.label}"):
                return self._take(checkpoint, opened, look, mishaps)
        except BaseException as error:
            status, reason = mishaps.of_checkpoint(error, checkpoint.label)
            origin = self._spec.origin(checkpoint.step, checkpoint.tokens, None)
            result = self._spec.failed(origin, checkpoint.label, status, reason)
            return replace(result, tracebacks=tuple(mishaps.tracebacks))

    def _take(
        self, checkpoint: Checkpoint, opened: OpenCheckpoint, look: Callable[[], None], mishaps: Mishaps
    ) -> CheckpointResult:
        def tell(share: float) -> None:
            look()
            self._follower.measured(share)

        origin = self._spec.origin(checkpoint.step, checkpoint.tokens, opened.weight_sha)
        taken = self._meter.take(opened, origin, tell, mishaps)
        status, reason = mishaps.outcome(opened.nonfinite)
        return CheckpointResult(
            checkpoint.step,
            checkpoint.label,
            opened.weight_sha,
            status,
            reason,
            taken.rows,
            taken.model,
            source=checkpoint.source(),
            tracebacks=tuple(mishaps.tracebacks),
        )
