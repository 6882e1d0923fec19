"""The engine that needs no other: one checkpoint after the other in this process, those on the Hub fetched ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pythiageo.measure.result import Piece
from pythiageo.measure.spec import Order, Workbench
from pythiageo.runs.analysis_progress import Watch
from pythiageo.series.checkpoint import Checkpoint
from pythiageo.series.hub.download import HubCheckpoint
from pythiageo.series.prefetch import Stream


class LocalCrew:
    """Measures here. Raises ``UserError`` as ``Meter``."""

    def __init__(self, order: Order, watch: Watch) -> None:
        self._fetch = order.config.fetch
        self._watch = watch
        self._bench = Workbench(order, watch)

    def pieces(self, checkpoints: Sequence[Checkpoint]) -> Iterator[Piece]:
        """Yield the pieces in the order of the checkpoints; a fetched checkpoint is dropped when the next is asked."""
        fetched = [checkpoint for checkpoint in checkpoints if isinstance(checkpoint, HubCheckpoint)]
        if fetched:
            yield from self._streamed(fetched)
        for checkpoint in checkpoints:
            if not isinstance(checkpoint, HubCheckpoint):
                yield self._bench.measure(checkpoint)

    def _streamed(self, checkpoints: list[HubCheckpoint]) -> Iterator[Piece]:
        watch, stream = self._watch, Stream(checkpoints, self._fetch.bytes, self._fetch.ahead)
        for brought in stream.while_waiting(lambda: watch.arriving(stream.arrival(), waits=True)):
            watch.fetched(stream.seconds(brought))
            yield self._bench.measure(brought, stream.failure(brought), lambda: watch.arriving(stream.arrival()))
        watch.arriving(None)
