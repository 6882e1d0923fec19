"""Ctrl-C and SIGTERM: what waits ends, what was measured is kept, and who asks twice is obeyed at once."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from pythiageo.errors import EXIT_INTERRUPTED

_SLICE = 0.2
"""Seconds of one wait: one without an end would not hear Ctrl-C once polars has run."""
_NUDGES = 3

Item = TypeVar("Item")
Result = TypeVar("Result")


def interrupt_on_termination() -> None:
    """Make SIGTERM raise ``KeyboardInterrupt`` in the main thread, as Ctrl-C does: so a batch system asks first."""
    signal.signal(signal.SIGTERM, _interrupt)


def answer_signals() -> None:
    """Answer signals as the command line does; call it in the main thread, once.

    SIGTERM is Ctrl-C. The first of either raises ``KeyboardInterrupt``, in a wait too that polars' handler has made
    deaf; the second ends the process at once, wherever it is.
    """
    interrupt_on_termination()
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    # a system call that a handler restarts is broken by a signal whose handler does not; nobody else uses this one
    signal.signal(signal.SIGURG, lambda *_: None)
    main = threading.main_thread().ident
    threading.Thread(target=_watch, args=(reader, writer, main), name="signals", daemon=True).start()


def wait_for_all(futures: Sequence[Future[Any]]) -> None:
    """Wait until all are done, and hear Ctrl-C meanwhile."""
    while not all(future.done() for future in futures):
        wait(futures, timeout=_SLICE)


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield what ``function`` returns of each item, in their order, from several threads.

    Whoever leaves early, by an error or Ctrl-C, does not wait for what the threads are at.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        for future in [pool.submit(function, item) for item in items]:
            wait_for_all([future])
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _watch(reader: socket.socket, writer: socket.socket, main: int) -> None:
    """Count the signals that arrive; ``writer`` is held so that it stays open."""
    asked = 0
    while writer.fileno() >= 0:
        for number in reader.recv(64):
            if number not in (signal.SIGINT, signal.SIGTERM):
                continue
            asked += 1
            if asked > 1:
                os._exit(EXIT_INTERRUPTED)
            for _ in range(_NUDGES):
                signal.pthread_kill(main, signal.SIGURG)
                time.sleep(0.05)
