"""The engine that needs no other: one checkpoint after the other in this process, the next ones fetched meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pythiageo.measurement.checkpoint import CheckpointMeasurer, MeasurementSpec
from pythiageo.measurement.result import CheckpointResult
from pythiageo.runs.analysis_progress import AnalysisProgress
from pythiageo.runs.harness import open_and_score
from pythiageo.series.checkpoint import Checkpoint, Fetchable, is_fetchable
from pythiageo.series.prefetch import Stream


class LocalPool:
    """Measures here. Raises ``UserError`` as ``CheckpointMeasurer``."""

    def __init__(self, spec: MeasurementSpec, progress: AnalysisProgress) -> None:
        self._fetch = spec.fetch
        self._progress = progress
        self._measurer = CheckpointMeasurer(spec, open_and_score(spec), progress)

    def results(self, checkpoints: Sequence[Checkpoint]) -> Iterator[CheckpointResult]:
        """Yield the results in the order of the checkpoints; a fetched checkpoint is dropped when the next is asked."""
        fetched = list(filter(is_fetchable, checkpoints))
        if fetched:
            yield from self._streamed(fetched)
        for checkpoint in checkpoints:
            if checkpoint not in fetched:
                yield self._measurer.measure(checkpoint)

    def _streamed(self, checkpoints: list[Fetchable]) -> Iterator[CheckpointResult]:
        progress, stream = self._progress, Stream(checkpoints, self._fetch.bytes, self._fetch.ahead)
        for brought in stream.while_waiting(lambda: progress.report_arrival(stream.arrival(), waits=True)):
            progress.note_fetch(stream.seconds(brought))
            yield self._measurer.measure(
                brought, stream.failure(brought), lambda: progress.report_arrival(stream.arrival())
            )
        progress.report_arrival(None)
