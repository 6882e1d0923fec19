"""What makes two runs less comparable than they look, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from statistics import median

import polars as pl

from pythiageo.errors import count_noun
from pythiageo.events import Run
from pythiageo.events.trajectory import depth_of
from pythiageo.observations.schema import HARNESS, SOURCE

_SETTINGS = ("dtype", "processing", "device", "pythiageo")
"""Entries of a manifest's provenance that two compared runs should share."""

_NAMED = 4
"""Tasks named in a sentence about many."""


def pair_warnings(a: Run, b: Run) -> list[str]:
    """Return one sentence for everything that two runs do not share and a comparison would need."""
    return [
        *_probe_sets(a, b),
        *_left_out(a, b),
        *_on_their_word(a, b),
        *_cadence(a, b),
        *_depth(a, b),
        *_settings(a, b),
    ]


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


def _probe_sets(a: Run, b: Run) -> Iterator[str]:
    found = probe_mismatches(a.distinct, b.distinct).rows(named=True)
    if found:
        first, names = found[0], [f"{row['task']} {row['level']}" for row in found]
        many = ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")
        which = f"{names[0]} is" if len(names) == 1 else f"{len(names)} probe sets ({many}) are"
        yield f"{which} not aligned: {names[0]}'s is {first['hash_a']} in {a.label} and {first['hash_b']} in {b.label}."


def _left_out(a: Run, b: Run) -> Iterator[str]:
    """Say which probe sets rest on different numbers of items, though they are of one hash."""
    counts = ["step", "task", "level", "probe_set", "measure"]
    left, right = (
        table.filter((pl.col("measure") == "accuracy") & (pl.col("status") == "ok")).select(*counts, "n")
        for table in (a.distinct, b.distinct)
    )
    both = left.join(right, on=counts, suffix="_b").filter(pl.col("n") != pl.col("n_b"))
    for row in both.unique(["task", "level"], keep="first", maintain_order=True).head(_NAMED).iter_rows(named=True):
        yield (
            f"accuracy of {row['task']} {row['level']} rests on {row['n']} items in {a.label} and on {row['n_b']} in "
            f"{b.label}: see items_left_out."
        )


def _on_their_word(a: Run, b: Run) -> Iterator[str]:
    """Say which tasks are aligned though nobody here has seen their questions."""
    asked = [
        set(run.distinct.drop_nulls("probe_set").select("task", "level", "probe_set").iter_rows()) for run in (a, b)
    ]
    for start, word in (
        (SOURCE, "they come from one file"),
        (HARNESS, "lm-evaluation-harness calls them the same (by the hash of its samples, or the version of its task)"),
    ):
        count = len({key[:2] for key in asked[0] & asked[1] if key[2].startswith(start)})
        if count:
            tasks = count_noun(count, "task")
            names = f"{a.label} and {b.label}"
            yield f"{tasks} of {names} are taken to ask the same: {word}; the questions were not compared."


def _cadence(a: Run, b: Run) -> Iterator[str]:
    first, second = (_median_distance(run.distinct) for run in (a, b))
    if first != second:
        yield (
            f"{a.label} has a checkpoint every {_steps(first)} and {b.label} every {_steps(second)} (median): "
            "compare floors and event steps only at matched cadence."
        )


def _median_distance(table: pl.DataFrame) -> float | None:
    steps = table["step"].unique().sort().to_list()
    return float(median(b - a for a, b in pairwise(steps))) if len(steps) > 1 else None


def _steps(distance: float | None) -> str:
    return "(only one)" if distance is None else f"{distance:g} steps"


def _depth(a: Run, b: Run) -> Iterator[str]:
    first, second = depth_of(a.distinct), depth_of(b.distinct)
    if first is not None and second is not None and first != second:
        yield (
            f"{a.label} has {first} blocks and {b.label} {second}: "
            "only the last block and the final LayerNorm are aligned."
        )


def _settings(a: Run, b: Run) -> Iterator[str]:
    first, second = (run.manifest.provenance.as_json() for run in (a, b))
    for name in _SETTINGS:
        if name in first and name in second and first[name] != second[name]:
            yield f"{name} is {first[name]!s:.120} in {a.label} and {second[name]!s:.120} in {b.label}."
