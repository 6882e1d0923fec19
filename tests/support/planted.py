"""Planted truth: observation tables and run folders whose events are known because they were put there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from pythiageo.events import Run
from pythiageo.observations import COLUMNS, Observation, ObservationStore
from pythiageo.observations.manifest import without_mistakes
from pythiageo.observations.schema import SCHEMA_VERSION
from pythiageo.observations.store import SCHEMA_KEY, TABLE_NAME

STEPS = tuple(range(0, 2001, 100))


@dataclass(frozen=True)
class Plant:
    """What is planted for one task: accuracy jumps at ``acquired``, the rank bottoms at ``floor``."""

    acquired: int | None = 900
    floor: int = 300
    low: float = 2.0
    start: float = 20.0
    end: float = 14.0
    chance: float = 0.1
    majority: float = 0.05

    def accuracy(self, step: int) -> float:
        return 0.96 if self.acquired is not None and step >= self.acquired else self.chance

    def log_prob(self, step: int) -> float:
        return -0.1 if self.acquired is not None and step >= self.acquired else -3.0 + step / 1e6

    def rank(self, step: int) -> float:
        """Fall in a straight line to the floor, then rise at the same pace to ``end``."""
        pace = (self.start - self.low) / self.floor
        return (
            max(self.low, self.start - pace * step)
            if step <= self.floor
            else min(self.end, self.low + pace * (step - self.floor))
        )


def observation(**columns: Any) -> Observation:
    """An accuracy of 0.5 of MOD L1 at step 0, with the given columns changed."""
    base: dict[str, Any] = {
        "run": "nano-42", "series": "nano-42", "regime": "task-aligned", "size": "nano", "seed": 42,
        "step": 0, "tokens": None, "task": "MOD", "level": "L1", "probe_set": "a1b2c3d4e5f6",
        "layer": None, "site": None, "readout": None, "measure": "accuracy", "value": 0.5, "stderr": None,
        "n": 200, "status": "ok", "reason": None, "weight_sha": None,
    }  # fmt: skip
    row = base | columns
    if row["weight_sha"] is None and "weight_sha" not in columns:
        row["weight_sha"] = f"sha-{row['step']}"
    return Observation(**row)


def rows(
    plants: Mapping[str, Plant] | None = None,
    steps: Iterable[int] = STEPS,
    *,
    levels: Sequence[str] = ("L1", "L2", "L3"),
    layers: int = 2,
    readouts: Sequence[str] = ("answer/centred",),
    geometry: bool = True,
    tokens_per_step: int | None = 640,
    **shared: Any,
) -> list[Observation]:
    """All observations of a planted run; earlier layers lie above the last one by 3 for each block."""
    plants = {"MOD": Plant()} if plants is None else plants
    result = []
    for step in steps:
        known = {"step": step, "tokens": tokens_per_step and tokens_per_step * step, **shared}
        for task, plant in plants.items():
            for level in levels:
                scores = {
                    "accuracy": plant.accuracy(step), "log_prob": plant.log_prob(step),
                    "chance_accuracy": plant.chance, "majority_rate": plant.majority,
                }  # fmt: skip
                for measure, value in scores.items():
                    result.append(observation(task=task, level=level, measure=measure, value=value, **known))
            if geometry:
                result += _ranks(task, plant, step, layers=layers, readouts=readouts, known=known)
    return result


def _ranks(
    task: str, plant: Plant, step: int, *, layers: int, readouts: Sequence[str], known: dict[str, Any]
) -> list[Observation]:
    sites = [(f"blocks.{layer}.hook_resid_post", layer, 3.0 * (layers - 1 - layer)) for layer in range(layers)]
    sites.append(("ln_final.hook_out", layers - 1, 0.5))
    found = []
    for site, layer, above in sites:
        for readout in readouts:
            place = {
                "task": task,
                "level": "mixed",
                "site": site,
                "layer": layer,
                "readout": readout,
                **known,
            }
            value = plant.rank(step) + above
            for measure, factor in (
                ("covariance_effective_rank", 1.0),
                ("rankme", 2.5),
                ("participation_ratio", 0.8),
            ):
                found.append(observation(measure=measure, value=value * factor, **place))
    return found


def table(observations: Sequence[Observation]) -> pl.DataFrame:
    return pl.DataFrame(observations, schema=COLUMNS, orient="row")


def manifest(observations: Sequence[Observation], **changed: Any) -> dict[str, Any]:
    """A manifest as a run writes it."""
    first = observations[0]
    steps = sorted({row.step for row in observations})
    base = {
        "schema_version": "1", "name": first.run, "kind": "train", "series": first.series,
        "regime": first.regime, "size": first.size, "seed": first.seed, "status": "complete", "config": {},
        "provenance": {
            "pythiageo": "0.1.0", "python": "3.11.9", "packages": {"torch": "2.13.0"},
            "git_commit": "0123456789abcdef", "git_dirty": False, "device": "cpu", "dtype": "float32",
            "threads": 1, "command": ["pythiageo", "train"], "processing": "raw weights",
        },
        "probe_sets": [],
        "model": {"architecture": "gpt2", "parameters": 405248, "layers": 2, "d_model": 128},
        "corpus": None, "training": {"last_batch_loss": 0.31},
        "checkpoints": [
            {"step": step, "label": f"step{step}", "weight_sha": f"sha-{step}", "status": "ok", "reason": None}
            for step in steps
        ],
    }  # fmt: skip
    return base | changed


def opened(table: pl.DataFrame, manifest: dict[str, Any] | None = None) -> Run:
    """A run in memory, as if it were opened from a folder."""
    return Run(None, table, without_mistakes(manifest or {}))


def write_run(folder: Path, observations: Sequence[Observation], consolidate: bool = True, **changed: Any) -> Path:
    """Write a run folder as a run does, and return it."""
    store = ObservationStore(folder)
    for step in sorted({row.step for row in observations}):
        store.write(step, [row for row in observations if row.step == step])
    if consolidate:
        store.consolidate()
    text = json.dumps(manifest(observations, **changed))
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    return folder


def write_large_run(folder: Path, measures: Sequence[str] = ("covariance_effective_rank",)) -> Path:
    """Write a run as large as Pythia's: 154 checkpoints, 32 blocks and the final LayerNorm, 15 tasks, 10 readouts."""
    steps = [0, *(2**power for power in range(10)), *range(1000, 144_000, 1000)]
    layers = [*range(32), 31]
    sites = [*(f"blocks.{layer}.hook_resid_post" for layer in range(32)), "ln_final.hook_out"]
    places = ("answer", "equals", "last", "all", "mean")
    readouts = [f"{place}/{centring}" for place in places for centring in ("centred", "uncentred")]
    frame = pl.DataFrame({"step": steps}).join(pl.DataFrame({"task": [f"TASK{i:02d}" for i in range(15)]}), how="cross")
    for each in ({"layer": layers, "site": sites}, {"readout": readouts}, {"measure": list(measures)}):
        frame = frame.join(pl.DataFrame(each), how="cross")
    # falls to step 512, rises after it, lower with depth; the digits are as many as real numbers have
    noise = pl.Series(np.random.default_rng(0).normal(size=frame.height))
    fall = 30 * (-((pl.col("step") / 512 - 1) ** 2)).exp()
    fixed = observation(
        run="large", series="large", regime="naturalistic", size="large", seed=None, level="mixed"
    )._asdict()
    columns = [
        pl.lit(value).cast(COLUMNS[name]).alias(name) for name, value in fixed.items() if name not in frame.columns
    ]
    frame = frame.with_columns(*columns).with_columns(
        (60 - fall - 0.5 * pl.col("layer") + noise).alias("value"), pl.format("sha-{}", "step").alias("weight_sha")
    )
    folder.mkdir(parents=True)
    table = frame.select([pl.col(name).cast(kind) for name, kind in COLUMNS.items()]).to_arrow()
    pq.write_table(table.replace_schema_metadata({SCHEMA_KEY: SCHEMA_VERSION.encode()}), folder / TABLE_NAME)
    text = json.dumps(manifest([observation(step=step) for step in steps]))
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    return folder
