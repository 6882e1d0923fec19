"""The engine of several machines: checkpoints handed to the workers of a Ray cluster, pieces back through its objects.

Workers never write to the run folder and need not see it. A worker that ends with its process, its machine or for want
of memory is replaced, and what it owed is handed out again.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pythiageo.errors import MachineError, UserError, first_line
from pythiageo.runs.engines.worker import Facts, Worker, unlike
from pythiageo.runs.piece import Piece
from pythiageo.runs.planning import Needs, find_needs
from pythiageo.runs.provenance import versions
from pythiageo.runs.watch import Watch
from pythiageo.runs.workbench import Order
from pythiageo.series.checkpoint import Checkpoint
from pythiageo.series.fetching import HubCheckpoint

TRIES = 3
"""Workers that may end over one checkpoint before it is given up."""
PATIENCE = 120.0
"""Seconds without any worker after which the run ends; it can be resumed."""
_TICK = 1.0
_PAUSE = 3.0
_CONNECT = 5.0
_HANDED_ON = (
    "HF_ENDPOINT",
    "HF_HUB_DISABLE_XET",
    "HF_HUB_DISABLE_TELEMETRY",
    "PYTHIAGEO_HUB_WAITS",
    "PYTHIAGEO_HUB_LONGEST_WAIT",
)


@dataclass
class _Seat:
    """A place for one worker on a node, who sits there, and what it owes."""

    node: str
    budget: int | None
    batch_tokens: int
    actor: Any = None
    answer: Any = None
    """The answer that is awaited: the worker's facts at first, then a piece."""
    ready: bool = False
    owes: deque[Checkpoint] = field(default_factory=deque)
    again: deque[Checkpoint] = field(default_factory=deque)
    """What its predecessor ended over."""
    gpus: float = 0
    start_at: float | None = None
    """When a worker that did not come to be is tried again."""


class RayEngine:
    """Measures on the cluster at ``address``.

    A node has as many workers as its CPUs, its GPUs and its memory allow (``plan``'s figures for a checkpoint), and
    its disk budget: each worker has an equal part of it, in which the largest checkpoint must fit.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, order: Order, watch: Watch, address: str | None) -> None:
        self._order = order
        self._watch = watch
        self._address = address or "auto"
        self._ray = import_ray()

    def pieces(self, checkpoints: Sequence[Checkpoint]) -> Iterator[Piece]:
        """Yield the pieces as they are finished.

        Raises:
            UserError: no node has room for a worker; a worker has other versions, no such device, or does not see the
                checkpoints.
            MachineError: no worker is left, or one could not go on (disk full, memory out over one example).
        """
        if not checkpoints:
            return
        with connected(self._ray, self._address):
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
        gpu = ", a GPU" if self._on_gpu() else ""
        room = f", a disk budget of {disk / 1e9:.1f} GB" if disk else ""
        return f"{compute.thread_count} CPUs{gpu}, {self._needs.memory / 1e9:.1f} GB of memory{room}"

    def _on_gpu(self) -> bool:
        return self._order.device != "cpu"

    def _look_for_nodes(self) -> None:
        """Place workers on nodes that are new here, while there are checkpoints for them."""
        for node in self._ray.nodes():
            if not node["Alive"] or node["NodeID"] in self._nodes:
                continue
            self._nodes.add(node["NodeID"])
            budget = self._order.config.fetch.bytes
            count = places(node["Resources"], self._order, self._needs)
            for _ in range(min(count, len(self._all) - len(self._seats))):
                part = None if budget is None else budget // count
                seat = _Seat(node["NodeID"], part, self._order.config.compute.batch_tokens)
                seat.gpus = gpus_of_a_worker(self._order.device, node["Resources"])
                self._seats.append(seat)
                self._start(seat)

    def _start(self, seat: _Seat) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

        remote = self._ray.remote(Worker).options(
            num_cpus=self._order.config.compute.thread_count,
            num_gpus=seat.gpus,
            memory=self._needs.memory or None,
            max_restarts=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(seat.node, soft=False),
        )
        seat.actor = remote.remote(self._order, seat.budget, self._streamed, seat.batch_tokens)
        seat.start_at = None
        seat.answer, seat.ready = seat.actor.facts.remote([] if self._streamed else self._all), False

    def _answered(self) -> list[_Seat]:
        """Wait for a while; return the seats whose answer is there."""
        for seat in self._seats:
            if seat.start_at is not None and seat.start_at < time.monotonic():
                self._start(seat)
        awaited = {seat.answer: seat for seat in self._seats if seat.answer is not None}
        found, _ = self._ray.wait(list(awaited), timeout=_TICK, fetch_local=False) if awaited else ([], [])
        now = time.monotonic()
        if any(seat.ready for seat in self._seats):
            self._last_seen = now
        if not found:
            self._look_for_nodes()
            if not awaited:
                time.sleep(_TICK)
        if now - self._last_seen > PATIENCE:
            raise MachineError(
                f"no worker of the Ray cluster has been there for {PATIENCE:.0f} s{self._hindrance}; what was "
                "measured is kept: --resume"
            )
        busy = sum(1 for seat in self._seats if seat.owes)
        self._watch.elsewhere(f"{busy} workers measure" if busy else f"waiting for workers{self._hindrance}")
        return [awaited[answer] for answer in found]

    def _hear(self, seat: _Seat) -> Iterator[Piece]:
        """Take a worker's answer: a piece is passed on; where the worker has ended, it is replaced."""
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(seat.answer)
        except errors.RayActorError as error:
            seat.answer = None
            yield from self._lost(seat, error)
            return
        except errors.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        seat.answer = None
        if isinstance(answer, Piece):
            seat.owes.popleft()
            yield answer
        else:
            check(answer)
            seat.ready = True

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
        alive = any(node["NodeID"] == seat.node and node["Alive"] for node in self._ray.nodes())
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
            if (
                "OUT_OF_MEMORY" in str(error) or self._ended[blamed.step] == TRIES - 1
            ):  # the kernel's killer says nothing
                seat.batch_tokens = max(1, seat.batch_tokens // 2)
        self._waiting.extendleft(reversed(seat.owes))
        seat.owes.clear()
        if alive and seat.ready:
            self._start(seat)
        elif alive:  # it never was: at once it would be no better
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
                timeout=_CONNECT,
            )
        for seat in self._seats:
            with suppress(Exception):
                self._ray.kill(seat.actor)


def check(facts: Facts) -> None:
    """Refuse a worker whose numbers could be others, or who does not see a folder that it needs."""
    if difference := unlike(versions(), facts.versions):
        raise UserError(f"the worker on {facts.host} has {difference}: numbers of one table come from one version")
    if facts.unseen is not None:
        raise UserError(
            f"the worker on {facts.host} does not see {facts.unseen}: it must be on storage that every node has under "
            "the same path"
        )


def cause(error: Exception) -> str:
    """Return the line of Ray's long message that says why a worker ended."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if "exit detail" in line or line.endswith("Error") or "Error: " in line]
    return (telling[-1] if telling else first_line(error))[:300]


def places(resources: dict[str, float], order: Order, needs: Needs) -> int:
    """Return how many workers a node of these resources has room for."""
    counts = [resources.get("CPU", 0) // order.config.compute.thread_count]
    if needs.memory:
        counts.append(resources.get("memory", 0) // needs.memory)
    if order.device != "cpu":
        counts.append(resources.get("GPU", 0) // max(1, gpus_of_a_worker(order.device, resources)))
    budget = order.config.fetch.bytes
    if budget is not None and needs.disk:
        counts.append(max(1, budget // needs.disk))  # one that fits nowhere is told by its worker, as it is locally
    return int(min(counts))


def gpus_of_a_worker(device: str, resources: dict[str, float]) -> float:
    """Return how many GPUs a worker has on a node of these resources: one, or all of them for a divided model."""
    if device == "cpu":
        return 0
    return max(2, resources.get("GPU", 0)) if device == "split" else 1


def import_ray() -> Any:
    """Return Ray. Raises ``UserError`` where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError:
        raise UserError("--engine ray: Ray is not installed here: pip install 'pythiageo[ray]'") from None
    return ray


@contextmanager
def connected(ray: Any, address: str) -> Iterator[None]:
    """Be connected to the cluster at ``address``; ``local`` starts one on this machine that ends with it.

    Raises:
        UserError: there is none, or one of another version.
    """
    if address.startswith("ray://"):
        raise UserError("--address: run pythiageo on a machine of the cluster, with HOST:PORT or auto; not ray://")
    host, _, port = address.partition(":")
    if address not in {"auto", "local"}:
        try:
            socket.create_connection((host, int(port)), _CONNECT).close()  # Ray itself would try for minutes
        except (OSError, ValueError, OverflowError):
            raise UserError(
                f"--address: there is no Ray cluster at {address!r}: expected HOST:PORT, auto or local"
            ) from None
    told = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    more = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, runtime_env={"env_vars": told}, log_to_driver=False, logging_level="ERROR", **more)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UserError(f"--engine ray: no Ray cluster at {address!r}: {first_line(error)}") from None
    try:
        yield
    finally:
        ray.shutdown()
