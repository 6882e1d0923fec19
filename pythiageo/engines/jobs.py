"""Running configs: one here, or several side by side: each in a process of its own, or on one GPU in a thread."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from pythiageo.compute.device import resolve_device
from pythiageo.config.runs import AnalyzeConfig, RunConfig, TrainConfig
from pythiageo.engines import LOCAL, EngineChoice, open_engine
from pythiageo.engines.one_gpu import work_side_by_side
from pythiageo.errors import EXIT_INTERRUPTED, EXIT_LOOK, EXIT_MACHINE, EXIT_OK, PythiageoError, UserError
from pythiageo.interrupts import interrupt_on_termination
from pythiageo.progress import Progress, Reporter
from pythiageo.runs.check_names import check_names
from pythiageo.runs.folder import STATE, open_run_folder
from pythiageo.synthetic.workers import ALONE, Workers, count_processes, join_workers


@dataclass(frozen=True)
class Job:
    """A resolved config, its folder, and what to do with a run that is already there."""

    config: RunConfig
    path: Path
    resume: bool = False
    overwrite: bool = False
    engine: EngineChoice = LOCAL
    refresh: bool = False
    """Whether an analysis that is gone on with measures anew what moved since."""


def execute(job: Job, report: Reporter) -> int:
    """Do one job in this process; return ``EXIT_OK``, or ``EXIT_LOOK`` where a checkpoint could not be measured.

    Of processes that a launcher started together, all train, and the first one alone opens the run folder.

    Raises:
        PythiageoError: see ``open_engine``, ``open_run_folder``, ``train`` and ``analyze``.
    """
    check_names(job.config)
    workers = _workers(job.config) if isinstance(job.config, TrainConfig) else ALONE
    if isinstance(job.config, TrainConfig) and workers.rank > 0:
        from pythiageo.runs.train import train_along  # noqa: PLC0415

        train_along(job.config, job.path / STATE, workers)
        return EXIT_OK
    with (
        open_engine(job.engine) as engine,
        open_run_folder(
            job.path, job.config, job.resume, job.overwrite, engine.device(job.config.compute.device)
        ) as folder,
    ):
        if isinstance(job.config, TrainConfig):
            from pythiageo.runs.train import train  # noqa: PLC0415 - training does not load the lens

            train(job.config, folder, report, workers)
        elif isinstance(job.config, AnalyzeConfig):
            from pythiageo.runs.analyze import analyze  # noqa: PLC0415

            analyze(job.config, folder, report, engine, job.refresh)
        return EXIT_OK if folder.sound else EXIT_LOOK


def _workers(config: TrainConfig) -> Workers:
    """Join the processes that were started together with this one.

    Raises:
        UserError: a batch has fewer examples than there are processes, or the run would train on a GPU.
    """
    if count_processes() > 1 and resolve_device(config.compute.device) != "cpu":
        raise UserError(
            f"{config.name}: several processes train one model on the CPU alone: --set compute.device=cpu, or one "
            "process on the GPU"
        )
    if config.training.batch_size < count_processes():
        raise UserError(
            f"{config.name}: a batch of {config.training.batch_size} examples cannot be shared by {count_processes()} "
            "processes: launch fewer, or raise training.batch_size"
        )
    return join_workers()


@dataclass(frozen=True)
class Failure:
    """A job that ended with an error, as one sentence."""

    run: str
    message: str
    exit_code: int


def execute_all(jobs: list[Job], at_once: int, report: Reporter) -> tuple[int, list[Failure]]:
    """Do all jobs, ``at_once`` side by side; return the worst exit code and what failed. One failure stops no other.

    Trainings on one GPU share a process (see ``one_gpu``). Ctrl-C is passed on to every job, which leaves its run
    resumable.
    """
    if at_once > 1 and (device := _find_shared_gpu(jobs)) is not None:
        found = work_side_by_side(jobs, at_once, device, outcome, report)
        failures = [one for one in found if isinstance(one, Failure)]
        return max(one.exit_code if isinstance(one, Failure) else one for one in found), failures
    return _execute_in_processes(jobs, at_once, report)


def _execute_in_processes(jobs: list[Job], at_once: int, report: Reporter) -> tuple[int, list[Failure]]:
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    waiting = list(jobs)
    running: dict[str, SpawnProcess] = {}
    failures: list[Failure] = []
    worst = EXIT_OK
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                process = context.Process(target=_child, args=(job, messages), name=job.config.name)
                process.start()
                running[job.config.name] = process
            try:
                message = messages.get(timeout=0.2)
            except queue.Empty:
                for name in [name for name, process in running.items() if not process.is_alive()]:
                    process = running.pop(name)
                    if process.exitcode != 0:  # an ordinary end sends its code first, and exits with 0
                        failures.append(
                            Failure(name, f"{name}: the process ended with code {process.exitcode}", EXIT_MACHINE)
                        )
                        worst = max(worst, EXIT_MACHINE)
                continue
            if isinstance(message, Progress):
                report(message)
            elif isinstance(message, Failure):
                failures.append(message)
                worst = max(worst, message.exit_code)
            else:
                worst = max(worst, message)
    except KeyboardInterrupt:
        for process in running.values():
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGINT)
        for process in running.values():
            process.join()
        raise
    return worst, failures


def _find_shared_gpu(jobs: list[Job]) -> str | None:
    """Return the GPU that all jobs are to train on, ``None`` where there is no such one."""
    if not all(isinstance(job.config, TrainConfig) for job in jobs):
        return None
    devices = {resolve_device(job.config.compute.device) for job in jobs}
    return devices.pop() if len(devices) == 1 and devices.isdisjoint({"cpu", "split"}) else None


def _child(job: Job, messages: Any) -> None:
    parent = os.getppid()
    interrupt_on_termination()

    def report(progress: Progress) -> None:
        if os.getppid() != parent:  # killed: nobody would show, stop or collect this run any more
            raise KeyboardInterrupt
        messages.put(progress)

    messages.put(outcome(job, report))


def outcome(job: Job, report: Reporter) -> int | Failure:
    """Do one job among several; return its exit code, or its error as one sentence. No error of its own is raised."""
    try:
        return execute(job, report)
    except PythiageoError as error:
        return Failure(job.config.name, str(error), error.exit_code)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
