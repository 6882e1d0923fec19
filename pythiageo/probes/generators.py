"""The eight algorithmic tasks: functions from a random generator to one example's input and output.

Each takes its level's settings as a pydantic model, so that a wrong setting in a task file is named. Numbers are
written in decimal, lists of single digits separated by spaces.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

Rng = np.random.Generator
Length = Annotated[int, Field(ge=1, le=1000)]
Digits = Annotated[int, Field(ge=1, le=15)]


class Settings(BaseModel):
    """Settings of one level; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ListSettings(Settings):
    """``length`` single digits."""

    length: Length


class RangeSettings(Settings):
    """Two integers, each uniform in ``low`` .. ``high``."""

    low: Annotated[int, Field(ge=0)]
    high: Annotated[int, Field(ge=0, le=10**15)]


class OperandSettings(Settings):
    """Two operands with ``digits`` decimal digits each (no leading zero; one digit: 0 to 9)."""

    digits: tuple[Digits, Digits]


class ModulusSettings(Settings):
    """``x mod p`` with ``p`` uniform among ``moduli`` and ``x`` uniform in 0 .. 10 p."""

    moduli: Annotated[tuple[Annotated[int, Field(ge=2, le=10**6)], ...], Field(min_length=1)]


def _digit_list(rng: Rng, settings: ListSettings, high: int = 10) -> list[str]:
    return [str(d) for d in rng.integers(0, high, size=settings.length)]


def _operands(rng: Rng, settings: OperandSettings) -> tuple[int, int]:
    first, second = (int(rng.integers(low, high)) for low, high in _operand_bounds(settings))
    return first, second


def _operand_bounds(settings: OperandSettings) -> list[tuple[int, int]]:
    return [(0 if d == 1 else 10 ** (d - 1), 10**d) for d in settings.digits]


def copy(rng: Rng, settings: ListSettings) -> tuple[str, str]:
    """``3 1 4`` -> ``3 1 4``."""
    digits = " ".join(_digit_list(rng, settings))
    return digits, digits


def reverse(rng: Rng, settings: ListSettings) -> tuple[str, str]:
    """``3 1 4`` -> ``4 1 3``."""
    digits = _digit_list(rng, settings)
    return " ".join(digits), " ".join(reversed(digits))


def compare(rng: Rng, settings: RangeSettings) -> tuple[str, str]:
    """``3 7`` -> ``LESS``."""
    a, b = (int(v) for v in rng.integers(settings.low, settings.high + 1, size=2))
    return f"{a} {b}", "LESS" if a < b else "GREATER" if a > b else "EQUAL"


def parity(rng: Rng, settings: ListSettings) -> tuple[str, str]:
    """``1 0 1 1`` -> ``ODD``: whether the number of ones is odd."""
    bits = _digit_list(rng, settings, high=2)
    return " ".join(bits), "ODD" if bits.count("1") % 2 else "EVEN"


def add(rng: Rng, settings: OperandSettings) -> tuple[str, str]:
    """``12 34`` -> ``46``."""
    a, b = _operands(rng, settings)
    return f"{a} {b}", str(a + b)


def modulo(rng: Rng, settings: ModulusSettings) -> tuple[str, str]:
    """``17 5`` -> ``2``."""
    p = int(rng.choice(settings.moduli))
    x = int(rng.integers(0, 10 * p + 1))
    return f"{x} {p}", str(x % p)


def sort(rng: Rng, settings: ListSettings) -> tuple[str, str]:
    """``3 1 4`` -> ``1 3 4``."""
    digits = _digit_list(rng, settings)
    return " ".join(digits), " ".join(sorted(digits))


def multiply(rng: Rng, settings: OperandSettings) -> tuple[str, str]:
    """``12 3`` -> ``36``."""
    a, b = _operands(rng, settings)
    return f"{a} {b}", str(a * b)


class Generator(NamedTuple):
    """A generator, the settings its levels must have, and how many different inputs it has under them."""

    settings: type[Settings]
    function: Callable[[Rng, Any], tuple[str, str]]
    count: Callable[[Any], int]


def _count_lists(settings: ListSettings) -> int:
    return 10**settings.length


def _count_operands(settings: OperandSettings) -> int:
    return math.prod(high - low for low, high in _operand_bounds(settings))


GENERATORS: dict[str, Generator] = {
    "copy": Generator(ListSettings, copy, _count_lists),
    "reverse": Generator(ListSettings, reverse, _count_lists),
    "compare": Generator(RangeSettings, compare, lambda settings: (settings.high - settings.low + 1) ** 2),
    "parity": Generator(ListSettings, parity, lambda settings: 2**settings.length),
    "add": Generator(OperandSettings, add, _count_operands),
    "modulo": Generator(ModulusSettings, modulo, lambda settings: sum(10 * p + 1 for p in set(settings.moduli))),
    "sort": Generator(ListSettings, sort, _count_lists),
    "multiply": Generator(OperandSettings, multiply, _count_operands),
}
