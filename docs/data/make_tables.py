"""Make the tables of docs/findings.md from the public repositories that hold the results as files.

    git clone https://github.com/EleutherAI/pythia
    git clone https://github.com/OFSkean/information_flow
    python docs/data/make_tables.py --harness pythia --layers information_flow --out tables [--excerpt]

``pythia_lm_eval.parquet``: lm-evaluation-harness results (evals/pythia-v1), a row a model, step, task and metric.
``pythia_layer_geometry.parquet`` and ``pythia_layer_mteb.parquet``: layerwise metrics and MTEB scores
(experiments/results/Pythia), a row a model, revision, layer and metric or task. ``--excerpt`` keeps what findings.md
reads, and means over the MTEB tasks: the tables beside this file were made so.

The metrics lie there as pickles. They hold numbers, arrays and containers of them, and nothing else is unpickled here.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

LAST_STEP = 143_000
"""What ``main`` is a copy of."""
SIZES = [f"pythia-{size}" for size in ("70m", "160m", "410m", "1.4b", "2.8b", "6.9b", "12b")]
TASKS = ["lambada_openai", "sciq", "arc_easy", "piqa"]


_scalar: Any = np.float64(0).__reduce__()[0]
ARRAYS = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype, "scalar": _scalar}
"""What NumPy's arrays and numbers are pickled as."""


class _NumbersOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in ARRAYS:
            return ARRAYS[name]
        raise pickle.UnpicklingError(f"expected numbers, arrays and containers of them alone, found {module}.{name}")


def read_numbers(path: Path) -> Any:
    """Return what a pickle holds.

    Raises:
        pickle.UnpicklingError: more than numbers, arrays and containers of them.
    """
    return _NumbersOnly(io.BytesIO(path.read_bytes())).load()


def step_of(name: str) -> int:
    """Return the step in a file's or a revision's name; ``main`` is the last one."""
    found = re.search(r"step(\d+)", name)
    return int(found[1]) if found else LAST_STEP


def harness_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the results below evals/pythia-v1: MODEL/SHOTS/NAME_stepN.json, or MODEL/NAME_stepN.json for zero-shot."""
    for path in sorted((folder / "evals" / "pythia-v1").rglob("*.json")):
        parts = path.relative_to(folder / "evals" / "pythia-v1").parts
        content = json.loads(path.read_text(encoding="utf-8"))
        for task, metrics in content["results"].items():
            for metric, value in metrics.items():
                if metric.endswith("_stderr"):
                    continue
                yield {
                    "model": parts[0],
                    "shots": parts[1] if len(parts) == 3 else "zero-shot",
                    "step": step_of(path.name),
                    "task": task,
                    "metric": metric,
                    "value": value,
                    "stderr": metrics.get(f"{metric}_stderr"),
                    "model_args": content["config"]["model_args"],
                }


def geometry_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the layerwise metrics on WikiText: SIZE/REVISION/metrics/wikitext/METRIC.pkl."""
    results = folder / "experiments" / "results" / "Pythia"
    for path in sorted(results.glob("*/*/metrics/wikitext/*.pkl")):
        size, revision = path.relative_to(results).parts[:2]
        for variant, values in read_numbers(path).items():
            for layer, value in enumerate(values):
                yield {
                    "model": f"pythia-{size}",
                    "revision": revision,
                    "step": step_of(revision),
                    "dataset": "wikitext",
                    "metric": path.stem,
                    "variant": variant,
                    "layer": layer,
                    "value": float(value),
                }


def mteb_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield main scores on MTEB's test splits, means over a task's subsets: SIZE/REVISION/mteb/layer_N/TASK.json."""
    results = folder / "experiments" / "results" / "Pythia"
    for path in sorted(results.glob("*/*/mteb/layer_*/*.json")):
        if path.name == "model_meta.json":
            continue
        size, revision = path.relative_to(results).parts[:2]
        for split, scores in json.loads(path.read_text(encoding="utf-8"))["scores"].items():
            if split == "test":
                yield {
                    "model": f"pythia-{size}",
                    "revision": revision,
                    "step": step_of(revision),
                    "layer": int(path.parent.name.removeprefix("layer_")),
                    "task": path.stem,
                    "split": split,
                    "main_score": sum(score["main_score"] for score in scores) / len(scores),
                }


def excerpt(name: str, table: pl.DataFrame) -> pl.DataFrame:
    """Return what findings.md reads of a table."""
    if name == "pythia_lm_eval":
        kept = table.filter(
            pl.col("model").is_in(SIZES)
            & (pl.col("shots") == "zero-shot")
            & pl.col("task").is_in(TASKS)
            & (pl.col("metric") == "acc")
        )
        return kept.drop("model_args").sort("model", "task", "step")
    table = table.filter(pl.col("model") == "pythia-410m")
    if name == "pythia_layer_geometry":
        table = table.filter((pl.col("variant") == "raw") & (pl.col("metric") != "curvature"))
        return table.sort("metric", "step", "layer")
    return (
        table.group_by("model", "step", "layer", maintain_order=True)
        .agg(pl.lit("mean of MTEB").alias("task"), pl.len().alias("tasks"), pl.col("main_score").mean())
        .sort("step", "layer")
    )


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", type=Path, help="a clone of EleutherAI/pythia")
    parser.add_argument("--layers", type=Path, help="a clone of OFSkean/information_flow")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--excerpt", action="store_true", help="only what docs/findings.md reads")
    given = parser.parse_args()
    made: dict[str, Iterator[dict[str, Any]]] = {}
    if given.harness:
        made["pythia_lm_eval"] = harness_rows(given.harness)
    if given.layers:
        made |= {"pythia_layer_geometry": geometry_rows(given.layers), "pythia_layer_mteb": mteb_rows(given.layers)}
    given.out.mkdir(parents=True, exist_ok=True)
    for name, rows in made.items():
        table = pl.DataFrame(list(rows), infer_schema_length=None)
        table = excerpt(name, table) if given.excerpt else table
        table.write_parquet(given.out / f"{name}.parquet", compression="zstd")
        print(f"{name}: {table.height:,} rows")


if __name__ == "__main__":
    main()
