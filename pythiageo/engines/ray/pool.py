"""The engine of several machines: checkpoints handed to the workers of a Ray cluster, results back through its objects.

Workers never write to the run folder and need not see it. A worker that ends with its process, its machine or for want
of memory is replaced, and what it owed is handed out again.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pythiageo.engines.ray.cluster import (
    CONNECT,
    TRIES,
    WorkerInfo,
    alive,
    cause,
    check,
    check_code,
    check_welcome,
    device_on,
    gpu_bytes_of,
    on_node,
)
from pythiageo.engines.ray.placement import Capacity, capacity_of, share_cores
from pythiageo.engines.ray.worker import Worker
from pythiageo.errors import MachineError, UserError
from pythiageo.estimate.plan import find_needs
from pythiageo.measurement.checkpoint import MeasurementSpec
from pythiageo.measurement.result import CheckpointResult
from pythiageo.runs.analysis_progress import AnalysisProgress
from pythiageo.series.checkpoint import Checkpoint, is_fetchable

PATIENCE = 120.0
"""Seconds without any worker, and without one that only waits for its place, after which the run ends."""
_TICK = 1.0
_PAUSE = 3.0


@dataclass
class _Slot:
    """A place for one worker on a node, who sits there, and what it owes."""

    node: str
    gpus: float
    budget: int | None
    batch_tokens: int
    actor: Any = None
    answer: Any = None
    """The answer that is awaited: the worker's facts at first, then a result."""
    known: bool = False
    """Whether its versions are ours."""
    ready: bool = False
    owes: deque[Checkpoint] = field(default_factory=deque)
    again: deque[Checkpoint] = field(default_factory=deque)
    """What its predecessor ended over."""
    failed: int = 0
    """Workers in a row that did not come to be."""
    start_at: float | None = None
    """When the next one is tried."""


class RayEngine:
    """Measures on a cluster. ``ray``: Ray, connected to it."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    def device(self, wanted: str) -> str:
        """See ``Engine``: the device of the cluster's nodes, whatever this machine has."""
        return device_on(list(alive(self._ray).values()), wanted)

    def pool(self, spec: MeasurementSpec, progress: AnalysisProgress) -> RayPool:
        """See ``Engine``."""
        return RayPool(self._ray, share_cores(spec), progress)


class RayPool:
    """Workers on every node that has room.

    A node has as many as its CPUs, its GPUs and its memory allow (``plan``'s figures for a checkpoint), and its disk
    budget: each worker has an equal part of it, in which the largest checkpoint must fit.
    """

    def __init__(self, ray: Any, spec: MeasurementSpec, progress: AnalysisProgress) -> None:
        self._ray = ray
        self._spec = spec
        self._progress = progress

    def results(self, checkpoints: Sequence[Checkpoint]) -> Iterator[CheckpointResult]:
        """See ``WorkerPool``.

        Raises:
            UserError: no node has room for a worker; a worker has other versions, no such device, or does not see the
                checkpoints.
            MachineError: no worker is left, or one could not go on (disk full, memory out over one example).
        """
        if checkpoints:
            yield from _Pass(self._ray, self._spec, self._progress, checkpoints).results()


class _Pass:
    """The workers of one pass over checkpoints."""

    def __init__(
        self, ray: Any, spec: MeasurementSpec, progress: AnalysisProgress, checkpoints: Sequence[Checkpoint]
    ) -> None:
        self._ray = ray
        self._spec = spec
        self._progress = progress
        self._all = list(checkpoints)
        self._waiting = deque(checkpoints)
        self._needs = find_needs(spec, checkpoints)
        self._streamed = all(map(is_fetchable, checkpoints))
        self._nodes: set[str] = set()
        self._slots: list[_Slot] = []
        self._ended: Counter[int] = Counter()
        self._begun = self._last_seen = time.monotonic()
        self._open = False
        self._hindrance = ""

    def results(self) -> Iterator[CheckpointResult]:
        owed = len(self._all)
        self._look_for_nodes()
        if not self._slots:
            raise UserError(f"no node of the Ray cluster has room for one worker: it takes {self._wants()}")
        try:
            while owed:
                for slot in self._answered():
                    for result in self._hear(slot):
                        owed -= 1
                        yield result
                self._hand_out()
        finally:
            self._close()

    def _wants(self) -> str:
        compute, disk = self._spec.config.compute, self._needs.disk
        gpu = {"cpu": "", "split": ", two GPUs"}.get(self._spec.device, ", a GPU")
        room = f", a disk budget of {disk / 1e9:.1f} GB" if disk else ""
        return f"{compute.thread_count} CPUs{gpu}, {self._needs.memory / 1e9:.1f} GB of memory{room}"

    def _look_for_nodes(self) -> None:
        """Place workers on nodes that are new here, while there are checkpoints for them."""
        for node, resources in alive(self._ray).items():
            if node in self._nodes:
                continue
            self._nodes.add(node)
            room = self._capacity(node, resources)
            budget = self._spec.fetch.bytes
            part = None if budget is None or not room.workers else budget // room.workers
            for _ in range(min(room.workers, len(self._all) - len(self._slots))):
                slot = _Slot(node, room.gpus, part, self._spec.config.compute.batch_tokens)
                self._slots.append(slot)
                self._start(slot)

    def _capacity(self, node: str, resources: Mapping[str, float]) -> Capacity:
        asked = self._spec.device == "cuda:0" and resources.get("GPU", 0)
        return capacity_of(resources, self._spec, self._needs, gpu_bytes_of(self._ray, node) if asked else 0)

    def _start(self, slot: _Slot) -> None:
        remote = self._ray.remote(Worker).options(
            num_cpus=self._spec.config.compute.thread_count,
            num_gpus=slot.gpus,
            memory=self._needs.memory or None,
            max_restarts=0,
            scheduling_strategy=on_node(slot.node),
        )
        slot.actor = remote.remote()
        slot.start_at, slot.known, slot.ready = None, False, False
        slot.answer = slot.actor.introduce.remote()

    def _answered(self) -> list[_Slot]:
        """Wait for a while; return the slots whose answer is there."""
        for slot in self._slots:
            if slot.start_at is not None and slot.start_at < time.monotonic():
                self._start(slot)
        awaited = {slot.answer: slot for slot in self._slots if slot.answer is not None}
        found, _ = self._ray.wait(list(awaited), timeout=_TICK, fetch_local=False) if awaited else ([], [])
        now = time.monotonic()
        if any(slot.ready for slot in self._slots) or (self._slots and not self._hindrance):
            self._last_seen = now  # at work, or waiting for a place that others still use
        if not found:
            self._look_for_nodes()
            if not awaited:
                time.sleep(_TICK)
        if now - self._last_seen > PATIENCE:
            raise MachineError(
                f"no worker of the Ray cluster has been there for {PATIENCE:.0f} s{self._hindrance}; what was "
                "measured is kept: --resume"
            )
        self._progress.report_elsewhere(self._doing())
        return [awaited[answer] for answer in found]

    def _doing(self) -> str:
        """Return who works, and who is waited for, in words."""
        busy = sum(1 for slot in self._slots if slot.owes)
        if not busy:
            return f"waiting for workers{self._hindrance or ', or for their place in the cluster'}"
        return f"{busy} of {len(self._slots)} workers measure" if len(self._slots) > 1 else "1 worker measures"

    def _hear(self, slot: _Slot) -> Iterator[CheckpointResult]:
        """Take a worker's answer: a result is passed on; where the worker has ended, it is replaced."""
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(slot.answer)
        except errors.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except errors.RayError as error:  # ended, killed for want of memory, or its answer lost with its node
            slot.answer = None
            yield from self._lost(slot, error)
            return
        slot.answer = None
        if isinstance(answer, CheckpointResult):
            slot.owes.popleft()
            yield answer
        else:
            self._meet(slot, answer)

    def _meet(self, slot: _Slot, facts: WorkerInfo) -> None:
        """Take a worker in: its versions first, and only then what other versions might not read."""
        check(facts)
        if slot.known:
            slot.ready, slot.failed, self._hindrance = True, 0, ""
            return
        slot.known = True
        series = [] if self._streamed else self._all
        slot.answer = slot.actor.begin.remote(self._spec, slot.budget, self._streamed, slot.batch_tokens, series)

    def _hand_out(self) -> None:
        """Give work to the workers that wait for it; none before every first worker was looked at, or took too long."""
        if not self._open:
            late = time.monotonic() - self._begun > PATIENCE
            self._open = late or all(slot.ready for slot in self._slots)
            if not self._open:
                return
        ready = [slot for slot in self._slots if slot.ready]
        for slot in ready:
            if slot.answer is not None:
                continue
            given = list(slot.again)
            slot.again.clear()
            # near the end nobody holds what another could begin with
            share = -(-len(self._waiting) // len(ready))
            ahead = min(self._spec.fetch.ahead, share - 1) if self._streamed else 0
            while self._waiting and len(slot.owes) + len(given) < 1 + ahead:
                given.append(self._waiting.popleft())
            slot.owes.extend(given)
            if slot.owes:
                slot.answer = slot.actor.take.remote(given)

    def _lost(self, slot: _Slot, error: Exception) -> Iterator[CheckpointResult]:
        """Replace a worker that ended; the checkpoint that it was at is tried again, a few times."""
        check_code(error)
        there = slot.node in alive(self._ray)
        slot.failed += not slot.ready
        check_welcome(error, slot.failed)
        with suppress(Exception):
            self._ray.kill(slot.actor)  # where its answer alone was lost
        if not slot.ready:
            self._hindrance = f": {cause(error)}"
        if slot.owes:
            blamed = slot.owes.popleft()
            self._ended[blamed.step] += 1
            if self._ended[blamed.step] < TRIES:
                slot.again.append(blamed)
            else:
                reason = f"{blamed.label}: {TRIES} workers ended over it, the last one so: {cause(error)}"
                origin = self._spec.origin(blamed.step, blamed.tokens, None)
                yield CheckpointResult.failed(origin, blamed.label, "unreadable", reason)
            memory = isinstance(error, self._ray.exceptions.OutOfMemoryError)
            if memory or self._ended[blamed.step] == TRIES - 1:  # the kernel's killer gives no reason
                slot.batch_tokens = max(1, slot.batch_tokens // 2)
        self._waiting.extendleft(reversed(slot.owes))
        slot.owes.clear()
        if there and slot.ready:
            self._start(slot)
        elif there:  # it never was: at once it would be no better
            slot.start_at = time.monotonic() + _PAUSE
        else:
            self._waiting.extendleft(reversed(slot.again))
            self._slots.remove(slot)

    def _close(self) -> None:
        """Let workers drop what they fetched, then end them."""
        with suppress(Exception):
            self._ray.wait(
                [slot.actor.close.remote() for slot in self._slots if not slot.owes],
                num_returns=max(1, sum(not slot.owes for slot in self._slots)),
                timeout=CONNECT,
            )
        for slot in self._slots:
            with suppress(Exception):
                self._ray.kill(slot.actor)
