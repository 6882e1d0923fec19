"""Training runs on a Ray cluster: each is a task with the cores, the memory and the GPU that it needs.

A run writes its own folder, so that folder must be on storage that every node has under the same path. A run whose
worker ends is handed out again and goes on from its last checkpoint.
"""

from __future__ import annotations

import socket
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from pythiageo.config.runs import TrainConfig
from pythiageo.engines import LOCAL
from pythiageo.engines.jobs import Failure, Job, outcome
from pythiageo.engines.ray.cluster import (
    TRIES,
    WorkerInfo,
    alive,
    cause,
    check,
    check_code,
    check_welcome,
    connected,
    device_on,
    on_node,
)
from pythiageo.errors import EXIT_MACHINE, EXIT_OK, UserError
from pythiageo.progress import Progress, Reporter
from pythiageo.runs.build_training import shape_of, training_memory
from pythiageo.runs.provenance import versions

_TICK = 0.5


def train_on_ray(jobs: Sequence[Job], address: str | None, report: Reporter) -> tuple[int, list[Failure]]:
    """Do training jobs on the cluster at ``address``; return the worst exit code and what failed.

    One failure stops no other. Ctrl-C is passed on to every run, which leaves it resumable.

    Raises:
        UserError: Ray is not installed, there is no cluster at the address, no node has room for a run, or a worker
            has other versions or does not see the run folders.
    """
    with connected(address or "auto") as ray:
        return _Sweep(ray, jobs, report).done()


class _Sweep:
    """The runs that are under way, and those that wait."""

    def __init__(self, ray: Any, jobs: Sequence[Job], report: Reporter) -> None:
        self._ray = ray
        self._report = report
        self._messages = _open_queue(ray)
        self._under_way: dict[Any, Job] = {}
        self._ended: Counter[str] = Counter()
        self._failures: list[Failure] = []
        self._worst = EXIT_OK
        self._sign = _leave_sign(jobs)
        for job in jobs:
            self._check_room(job)
        # a worker's current folder is another, and for the worker it is a run like any
        self._waiting = deque(replace(job, path=job.path.resolve(), engine=LOCAL) for job in jobs)

    def done(self) -> tuple[int, list[Failure]]:
        """Return the worst exit code and the failures, once every run has ended."""
        try:
            while self._waiting or self._under_way:
                while self._waiting:  # Ray itself keeps those back that find no room yet
                    self._start(self._waiting.popleft())
                ended, _ = self._ray.wait(list(self._under_way), timeout=_TICK)
                self._tell()
                for task in ended:
                    self._hear(task, self._under_way.pop(task))
        except KeyboardInterrupt:
            for task in self._under_way:
                self._ray.cancel(task)
            self._ray.wait(list(self._under_way), num_returns=len(self._under_way), timeout=30)
            raise
        finally:
            self._sign.unlink(missing_ok=True)
        self._tell()
        return self._worst, self._failures

    def _needs(self, job: Job) -> dict[str, Any]:
        config = job.config
        assert isinstance(config, TrainConfig)
        on_gpu = device_on(list(alive(self._ray).values()), config.compute.device) != "cpu"
        return {
            "num_cpus": config.compute.thread_count,
            "num_gpus": 1 if on_gpu else 0,
            "memory": 0 if on_gpu else training_memory(config, shape_of(config)),
        }

    def _check_room(self, job: Job) -> None:
        needs = self._needs(job)
        wanted = {"CPU": needs["num_cpus"], "GPU": needs["num_gpus"], "memory": needs["memory"]}
        for resources in alive(self._ray).values():
            if all(resources.get(name, 0) >= amount for name, amount in wanted.items()):
                return
        raise UserError(
            f"{job.config.name}: no node of the Ray cluster has room for it: it takes {wanted['CPU']} CPUs, "
            f"{wanted['GPU']} GPUs, {wanted['memory'] / 1e9:.1f} GB of memory"
        )

    def _start(self, job: Job) -> None:
        remote = self._ray.remote(_train).options(**self._needs(job), max_retries=0, name=job.config.name)
        # in a list it is not read before the worker's versions are known to be ours
        given = [self._ray.put(job)]
        self._under_way[remote.remote(given, self._messages, str(self._sign), versions())] = job

    def _hear(self, task: Any, job: Job) -> None:
        """Note how a run ended; where its worker did, the run goes on from its last checkpoint, a few times."""
        errors, name = self._ray.exceptions, job.config.name
        try:
            answer = self._ray.get(task)
        except errors.RayTaskError as error:
            check_code(error)
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except errors.RayError as error:
            self._ended[name] += 1
            if self._ended[name] < TRIES:
                self._waiting.append(replace(job, resume=True, overwrite=False))
                return
            reason = f"{TRIES} workers ended over it, the last one so: {cause(error)}"
            answer = Failure(name, f"{name}: {reason}; --resume goes on", EXIT_MACHINE)
        if isinstance(answer, WorkerInfo):
            check(answer)
        elif isinstance(answer, Failure):
            self._failures.append(answer)
            self._worst = max(self._worst, answer.exit_code)
        else:
            self._worst = max(self._worst, answer)

    def _tell(self) -> None:
        with suppress(self._ray.exceptions.RayError):
            for message in self._messages.get_nowait_batch(self._messages.qsize()):
                self._report(message)


def _open_queue(ray: Any) -> Any:
    """Return a queue for the runs' messages on this process's node: it ends with no other.

    Raises:
        UserError: the cluster does not take this command's workers.
    """
    from ray.util.queue import Queue  # noqa: PLC0415 - an extra

    here = on_node(ray.get_runtime_context().get_node_id())
    messages = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    try:
        messages.qsize()
    except ray.exceptions.RayError as error:
        check_welcome(error, TRIES)  # this node is there: the first time tells
        raise
    return messages


def _leave_sign(jobs: Sequence[Job]) -> Path:
    """Return a file beside the run folders by which a worker knows that it sees them."""
    folder = jobs[0].path.resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    sign = folder / f".pythiageo-{uuid4().hex}"
    sign.touch()
    return sign


def _train(given: list[Any], messages: Any, sign: str, mine: dict[str, str | None]) -> int | Failure | WorkerInfo:
    """Do the one job that was given on a worker; ``WorkerInfo`` where it cannot be done here."""
    import ray  # noqa: PLC0415 - an extra

    def tell(message: Progress) -> None:
        with suppress(ray.exceptions.RayError):  # a run is no worse for what nobody reads
            messages.put(message)

    seen = Path(sign).exists()
    if not seen or versions() != mine:
        return WorkerInfo(socket.gethostname(), versions(), None if seen else str(Path(sign).parent))
    return outcome(ray.get(given[0]), tell)
