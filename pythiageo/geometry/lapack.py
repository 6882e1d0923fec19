"""BLAS and LAPACK routines of SciPy's, called so that Python's lock is free: SciPy's own wrappers of them hold it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cython_blas, cython_lapack  # type: ignore[import-untyped]

Array = NDArray[np.float64]
BLOCK = 64
"""Columns LAPACK's blocked reductions may take at once: their workspace is this times the side of the matrix."""


def add_gram(rows: Array, onto: Array) -> None:
    """Add ``rows^T rows`` to the lower triangle of ``onto`` (``dsyrk``)."""
    _add_product(b"N", len(onto), len(rows), rows, onto)


def add_outer_gram(rows: Array, onto: Array) -> None:
    """Add ``rows rows^T`` to the lower triangle of ``onto`` (``dsyrk``)."""
    _add_product(b"T", len(onto), rows.shape[1], rows, onto)


def _add_product(transposed: bytes, side: int, terms: int, rows: Array, onto: Array) -> None:
    if not (rows.flags.c_contiguous and onto.flags.f_contiguous and rows.dtype == onto.dtype == np.float64):
        raise ValueError("expected float64 rows in C's order and a result in Fortran's")
    _call(cython_blas, "dsyrk", b"L", transposed, side, terms, 1.0, rows, rows.shape[1], 1.0, onto, side)


def tridiagonal(gram: Array) -> tuple[Array, Array]:
    """Return diagonal and the one beside it of a lower triangle, overwritten, reduced with e1 as it is (``dsytrd``)."""
    side = len(gram)
    diagonal, beside = np.empty(side), np.empty(max(side - 1, 1))
    space, reflections = np.empty(BLOCK * side), np.empty(side)
    _call_checked("dsytrd", b"L", side, gram, side, diagonal, beside, reflections, space, len(space))
    return diagonal, beside[: side - 1]


def tridiagonal_values(diagonal: Array, beside: Array) -> Array:
    """Return the eigenvalues of a tridiagonal matrix, ascending (``dsterf``). Raises ``ArithmeticError``."""
    values, scratch = np.array(diagonal), np.append(beside, 0.0)
    _call_checked("dsterf", len(values), values, scratch)
    return values


def positive_values(diagonal: Array, beside: Array) -> Array:
    """Return the eigenvalues of a positive definite tridiagonal matrix, descending, each to its digits (``dpteqr``).

    Raises:
        ArithmeticError: it is not positive definite, or there is no convergence.
    """
    values, scratch = np.array(diagonal), np.append(beside, 0.0)
    _call_checked("dpteqr", b"N", len(values), values, scratch, np.empty(1), 1, np.empty(4 * len(values)))
    return values


def _call_checked(name: str, *arguments: bytes | int | float | Array) -> None:
    info = np.zeros(1, dtype=np.intc)
    _call(cython_lapack, name, *arguments, info)
    if info[0]:
        raise ArithmeticError(f"LAPACK's {name} failed (info {info[0]})")


def _call(module: object, name: str, *arguments: bytes | int | float | Array | NDArray[np.intc]) -> None:
    """Call a Fortran routine, whose arguments are all pointers."""
    kept = [_hold(argument) for argument in arguments]
    _routine(module, name, len(arguments))(
        *(each.ctypes.data if isinstance(each, np.ndarray) else ctypes.addressof(each) for each in kept)
    )


def _hold(
    argument: bytes | int | float | Array | NDArray[np.intc],
) -> Array | NDArray[np.intc] | ctypes.c_char | ctypes.c_int | ctypes.c_double:
    if isinstance(argument, np.ndarray):
        return argument
    if isinstance(argument, bytes):
        return ctypes.c_char(argument)
    return ctypes.c_int(argument) if isinstance(argument, int) else ctypes.c_double(argument)


@cache
def _routine(module: object, name: str, arguments: int) -> Callable[..., None]:
    """Return a routine of SciPy's Cython interface as a C function of ``arguments`` pointers."""
    capsule = module.__pyx_capi__[name]  # type: ignore[attr-defined]
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
