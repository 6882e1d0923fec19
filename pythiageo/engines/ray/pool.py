"""The engine of several machines: checkpoints handed to the workers of a Ray cluster, pieces back through its objects.

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
    Facts,
    alive,
    cause,
    check,
    check_code,
    check_welcome,
    device_on,
    gpu_bytes_of,
    on_node,
)
from pythiageo.engines.ray.placement import Room, room_on
from pythiageo.engines.ray.worker import Worker
from pythiageo.errors import MachineError, UserError
from pythiageo.estimate.plan import find_needs
from pythiageo.measure.result import Piece
from pythiageo.measure.spec import Order
from pythiageo.runs.analysis_progress import Watch
from pythiageo.series.checkpoint import Checkpoint
from pythiageo.series.hub.download import HubCheckpoint

PATIENCE = 120.0
"""Seconds without any worker, and without one that only waits for its place, after which the run ends."""
_TICK = 1.0
_PAUSE = 3.0


@dataclass
class _Seat:
    """A place for one worker on a node, who sits there, and what it owes."""

    node: str
    gpus: float
    budget: int | None
    batch_tokens: int
    actor: Any = None
    answer: Any = None
    """The answer that is awaited: the worker's facts at first, then a piece."""
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

    def crew(self, order: Order, watch: Watch) -> RayCrew:
        """See ``Engine``."""
        return RayCrew(self._ray, order, watch)


class RayCrew:
    """Workers on every node that has room.

    A node has as many as its CPUs, its GPUs and its memory allow (``plan``'s figures for a checkpoint), and its disk
    budget: each worker has an equal part of it, in which the largest checkpoint must fit.
    """

    def __init__(self, ray: Any, order: Order, watch: Watch) -> None:
        self._ray = ray
        self._order = order
        self._watch = watch

    def pieces(self, checkpoints: Sequence[Checkpoint]) -> Iterator[Piece]:
        """See ``Crew``.

        Raises:
            UserError: no node has room for a worker; a worker has other versions, no such device, or does not see the
                checkpoints.
            MachineError: no worker is left, or one could not go on (disk full, memory out over one example).
        """
        if checkpoints:
            yield from _Shift(self._ray, self._order, self._watch, checkpoints).pieces()


class _Shift:
    """The workers of one pass over checkpoints."""

    def __init__(self, ray: Any, order: Order, watch: Watch, checkpoints: Sequence[Checkpoint]) -> None:
        self._ray = ray
        self._order = order
        self._watch = watch
        self._all = list(checkpoints)
        self._waiting = deque(checkpoints)
        self._needs = find_needs(order.config, checkpoints, order.probes)
        self._streamed = any(isinstance(checkpoint, HubCheckpoint) for checkpoint in checkpoints)
        self._nodes: set[str] = set()
        self._seats: list[_Seat] = []
        self._ended: Counter[int] = Counter()
        self._begun = self._last_seen = time.monotonic()
        self._open = False
        self._hindrance = ""

    def pieces(self) -> Iterator[Piece]:
        owed = len(self._all)
        self._look_for_nodes()
        if not self._seats:
            raise UserError(f"no node of the Ray cluster has room for one worker: it takes {self._wants()}")
        try:
            while owed:
                for seat in self._answered():
                    for piece in self._hear(seat):
                        owed -= 1
                        yield piece
                self._hand_out()
        finally:
            self._close()

    def _wants(self) -> str:
        compute, disk = self._order.config.compute, self._needs.disk
        gpu = {"cpu": "", "split": ", two GPUs"}.get(self._order.device, ", a GPU")
        room = f", a disk budget of {disk / 1e9:.1f} GB" if disk else ""
        return f"{compute.thread_count} CPUs{gpu}, {self._needs.memory / 1e9:.1f} GB of memory{room}"

    def _look_for_nodes(self) -> None:
        """Place workers on nodes that are new here, while there are checkpoints for them."""
        for node, resources in alive(self._ray).items():
            if node in self._nodes:
                continue
            self._nodes.add(node)
            room = self._room(node, resources)
            budget = self._order.config.fetch.bytes
            part = None if budget is None or not room.workers else budget // room.workers
            for _ in range(min(room.workers, len(self._all) - len(self._seats))):
                seat = _Seat(node, room.gpus, part, self._order.config.compute.batch_tokens)
                self._seats.append(seat)
                self._start(seat)

    def _room(self, node: str, resources: Mapping[str, float]) -> Room:
        asked = self._order.device == "cuda:0" and resources.get("GPU", 0)
        return room_on(resources, self._order, self._needs, gpu_bytes_of(self._ray, node) if asked else 0)

    def _start(self, seat: _Seat) -> None:
        remote = self._ray.remote(Worker).options(
            num_cpus=self._order.config.compute.thread_count,
            num_gpus=seat.gpus,
            memory=self._needs.memory or None,
            max_restarts=0,
            scheduling_strategy=on_node(seat.node),
        )
        seat.actor = remote.remote()
        seat.start_at, seat.known, seat.ready = None, False, False
        seat.answer = seat.actor.introduce.remote()

    def _answered(self) -> list[_Seat]:
        """Wait for a while; return the seats whose answer is there."""
        for seat in self._seats:
            if seat.start_at is not None and seat.start_at < time.monotonic():
                self._start(seat)
        awaited = {seat.answer: seat for seat in self._seats if seat.answer is not None}
        found, _ = self._ray.wait(list(awaited), timeout=_TICK, fetch_local=False) if awaited else ([], [])
        now = time.monotonic()
        if any(seat.ready for seat in self._seats) or (self._seats and not self._hindrance):
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
        self._watch.elsewhere(self._doing())
        return [awaited[answer] for answer in found]

    def _doing(self) -> str:
        """Return who works, and who is waited for, in words."""
        busy = sum(1 for seat in self._seats if seat.owes)
        if not busy:
            return f"waiting for workers{self._hindrance or ', or for their place in the cluster'}"
        return f"{busy} of {len(self._seats)} workers measure" if len(self._seats) > 1 else "1 worker measures"

    def _hear(self, seat: _Seat) -> Iterator[Piece]:
        """Take a worker's answer: a piece is passed on; where the worker has ended, it is replaced."""
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(seat.answer)
        except errors.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except errors.RayError as error:  # ended, killed for want of memory, or its answer lost with its node
            seat.answer = None
            yield from self._lost(seat, error)
            return
        seat.answer = None
        if isinstance(answer, Piece):
            seat.owes.popleft()
            yield answer
        else:
            self._meet(seat, answer)

    def _meet(self, seat: _Seat, facts: Facts) -> None:
        """Take a worker in: its versions first, and only then what other versions might not read."""
        check(facts)
        if seat.known:
            seat.ready, seat.failed, self._hindrance = True, 0, ""
            return
        seat.known = True
        series = [] if self._streamed else self._all
        seat.answer = seat.actor.begin.remote(self._order, seat.budget, self._streamed, seat.batch_tokens, series)

    def _hand_out(self) -> None:
        """Give work to the workers that wait for it; none before every first worker was looked at, or took too long."""
        if not self._open:
            late = time.monotonic() - self._begun > PATIENCE
            self._open = late or all(seat.ready for seat in self._seats)
            if not self._open:
                return
        ready = [seat for seat in self._seats if seat.ready]
        for seat in ready:
            if seat.answer is not None:
                continue
            given = list(seat.again)
            seat.again.clear()
            # near the end nobody holds what another could begin with
            share = -(-len(self._waiting) // len(ready))
            ahead = min(self._order.config.fetch.ahead, share - 1) if self._streamed else 0
            while self._waiting and len(seat.owes) + len(given) < 1 + ahead:
                given.append(self._waiting.popleft())
            seat.owes.extend(given)
            if seat.owes:
                seat.answer = seat.actor.take.remote(given)

    def _lost(self, seat: _Seat, error: Exception) -> Iterator[Piece]:
        """Replace a worker that ended; the checkpoint that it was at is tried again, a few times."""
        check_code(error)
        there = seat.node in alive(self._ray)
        seat.failed += not seat.ready
        check_welcome(error, seat.failed)
        with suppress(Exception):
            self._ray.kill(seat.actor)  # where its answer alone was lost
        if not seat.ready:
            self._hindrance = f": {cause(error)}"
        if seat.owes:
            blamed = seat.owes.popleft()
            self._ended[blamed.step] += 1
            if self._ended[blamed.step] < TRIES:
                seat.again.append(blamed)
            else:
                reason = f"{blamed.label}: {TRIES} workers ended over it, the last one so: {cause(error)}"
                origin = self._order.origin(blamed.step, blamed.tokens, None)
                yield self._order.failed(origin, blamed.label, "unreadable", reason)
            memory = isinstance(error, self._ray.exceptions.OutOfMemoryError)
            if memory or self._ended[blamed.step] == TRIES - 1:  # the kernel's killer gives no reason
                seat.batch_tokens = max(1, seat.batch_tokens // 2)
        self._waiting.extendleft(reversed(seat.owes))
        seat.owes.clear()
        if there and seat.ready:
            self._start(seat)
        elif there:  # it never was: at once it would be no better
            seat.start_at = time.monotonic() + _PAUSE
        else:
            self._waiting.extendleft(reversed(seat.again))
            self._seats.remove(seat)

    def _close(self) -> None:
        """Let workers drop what they fetched, then end them."""
        with suppress(Exception):
            self._ray.wait(
                [seat.actor.close.remote() for seat in self._seats if not seat.owes],
                num_returns=max(1, sum(not seat.owes for seat in self._seats)),
                timeout=CONNECT,
            )
        for seat in self._seats:
            with suppress(Exception):
                self._ray.kill(seat.actor)
