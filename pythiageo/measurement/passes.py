"""Forward passes within bounds of memory: several side by side, and smaller ones where it runs out all the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Generic, TypeVar

import torch

from pythiageo.compute.side_by_side import SideBySide
from pythiageo.errors import MEMORY, MachineError, machine_trouble
from pythiageo.interrupts import wait_for_all
from pythiageo.measurement.reader import Bounds

P = TypeVar("P")


class Passes:
    """Makes forward passes, ``at_once`` of them at a time on the threads of ``side_by_side``.

    Each is computed on one thread and none sees another, so their bits do not depend on how many there are. Where
    memory runs out, they are made one after another from there on; where it runs out over one, it is divided and the
    bound of the next ones is halved.
    """

    def __init__(self, bounds: Bounds, side_by_side: SideBySide, at_once: int = 1) -> None:
        self.bounds = bounds
        self.side_by_side = side_by_side
        self._at_once = at_once

    def make(self, passes: Iterator[P], read: Callable[[P], object], divide: Callable[[P], list[P]]) -> None:
        """Call ``read`` for each of ``passes``, which are asked for as they are begun.

        ``divide``: returns the parts of a pass under the halved bound, none of one that cannot be divided.

        Raises:
            MachineError: memory runs out over a pass that cannot be divided.
        """
        queue = _Queue(passes)
        if self._at_once > 1 and not self._make_at_once(queue, read):
            self._at_once = 1
        for one in queue:
            if not _suffices(partial(read, one)):
                # out of the handler: what the error's frames hold is free again
                queue.put_back(self._halve(one, divide))

    def _make_at_once(self, queue: _Queue[P], read: Callable[[P], object]) -> bool:
        """Make passes side by side; return whether memory sufficed. What is not done is put back."""
        under_way: deque[tuple[P, Future[object]]] = deque()
        try:
            while True:
                # twice as many: a thread that is done goes on while the first one is waited for
                while len(under_way) < 2 * self._at_once and (one := next(queue, None)) is not None:
                    under_way.append((one, self.side_by_side.submit_first(partial(read, one))))
                if not under_way:
                    return True
                one, future = under_way[0]
                wait_for_all([future])
                if not _suffices(future.result):
                    return False
                under_way.popleft()
        finally:
            for _, future in under_way:
                future.cancel()
            wait_for_all([future for _, future in under_way])
            queue.put_back([one for one, _ in under_way])

    def _halve(self, one: P, divide: Callable[[P], list[P]]) -> list[P]:
        self.bounds.tokens = max(1, self.bounds.tokens // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if parts := divide(one):
            return parts
        raise MachineError(
            "memory runs out over one single example: take a smaller model, another device or --dtype bfloat16"
        )


class _Queue(Generic[P]):
    """What is still to be done, in order."""

    def __init__(self, passes: Iterator[P]) -> None:
        self._passes = passes
        self._again: deque[P] = deque()

    def __iter__(self) -> Iterator[P]:
        return self

    def __next__(self) -> P:
        return self._again.popleft() if self._again else next(self._passes)

    def put_back(self, passes: list[P]) -> None:
        self._again.extendleft(reversed(passes))


def _suffices(read: Callable[[], object]) -> bool:
    """Return whether memory suffices for a pass. Raises whatever else it ends in."""
    try:
        read()
    except (RuntimeError, MemoryError) as error:
        if machine_trouble(error) != MEMORY:
            raise
        return False
    return True
