"""Several trainings on one GPU: threads of one process, each with a stream of its own.

A small model leaves most of a GPU idle. Processes take turns on it; streams of one process do not. Every training has
the bits that it has alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Lock
from typing import TypeVar

from pythiageo.interrupts import wait_for_all
from pythiageo.progress import Progress, Reporter

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")


def work_side_by_side(
    jobs: Sequence[Job], at_once: int, device: str, work: Callable[[Job, Reporter], Outcome], report: Reporter
) -> list[Outcome]:
    """Return what ``work`` returns of each job, ``at_once`` of them side by side on a resolved device.

    ``work`` is given a reporter that raises ``KeyboardInterrupt`` once Ctrl-C was pressed, and is waited for then.
    """
    stop, telling = Event(), Lock()

    def tell(progress: Progress) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        with telling:
            report(progress)

    def on_stream(job: Job) -> Outcome:
        with own_stream(device):
            return work(job, tell)

    with ThreadPoolExecutor(at_once, "pythiageo-training") as pool:
        futures = [pool.submit(on_stream, job) for job in jobs]
        try:
            wait_for_all(futures)
        except KeyboardInterrupt:
            stop.set()
            for future in futures:
                future.cancel()
            raise
        return [future.result() for future in futures]


@contextmanager
def own_stream(device: str) -> Iterator[None]:
    """Have what this thread computes on a GPU go to a stream of its own."""
    if device == "cpu":
        yield
        return
    import torch  # noqa: PLC0415

    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        yield
        stream.synchronize()
