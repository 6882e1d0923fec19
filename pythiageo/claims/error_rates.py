"""Error rates of verdicts: how often a claim is supported where it is false, and how often where it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import polars as pl

from pythiageo.claims.every import check_families
from pythiageo.claims.evidence import Evidence
from pythiageo.claims.noise import (
    DEPTH,
    JUMPS,
    PROCESSES,
    REVERTING,
    TREND,
    WALK,
    design,
    limit_table,
    noise_table,
    true_table,
)
from pythiageo.claims.noise_curve import noise_shares
from pythiageo.claims.register import claims
from pythiageo.claims.result import CONTRADICTED, SUPPORTED, Specification
from pythiageo.study.protocols import PROTOCOLS

TRUTH, LIMIT = "planted truth", "at the limit"
KINDS = (*PROCESSES, LIMIT, TRUTH)
SHAPES = ((1, 1), (3, 1), (1, 3), (3, 3))
"""Seeds a size, and sizes."""
_OWN = (WALK, REVERTING, JUMPS, TREND, DEPTH)
NULLS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("recovery", "top-down-profile", "top-down-in-time", "floor-order", "probe"), _OWN),
    **dict.fromkeys(("floors", "seeds"), (LIMIT,)),
}
"""The tables in which a claim is false: all noise, unless it says otherwise. What comes back alike in every run is no
noise to a claim on models. Noise may well have equal floors: a claim that things are alike is false where they differ,
and nearest to true where they differ by just as much as it allows."""
TRAINED = ("COPY", "CMP", "ADD", "MOD")
"""What ``controls`` takes for trained; the others' tables are made in the same way."""
COUNTS: dict[str, pl.DataType] = {
    **{name: pl.String() for name in ("claim", "protocol", "kind")},
    **{name: pl.Int64() for name in ("seeds", "sizes", "tables", "estimated", "decidable", SUPPORTED, CONTRADICTED)},
}
"""Columns of the counts: ``estimated`` of the ``tables`` have an estimate, ``decidable`` an interval too."""


@dataclass(frozen=True)
class Plan:
    """What is asked: tables of each kind and shape, protocols, claims, resamples of each, and the seed of it all."""

    tables: int = 100
    kinds: tuple[str, ...] = KINDS
    shapes: tuple[tuple[int, int], ...] = SHAPES
    protocols: tuple[str, ...] = tuple(PROTOCOLS)
    families: tuple[str, ...] | None = None
    resamples: int = 199
    seed: int = 0


def error_rates(plan: Plan, progress: Callable[[str], None] | None = None) -> pl.DataFrame:
    """Return how often each claim is supported and contradicted in tables of each kind and shape (``COUNTS``).

    A table depends on the seed, its kind, shape and number alone, so that more tables add to those of a smaller plan.
    """
    check_families(plan.families)
    counts: dict[tuple[str, ...], np.ndarray] = {}
    for kind in plan.kinds:
        for shape in plan.shapes:
            if progress:
                progress(f"{kind}, {shape[0]} seeds of {shape[1]} sizes")
            for number in range(plan.tables):
                for key, found in _ask(plan, kind, shape, number):
                    counts[key] = counts.get(key, 0) + found
    rows = [[*key[:3], int(key[3]), int(key[4]), *found.tolist()] for key, found in counts.items()]
    return pl.DataFrame(rows, schema=COUNTS, orient="row")


def _ask(plan: Plan, kind: str, shape: tuple[int, int], number: int) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Yield the counts of every claim and protocol in one table."""
    rng = np.random.default_rng([plan.seed, crc32(kind.encode()), *shape, number])
    asked = design(*shape)
    make = {TRUTH: true_table, LIMIT: limit_table}.get(kind)
    families = [
        name
        for name in (claims() if plan.families is None else plan.families)
        if kind == TRUTH or kind in NULLS.get(name, PROCESSES)
    ]
    if not families:
        return
    evidence = Evidence(noise_table(kind, asked, rng) if make is None else make(asked, rng))
    for protocol in plan.protocols:
        whole = Specification(protocol=protocol, resamples=plan.resamples, seed=number)
        part = Specification(protocol=protocol, resamples=plan.resamples, seed=number, trained=TRAINED)
        for name in families:
            for result in claims()[name].ask(evidence, part if name == "controls" else whole, in_curve=True):
                found = [
                    1, result.estimate is not None, result.interval is not None,
                    result.verdict == SUPPORTED, result.verdict == CONTRADICTED,
                ]  # fmt: skip
                key = (result.name, protocol, kind, str(shape[0]), str(shape[1]))
                yield key, np.array(found, dtype=int)


def curve_rates(plan: Plan, tables: int, progress: Callable[[str], None] | None = None) -> pl.DataFrame:
    """Return the specification curves of noise (columns: ``NOISE_SHARES``): three runs of one size."""
    if progress:
        progress(f"specification curves of {tables} tables")
    return noise_shares(design(3, 1), Specification(trained=TRAINED, seed=plan.seed), plan.families, tables)


def pooled(counts: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return the counts summed over everything but ``by``, in the order of first appearance."""
    numbers = ("tables", "estimated", "decidable", SUPPORTED, CONTRADICTED)
    return counts.group_by(by, maintain_order=True).agg(pl.col(name).sum() for name in numbers)
