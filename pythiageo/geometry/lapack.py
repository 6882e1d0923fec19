"""Two LAPACK routines that SciPy ships but does not wrap for Python, and its thread setting."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cython_lapack  # type: ignore[import-untyped]
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

Array = NDArray[np.float64]
BLOCK = 64
"""Columns LAPACK's blocked reductions may take at once: their workspace is this times the side of the matrix."""


def bidiagonal(matrix: Array) -> tuple[Array, Array]:
    """Return diagonal and superdiagonal of the upper bidiagonal Q^T ``matrix`` P, with P e1 = e1 (``dgebrd``).

    ``matrix`` is square. Its backward error is a few ``eps`` times its norm.
    """
    side = len(matrix)
    work = np.array(matrix, dtype=np.float64, order="F")
    diagonal, beside = np.zeros(side), np.zeros(max(side - 1, 1))
    reflections, space = np.empty((2, side)), np.empty(2 * BLOCK * side)
    _call(
        "dgebrd", side, side, work, side, diagonal, beside, reflections[0], reflections[1], space, len(space)
    )  # fmt: skip
    return diagonal, beside[: side - 1]


def bidiagonal_values(diagonal: Array, beside: Array) -> Array:
    """Return the singular values, descending, of an upper bidiagonal matrix, each to full relative accuracy.

    Raises:
        ArithmeticError: no convergence, which LAPACK's ``dlasq1`` does not show on finite input.
    """
    values, scratch = diagonal.copy(), np.append(beside, 0.0)
    info = _call("dlasq1", len(values), values, scratch, np.empty(4 * len(values)))
    if info:
        raise ArithmeticError(f"LAPACK's dlasq1 did not converge (info {info})")
    return values


def torch_threads() -> AbstractContextManager[Any]:
    """Let SciPy's BLAS use as many threads as torch does: the same setting gives the same bits."""
    limited: AbstractContextManager[Any] = _controller().limit(limits=torch.get_num_threads())
    return limited


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController().select(internal_api="openblas")


def _call(name: str, *arguments: int | Array) -> int:
    """Call a Fortran routine, whose arguments are all pointers; return ``info``, its last one."""
    info = ctypes.c_int(0)
    integers = [ctypes.c_int(value) if isinstance(value, int) else None for value in arguments]
    pointers = [
        ctypes.addressof(integer) if integer is not None else value.ctypes.data  # type: ignore[union-attr]
        for integer, value in zip(integers, arguments, strict=True)
    ]
    _routine(name, len(arguments) + 1)(*pointers, ctypes.addressof(info))
    return info.value


@cache
def _routine(name: str, arguments: int) -> Callable[..., None]:
    """Return a routine of SciPy's Cython interface as a C function of ``arguments`` pointers."""
    capsule = cython_lapack.__pyx_capi__[name]
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    signature = get_name(capsule)
    if signature.count(b"*") != arguments or b"int *" not in signature:
        raise ImportError(f"SciPy's {name} has the signature {signature!r}, not the one known here")
    function: Callable[..., None] = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(
        get_pointer(capsule, signature)
    )
    return function
