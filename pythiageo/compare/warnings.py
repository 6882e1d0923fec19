"""What makes two runs less comparable than they look, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from statistics import median
from typing import Any

import polars as pl

from pythiageo.events.trajectory import depth_of
from pythiageo.observations.schema import HARNESS, SOURCE

_SETTINGS = ("dtype", "processing", "device", "pythiageo")
"""Entries of a manifest's provenance that two compared runs should share."""

_NAMED = 4
"""Tasks named in a sentence about many."""

Side = tuple[str, pl.DataFrame, Mapping[str, Any]]
"""Name, observations and manifest of a run."""


def pair_warnings(a: Side, b: Side) -> list[str]:
    """Return one sentence for everything that two runs do not share and a comparison would need."""
    return [*_probe_sets(a, b), *_on_their_word(a, b), *_cadence(a, b), *_depth(a, b), *_settings(a, b)]


def probe_mismatches(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    """Return the tasks and levels both tables have with different probe sets: task, level, hashes a and b.

    A task whose probe set is not named cannot be compared, so it counts as different.
    """
    left, right = (
        table.drop_nulls("task")
        .group_by("task", "level")
        .agg(pl.col("probe_set").fill_null("unnamed").unique().sort().str.join(", ").alias(f"hash_{name}"))
        for table, name in ((a, "a"), (b, "b"))
    )
    both = left.join(right, on=["task", "level"], nulls_equal=True).sort("task", "level")
    return both.filter((pl.col("hash_a") != pl.col("hash_b")) | pl.col("hash_a").str.contains("unnamed"))


def _probe_sets(a: Side, b: Side) -> Iterator[str]:
    found = probe_mismatches(a[1], b[1]).rows(named=True)
    if found:
        first, names = found[0], [f"{row['task']} {row['level']}" for row in found]
        many = ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")
        which = f"{names[0]} is" if len(names) == 1 else f"{len(names)} probe sets ({many}) are"
        yield f"{which} not aligned: {names[0]}'s is {first['hash_a']} in {a[0]} and {first['hash_b']} in {b[0]}."


def _on_their_word(a: Side, b: Side) -> Iterator[str]:
    """Say which tasks are aligned though nobody here has seen their questions."""
    asked = [set(side[1].drop_nulls("probe_set").select("task", "level", "probe_set").iter_rows()) for side in (a, b)]
    for start, word in (
        (SOURCE, "they come from one file"),
        (HARNESS, "lm-evaluation-harness calls them the same (by the hash of its samples, or the version of its task)"),
    ):
        count = len({key[:2] for key in asked[0] & asked[1] if key[2].startswith(start)})
        if count:
            tasks = "1 task" if count == 1 else f"{count} tasks"
            yield f"{tasks} of {a[0]} and {b[0]} are taken to ask the same: {word}; the questions were not compared."


def _cadence(a: Side, b: Side) -> Iterator[str]:
    first, second = (_median_distance(side[1]) for side in (a, b))
    if first != second:
        yield (
            f"{a[0]} has a checkpoint every {_steps(first)} and {b[0]} every {_steps(second)} (median): "
            "compare floors and event steps only at matched cadence."
        )


def _median_distance(table: pl.DataFrame) -> float | None:
    steps = table["step"].unique().sort().to_list()
    return float(median(b - a for a, b in pairwise(steps))) if len(steps) > 1 else None


def _steps(distance: float | None) -> str:
    return "(only one)" if distance is None else f"{distance:g} steps"


def _depth(a: Side, b: Side) -> Iterator[str]:
    first, second = depth_of(a[1]), depth_of(b[1])
    if first is not None and second is not None and first != second:
        yield (
            f"{a[0]} has {first} blocks and {b[0]} {second}: only the last block and the final LayerNorm are aligned."
        )


def _settings(a: Side, b: Side) -> Iterator[str]:
    first, second = (_provenance(side[2]) for side in (a, b))
    for name in _SETTINGS:
        if name in first and name in second and first[name] != second[name]:
            yield f"{name} is {first[name]!s:.120} in {a[0]} and {second[name]!s:.120} in {b[0]}."


def _provenance(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    entry = manifest.get("provenance")
    return entry if isinstance(entry, Mapping) else {}
