"""Pieces of work side by side on the machine's cores, while the caller goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition
from types import TracebackType
from typing import Any, TypeVar

from pythiageo.compute.threads import one_thread

T = TypeVar("T")


class SideBySide:
    """Threads that work while their caller does something else, bounded in number and in the memory of what waits.

    LAPACK and torch release Python's lock, so they do work at the same time. Every piece is computed on one thread
    (``one_thread``): its bits are the same whatever number of threads there are. With one thread each piece is done
    when it is handed in. Use it as a context manager: at the end pieces that have not begun are dropped.

    Args:
        threads: how many pieces are worked on at a time.
        memory: bytes that all pieces together may take which are handed in and not done; one alone may take more.
    """

    def __init__(self, threads: int, memory: int) -> None:
        self._threads = ThreadPoolExecutor(threads, "pythiageo-piece") if threads > 1 else None
        self._memory = memory
        self._taken = 0
        self._changed = Condition()
        self._first: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._later: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def __enter__(self) -> SideBySide:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._threads is None:
            return
        for future, _ in [*self._first, *self._later]:
            future.cancel()
        self._threads.shutdown()

    def submit(self, work: Callable[[], T], memory: int) -> Future[T]:
        """Hand in a piece that takes so many bytes; waits until there is room. Its error is raised by ``result()``."""
        if self._threads is None:
            return _work_here(work)
        with self._changed:
            # a wait with an end, so that Ctrl-C is heard
            while self._taken and self._taken + memory > self._memory:
                self._changed.wait(0.5)
            self._taken += memory
        future = self._hand_in(self._threads, self._later, work)
        future.add_done_callback(lambda _: self._give_back(memory))
        return future

    def submit_first(self, work: Callable[[], T]) -> Future[T]:
        """Hand in a piece that its caller waits for: it is begun before those of ``submit``."""
        return _work_here(work) if self._threads is None else self._hand_in(self._threads, self._first, work)

    def _hand_in(self, threads: ThreadPoolExecutor, pieces: deque[Any], work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        pieces.append((future, work))
        threads.submit(self._do_next)
        return future

    def _do_next(self) -> None:
        with self._changed:
            future, work = (self._first or self._later).popleft()
        _work_into(future, work)

    def _give_back(self, memory: int) -> None:
        with self._changed:
            self._taken -= memory
            self._changed.notify_all()


def _work_here(work: Callable[[], T]) -> Future[T]:
    """Return the future of a piece that is worked off at once, in the caller's thread; its error is raised here."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()
    with one_thread():
        future.set_result(work())
    return future


def _work_into(future: Future[T], work: Callable[[], T]) -> None:
    """Work a piece off in this thread, unless it was given up; the future has what it returns or raises."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        with one_thread():
            found = work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(found)
