"""What a run needs of whoever executes it. ``pythiageo.engines`` has those that there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from pythiageo.measurement.checkpoint import MeasurementSpec
from pythiageo.measurement.result import CheckpointResult
from pythiageo.runs.analysis_progress import AnalysisProgress
from pythiageo.series.checkpoint import Checkpoint


class WorkerPool(Protocol):
    """Takes checkpoints, fetches and measures them, gives finished results."""

    def results(self, checkpoints: Sequence[Checkpoint]) -> Iterator[CheckpointResult]:
        """Yield each checkpoint's result once, in any order, as soon as it is finished.

        Whoever asks for the next one has kept the last. Leaving early ends the work and drops what was fetched.
        """


class Engine(Protocol):
    """A place where runs are measured."""

    def device(self, wanted: str) -> str:
        """Return the device that a config's ``auto``, ``cpu``, ``cuda`` or ``split`` stands for there.

        Raises:
            UserError: there is none such.
        """

    def pool(self, spec: MeasurementSpec, progress: AnalysisProgress) -> WorkerPool:
        """Return who works on ``spec``.

        Raises:
            UserError: measures, readouts, steps or tasks that there are not.
        """
