"""The study's claims by name: each is declared above its function, in a file of its own, and listed nowhere else."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TypeVar

from pythiageo.claims.evidence import Evidence
from pythiageo.claims.result import ClaimResult, Specification

Ask = Callable[[Evidence, Specification], ClaimResult | list[ClaimResult]]
Function = TypeVar("Function", bound=Callable[..., ClaimResult | list[ClaimResult]])

EVENT, PLACE, LAYERS = ("protocol", "event"), ("measure", "readout", "site"), ("measure", "readout")
"""Fields of a specification that go together: which acquisition, a measure at one place, a measure at every layer."""


@dataclass(frozen=True)
class Claim:
    """A function of evidence and a specification, and the fields of the specification that change its answer.

    ``order``: where it stands among the others. ``answer_in_curve``: what is asked under hundreds of specifications,
    where that can be less than the whole answer.
    """

    name: str
    order: int
    depends: tuple[str, ...]
    answer: Ask
    answer_in_curve: Ask

    def ask(self, evidence: Evidence, specification: Specification, in_curve: bool = False) -> list[ClaimResult]:
        """Return the claim's results."""
        results = (self.answer_in_curve if in_curve else self.answer)(evidence, specification)
        return results if isinstance(results, list) else [results]


_DECLARED: dict[str, Claim] = {}


def declare(
    name: str, order: int, depends: tuple[str, ...], in_curve: Ask | None = None
) -> Callable[[Function], Function]:
    """Declare the decorated function as the claim ``name``; fields as in ``Claim``."""

    def add(function: Function) -> Function:
        _DECLARED[name] = Claim(name, order, depends, function, in_curve or function)
        return function

    return add


@cache
def claims() -> dict[str, Claim]:
    """Return the claims that the modules of this package declare, by name, in their order."""
    for module in pkgutil.iter_modules(import_module(__package__).__path__):
        import_module(f"{__package__}.{module.name}")
    return {claim.name: claim for claim in sorted(_DECLARED.values(), key=lambda claim: claim.order)}
