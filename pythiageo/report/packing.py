"""Numbers as text that a page can hold: five significant decimals each, packed and compressed."""

from __future__ import annotations

import base64
import zlib
from decimal import ROUND_HALF_EVEN, Context, Decimal

import numpy as np

DIGITS = 5
"""Significant decimals kept: ``f"{value:.5g}"`` of a packed value is that of the value itself."""
_GAP = -(2**23)
"""The mantissa that stands for "no value"."""
_ROUNDING = Context(prec=DIGITS, rounding=ROUND_HALF_EVEN)
_TIE = 1e-6


def pack(values: np.ndarray) -> str:
    """Return base64 of deflated decimals ``m * 10**e``, NaN standing for a gap.

    The bytes are planes, each as long as there are values: the low, middle and high byte of ``m`` (24 bits, two's
    complement), then the low and high byte of ``e`` (16 bits). Planes of like bytes compress far better than floats.

    Args:
        values: float64, any shape, read in C order; finite or NaN.

    Raises:
        ValueError: an infinite value.
    """
    mantissa, exponent = _decimals(np.ascontiguousarray(values, dtype=np.float64).ravel())
    m, e = mantissa.astype("<i4").view(np.uint8).reshape(-1, 4), exponent.astype("<i2").view(np.uint8).reshape(-1, 2)
    planes = np.concatenate([m[:, 0], m[:, 1], m[:, 2], e[:, 0], e[:, 1]])
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode("ascii")


def unpack(text: str) -> np.ndarray:
    """Return the values that ``pack`` packed, one axis, gaps as NaN."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8).reshape(5, -1).astype(np.int64)
    mantissa = planes[0] + (planes[1] << 8) + (planes[2] << 16)
    mantissa -= (mantissa >= 2**23) * 2**24
    exponent = planes[3] + (planes[4] << 8)
    exponent -= (exponent >= 2**15) * 2**16
    pairs = zip(mantissa.tolist(), exponent.tolist(), strict=True)
    return np.array([np.nan if m == _GAP else float(f"{m}e{e}") for m, e in pairs])


def deflate(text: str) -> str:
    """Return base64 of deflated UTF-8 text."""
    return base64.b64encode(zlib.compress(text.encode("utf-8"), 9)).decode("ascii")


def _decimals(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mantissas of at most ``DIGITS`` digits and exponents."""
    if np.isinf(values).any():
        raise ValueError("an infinite value cannot be packed: the observation table holds none")
    mantissa = np.full(values.shape, _GAP, dtype=np.int64)
    exponent = np.zeros(values.shape, dtype=np.int64)
    some = ~np.isnan(values)
    mantissa[values == 0] = 0
    some &= values != 0
    size = np.abs(values[some])
    power = np.floor(np.log10(size)).astype(np.int64) - (DIGITS - 1)
    # 10**power itself may not be a number where the value is subnormal: the exact way is for these too
    with np.errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"):
        scaled = np.where(power < 0, values[some] * 10.0 ** -power.astype(float), values[some] / 10.0**power)
        tie = np.abs(np.abs(scaled - np.trunc(scaled)) - 0.5) < _TIE
    near = ~np.isfinite(scaled) | tie
    near |= (np.abs(scaled) < 10 ** (DIGITS - 1) + 1) | (np.abs(scaled) > 10**DIGITS - 1)
    whole = np.rint(np.where(near, 0.0, scaled)).astype(np.int64)
    for index in np.flatnonzero(near):
        whole[index], power[index] = _exact(float(values[some][index]))
    mantissa[some], exponent[some] = whole, power
    return mantissa, exponent


def _exact(value: float) -> tuple[int, int]:
    """Return mantissa and exponent by decimal arithmetic: where binary rounding could tip a tie."""
    sign, digits, power = _ROUNDING.create_decimal(Decimal(value)).as_tuple()
    mantissa = int("".join(map(str, digits)))
    return (-mantissa if sign else mantissa), int(power)
