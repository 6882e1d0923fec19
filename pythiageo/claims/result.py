"""What a claim is asked with, and what it answers: specification, result, and the rule of the verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import polars as pl

from pythiageo.errors import UserError, nearest
from pythiageo.names import LAST_BLOCK, READOUT
from pythiageo.study.protocols import get_protocol
from pythiageo.study.tasks import EASY, HARD

SUPPORTED, CONTRADICTED, NOT_DECIDABLE = "supported", "contradicted", "not decidable"
VERDICTS = (SUPPORTED, CONTRADICTED, NOT_DECIDABLE)
ALPHA = 0.05
RULES = ("v1", "v4", "ours")
TIES = ("error", "half", "dropped")
EVENTS = (
    "acquisition",
    "log_prob_acquisition_25",
    "log_prob_acquisition",
    "log_prob_acquisition_75",
    "log_prob_acquisition_90",
)


@dataclass(frozen=True)
class Specification:
    """Everything that could have been chosen otherwise.

    Attributes:
        protocol: definitions of events, and which tasks are easy and hard.
        measure: the measure that is claimed to move first, to predict, or to fall.
        readout: ``positions/centring`` of a geometry measure.
        site: ``last-block``, ``final-ln`` or a hook name.
        event: the acquisition that counts: ``acquisition``, or one of the log-probability.
        rule: when a measure leads: ``v1`` (peak of the cross-correlation), ``v4`` (transition strictly before) or
            ``ours`` (more than ``k`` checkpoints apart).
        k: checkpoints within which two events are synchronous, for ``ours``.
        axis: ``checkpoints`` (v1's lags) or ``steps`` (resampled to an even grid), for ``v1``.
        ties: what a tied pair counts in a concordance: ``error``, ``half`` or ``dropped``.
        trained: tasks the runs were trained on; the others in the table are controls. ``None``: all were.
        resamples: draws of a bootstrap or a permutation test.
        seed: of these draws.
    """

    protocol: str = "billa-v4"
    measure: str = "covariance_effective_rank"
    readout: str = READOUT
    site: str = LAST_BLOCK
    event: str = "acquisition"
    rule: str = "ours"
    k: int = 1
    axis: str = "checkpoints"
    ties: str = "dropped"
    trained: tuple[str, ...] | None = None
    resamples: int = 999
    seed: int = 0

    def __post_init__(self) -> None:
        get_protocol(self.protocol)
        known = {"rule": RULES, "ties": TIES, "event": EVENTS, "axis": ("checkpoints", "steps")}
        for name, words in known.items():
            word = getattr(self, name)
            if word not in words:
                raise UserError(f"unknown {name} {word!r}{nearest(word, words)}; there are {', '.join(words)}.")
        if self.k < 0 or self.resamples < 99:
            raise UserError(
                f"k must be 0 or more and resamples 99 or more, got k = {self.k}, resamples = {self.resamples}."
            )

    @property
    def easy(self) -> tuple[str, ...]:
        """Tasks the protocol calls easy."""
        return EASY[self.protocol]

    @property
    def hard(self) -> tuple[str, ...]:
        """Tasks the protocol calls hard."""
        return HARD[self.protocol]

    def task_class(self, task: str) -> str:
        """Return ``easy``, ``hard`` or ``other``."""
        return "easy" if task in self.easy else "hard" if task in self.hard else "other"


@dataclass(frozen=True)
class ClaimResult:
    """The answer to one claim under one specification.

    Attributes:
        name: what tables call it.
        claim: the claim, a sentence that can be true or false.
        table: the figures it rests on, one row a case.
        verdict: ``supported``, ``contradicted`` or ``not decidable``.
        rule: how the verdict follows from the figures; fixed before any run was looked at.
        estimate: the figure, or ``None`` where it cannot be made.
        interval: its 95% interval, or ``None``.
        null: what the figure would be if the claim were empty.
        p: share of the null's draws at least as large as the estimate, or ``None``.
        n: cases that ``estimate`` rests on.
        reason: what a reader should know, always given where nothing is decided.
        rests_on: ``one model``, ``one task`` or ``one case`` where it says nothing of others; ``None`` else.
        specification: what it was asked with.
        cases: single cases behind ``table``, where it sums them up.
    """

    name: str
    claim: str
    table: pl.DataFrame
    verdict: str
    rule: str
    estimate: float | None
    interval: tuple[float, float] | None
    null: float | None
    p: float | None
    n: int
    reason: str | None
    specification: Specification
    cases: pl.DataFrame | None = None
    rests_on: str | None = None

    @property
    def answer(self) -> str:
        """The verdict in words, with what it rests on where that is a single one: ``supported (one model)``."""
        return describe_verdict(self.verdict, self.rests_on)

    def summary(self) -> dict[str, Any]:
        """Return everything but the table, one flat row: the specification's fields too.

        ``rule`` is the verdict's; the specification's, when a measure leads, is ``leads``.
        """
        row = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _NOT_FLAT}
        low, high = self.interval or (None, None)
        specification = asdict(self.specification)
        specification["leads"] = specification.pop("rule")
        specification["trained"] = (
            ",".join(self.specification.trained) if self.specification.trained is not None else None
        )
        return row | {"low": low, "high": high} | specification


_NOT_FLAT = ("table", "cases", "interval", "specification")
SUMMARY_COLUMNS: dict[str, pl.DataType] = {
    **{name: pl.String() for name in ("name", "claim", "verdict", "rule")},
    **{name: pl.Float64() for name in ("estimate", "low", "high", "null", "p")},
    "n": pl.Int64(),
    "rests_on": pl.String(),
    "reason": pl.String(),
    "protocol": pl.String(),
    "measure": pl.String(),
    "readout": pl.String(),
    "site": pl.String(),
    "event": pl.String(),
    "leads": pl.String(),
    "k": pl.Int64(),
    "axis": pl.String(),
    "ties": pl.String(),
    "trained": pl.String(),
    "resamples": pl.Int64(),
    "seed": pl.Int64(),
}
"""Columns of a table of claims. ``leads`` is the specification's ``rule``; ``rule`` is the verdict's."""


def summary_table(results: list[ClaimResult]) -> pl.DataFrame:
    """Return one row a result (columns: ``SUMMARY_COLUMNS``)."""
    rows = []
    for result in results:
        row = result.summary()
        rows.append([row[name] for name in SUMMARY_COLUMNS])
    return pl.DataFrame(rows, schema=SUMMARY_COLUMNS, orient="row")


def judge(
    interval: tuple[float, float] | None,
    null: float | None,
    p: float | None = None,
    p_below: float | None = None,
    level: float = ALPHA,
) -> str:
    """Return the verdict on "more than the null".

    Supported: the interval lies above the null and, where there is a ``p``, it is at most ``level``. Contradicted:
    the interval lies below the null and ``p_below``, the share of the null's draws at most as large as the estimate, is
    at most ``level``. It is 1 - ``p`` where it is not given, which is right only for draws that never equal the
    estimate: of three tasks, the lowest of six orders has p = 1 and a ``p_below`` of 1/6. Everything else is not
    decidable, so is a missing interval.

    >>> judge((0.6, 0.9), null=0.5, p=0.01)
    'supported'
    >>> judge((0.4, 0.9), null=0.5)
    'not decidable'
    """
    if interval is None or null is None:
        return NOT_DECIDABLE
    low, high = interval
    if low > null and (p is None or p <= level):
        return SUPPORTED
    low_enough = p is None or p >= 1 - level if p_below is None else p_below <= level
    return CONTRADICTED if high < null and low_enough else NOT_DECIDABLE


def describe_verdict(verdict: str, rests_on: str | None) -> str:
    """Return a verdict with what it rests on, where something was decided on a single one.

    >>> describe_verdict("supported", "one model")
    'supported (one model)'
    """
    return f"{verdict} ({rests_on})" if rests_on and verdict != NOT_DECIDABLE else verdict


def single_ones(**counts: int) -> str | None:
    """Return what there is one of, in words: ``single_ones(model=1, task=8)`` is ``one model``; ``None``: of nothing.

    >>> single_ones(model=1, task=1)
    'one model, one task'
    """
    return ", ".join(f"one {noun.replace('_', ' ')}" for noun, count in counts.items() if count == 1) or None


def leave_undecided(
    name: str, claim: str, rule: str, reason: str, specification: Specification, table: pl.DataFrame | None = None
) -> ClaimResult:
    """Return the result of a claim that the table says nothing about."""
    empty = pl.DataFrame() if table is None else table
    return ClaimResult(name, claim, empty, NOT_DECIDABLE, rule, None, None, None, None, 0, reason, specification)
