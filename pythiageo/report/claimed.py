"""What a claim must have to be shown."""

from __future__ import annotations

from typing import Any, Protocol

import polars as pl


class Claim(Protocol):
    """What a claim must have to be shown."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def claim(self) -> str:
        """The claim, a sentence that can be true or false."""

    @property
    def verdict(self) -> str:
        """``supported``, ``contradicted`` or ``not decidable``."""

    @property
    def rule(self) -> str:
        """The rule that gave the verdict."""

    @property
    def estimate(self) -> float | None:
        """The number that it rests on."""

    @property
    def interval(self) -> Any:
        """Its interval, if there is one."""

    @property
    def null(self) -> Any:
        """What it would be if nothing were the case."""

    @property
    def p(self) -> float | None:
        """The share of the null's draws at least as large as the estimate."""

    @property
    def n(self) -> int | None:
        """How many cases."""

    @property
    def reason(self) -> str | None:
        """What a reader should know, or why nothing can be decided."""

    @property
    def table(self) -> pl.DataFrame:
        """The cases."""
