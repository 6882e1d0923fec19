"""What is returned in place of a number that cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Undefined:
    """A measure has no value here. ``reason`` says why; ``status`` is ``undefined``, ``nonfinite`` or ``imprecise``."""

    reason: str
    status: str = "undefined"


class NoValueError(Exception):
    """Raised inside the room where a value cannot be had; measures return it as ``Undefined``."""

    def __init__(self, reason: str, status: str = "undefined") -> None:
        super().__init__(reason)
        self.undefined = Undefined(reason, status)


def or_undefined(function: Callable[P, R]) -> Callable[P, R | Undefined]:
    """Let a measure return ``Undefined`` where it would raise ``NoValueError``."""

    @wraps(function)
    def measured(*args: P.args, **kwargs: P.kwargs) -> R | Undefined:
        try:
            return function(*args, **kwargs)
        except NoValueError as error:
            return error.undefined

    return measured
