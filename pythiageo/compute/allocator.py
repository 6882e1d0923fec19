"""Memory of weights: asked of the system in large pages, and given back to it while checkpoints come and go."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_HUGEPAGE, _PAGE = 14, 4096
"""Linux' number for the advice, and what addresses of advised memory are multiples of."""
_LARGE = 4 * 2**20
_MMAP_THRESHOLD = -3
"""glibc's number for it."""
_LOADING = 2**20
_WORKING = 8 * 2**20
"""Blocks of this many bytes or more are mapped alone, and leave with their tensor. In forward passes smaller ones would
cost a tenth of the time in page faults."""


@contextmanager
def loading() -> Iterator[None]:
    """Map every tensor of weights alone while a checkpoint is loaded and opened.

    glibc raises its own threshold to 32 MB as blocks are freed, and keeps what is below it: of a 410m shape 0.45 GB
    that nobody uses. Without glibc nothing changes.
    """
    _set(_LOADING)
    try:
        yield
    finally:
        _set(_WORKING)
        give_back()


def give_back() -> None:
    """Give the system the free memory that glibc keeps for blocks to come: 70 MB after a checkpoint is measured."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def take_large_pages(tensor: Tensor) -> None:
    """Ask the system to hold a tensor of the CPU that nobody has written to in pages of 2 MB, where it is large.

    Its first writing then takes a quarter of the time: the system has 500 times fewer pages to make. It is advice, for
    systems that take it (Linux, with ``madvise`` or ``always``); others do as ever.
    """
    if tensor.nbytes < _LARGE or not sys.platform.startswith("linux"):
        return
    begin = -(-tensor.data_ptr() // _PAGE) * _PAGE
    end = (tensor.data_ptr() + tensor.nbytes) // _PAGE * _PAGE
    ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _HUGEPAGE)


def _set(threshold: int) -> None:
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_MMAP_THRESHOLD, threshold)


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None
