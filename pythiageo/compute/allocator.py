"""Giving freed memory back to the system while checkpoints come and go."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

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
