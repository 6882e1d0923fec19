"""No value: what stands where a number cannot be had, for whatever measure."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class NoValue(NamedTuple):
    """Why there is no number: a status of the observation table, and the reason in words."""

    status: str
    reason: str


class NoValueError(Exception):
    """A measure has no value on this input. Its message is the reason that an observation gives."""

    def __init__(self, reason: str, status: str = "undefined") -> None:
        super().__init__(reason)
        self.no_value = NoValue(status, reason)


def or_no_value(function: Callable[P, R]) -> Callable[P, R | NoValue]:
    """Let a measure return ``NoValue`` where it would raise ``NoValueError``."""

    @wraps(function)
    def measured(*args: P.args, **kwargs: P.kwargs) -> R | NoValue:
        try:
            return function(*args, **kwargs)
        except NoValueError as error:
            return error.no_value

    return measured
