"""A process of a Ray cluster that measures checkpoints: fetches ahead into a folder of its own, gives results back."""

from __future__ import annotations

import queue
import shutil
import socket
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from uuid import uuid4

import torch
from filelock import FileLock, Timeout

from pythiageo.compute.device import resolve_device
from pythiageo.engines.ray.cluster import WorkerInfo
from pythiageo.measurement.checkpoint import CheckpointMeasurer, MeasurementSpec, Stopwatch
from pythiageo.measurement.result import CheckpointResult
from pythiageo.runs.harness import open_and_score
from pythiageo.runs.provenance import versions
from pythiageo.series.checkpoint import Checkpoint, Fetchable, InFolder
from pythiageo.series.prefetch import Stream

SCRATCH = "pythiageo-ray"
"""Folder in a node's temporary folder, where checkpoints are on their way through."""


class Worker:
    """Introduces itself, begins on a specification, then measures what it is given, one after the other."""

    def introduce(self) -> WorkerInfo:
        """Return where this is and its versions."""
        return WorkerInfo(socket.gethostname(), versions(), None)

    def begin(
        self, spec: MeasurementSpec, budget: int | None, streamed: bool, batch_tokens: int, series: Sequence[Checkpoint]
    ) -> WorkerInfo:
        """Make ready for ``spec``; return whether the checkpoint folders of ``series`` are seen from here too.

        ``budget``: bytes that checkpoints may take on the disk. ``streamed``: they are fetched ahead. ``batch_tokens``
        takes the place of the config's.

        Raises:
            UserError: it has not the device that the run is measured on.
        """
        resolve_device(spec.device)
        compute = spec.config.compute.model_copy(update={"batch_tokens": batch_tokens})
        self._spec = replace(spec, config=spec.config.model_copy(update={"compute": compute}))
        self._budget = budget
        self._clock = Stopwatch()
        self._waiting: queue.Queue[Any] = queue.Queue()
        self._scratch = Scratch(Path(gettempdir()) / SCRATCH) if streamed else None
        self._results = self._fetched() if streamed else self._here()
        folders = [one.path for one in series if isinstance(one, InFolder)]
        unseen = next((str(folder) for folder in folders if not folder.is_dir()), None)
        return replace(self.introduce(), unseen=unseen)

    def take(self, given: Sequence[Checkpoint]) -> CheckpointResult:
        """Take ``given`` on, and return the result of the first checkpoint that is still owed.

        Raises:
            UserError: something that cannot be measured so.
            MachineError: the disk is full, or memory runs out over a single example.
        """
        for checkpoint in given:
            self._waiting.put(checkpoint)
        return replace(next(self._results), seconds=self._clock.read())

    def close(self) -> None:
        """Drop what was fetched."""
        self._waiting.put(None)
        self._results.close()
        if self._scratch is not None:
            self._scratch.remove()

    def _make_measurer(self) -> CheckpointMeasurer[Checkpoint]:
        torch.set_num_threads(1)  # of one piece of work: compute.threads of them are at work at a time
        return CheckpointMeasurer(self._spec, open_and_score(self._spec), self._clock)

    def _here(self) -> Generator[CheckpointResult, None, None]:
        measurer = self._make_measurer()
        for checkpoint in iter(self._waiting.get, None):
            yield measurer.measure(checkpoint)

    def _fetched(self) -> Generator[CheckpointResult, None, None]:
        measurer = self._make_measurer()
        stream = Stream(self._brought(), self._budget, self._spec.fetch.ahead)
        for checkpoint in stream:
            self._clock.note_fetch(stream.seconds(checkpoint))
            yield measurer.measure(checkpoint, stream.failure(checkpoint))

    def _brought(self) -> Iterator[Fetchable]:
        keep = self._spec.fetch.keep
        assert self._scratch is not None
        for checkpoint in iter(self._waiting.get, None):
            yield checkpoint if keep else checkpoint.stored_in(self._scratch.path)


class Scratch:
    """A folder of this process's own inside ``root``. Those of processes that were killed are removed first."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        for left in root.glob("*.lock"):
            lock = FileLock(left)
            try:
                lock.acquire(timeout=0)
            except Timeout:  # in use
                continue
            except OSError:  # another user's
                continue
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            left.unlink(missing_ok=True)
            lock.release()
        self.path = root / uuid4().hex
        self._file = self.path.with_suffix(".lock")
        self._lock = FileLock(self._file)
        self._lock.acquire()

    def remove(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._file.unlink(missing_ok=True)
        self._lock.release()
