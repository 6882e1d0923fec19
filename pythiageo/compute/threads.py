"""Linear algebra on one thread: the same bits whatever number of threads there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from threading import Lock
from typing import Any

import torch
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch, BLAS and LAPACK use one thread for what this thread computes, and then as many as before.

    A product or a reduction that is divided among threads is summed in another order by another number of them. Work is
    spread over cores by doing several such things side by side. Torch keeps the number for each thread by itself;
    SciPy's OpenBLAS has one for the process, which is given back when the last of those inside leaves.
    """
    before = torch.get_num_threads()
    with _openblas:
        if before != 1:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if before != 1:
                torch.set_num_threads(before)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Have torch divide each product of this thread among ``count`` threads, and then among as many as before.

    The last bits depend on the number.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _OpenBlas:
    """One thread for OpenBLAS while anybody is inside."""

    def __init__(self) -> None:
        self._inside = 0
        self._lock = Lock()
        self._limited: AbstractContextManager[Any] | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._limited = _controller().limit(limits=1)

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._limited is not None:
                self._limited.__exit__(None, None, None)


_openblas = _OpenBlas()


@cache
def _controller() -> ThreadpoolController:
    import scipy.linalg  # type: ignore[import-untyped] # noqa: F401, PLC0415 - what is not loaded is not found

    return ThreadpoolController().select(internal_api="openblas")
