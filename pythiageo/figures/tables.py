"""The paper's tables for this data."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pythiageo.events import PROTOCOLS
from pythiageo.events.run import Run
from pythiageo.figures.spec import (
    EASY,
    HARD,
    PaperTable,
    class_of,
    select_naturalistic,
    select_task_aligned,
    text_frame,
)
from pythiageo.figures.values import NO_ALIGNED, NO_NATURAL, PROTOCOL, find_events, missing_sizes
from pythiageo.observations.manifest import ModelFacts

_LOG_LIMIT = 64 * 2**20
_TRAINING = (
    "steps", "stop", "batch_size", "peak_lr", "warmup", "betas", "weight_decay", "clip", "checkpoints",
)  # fmt: skip


def task_table(runs: Sequence[Run]) -> PaperTable:
    """Table 1: tasks and levels, their class, probe sets and chance."""
    caption = "Probe sets for scores: examples, declared chance, first digits of their hash."
    return _sets_table("table-1", "Table 1. Tasks", caption, select_task_aligned(runs), NO_ALIGNED)


def natural_sets_table(runs: Sequence[Run]) -> PaperTable:
    """Table 4: the probe sets of the naturalistic runs."""
    caption = "Probe sets for scores of the naturalistic runs."
    return _sets_table("table-4", "Table 4. Sets for language models", caption, select_naturalistic(runs), NO_NATURAL)


def _sets_table(name: str, title: str, caption: str, runs: Sequence[Run], nobody: str) -> PaperTable:
    frame = _probe_sets(runs)
    why = nobody if not runs else "no manifest names a probe set for scores"
    return PaperTable(name, title, caption, frame, () if frame.height else (why,))


def _probe_sets(runs: Sequence[Run]) -> pl.DataFrame:
    rows: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        for each in run.manifest.probe_sets:
            if each.purpose == "score":
                task, chance = str(each.task), "–" if each.chance is None else f"{each.chance:.4g}"
                key = (task, str(each.level), class_of(task), str(each.examples), chance, str(each.hash))
                rows.setdefault(key, []).append(run.label)
    order = sorted(rows, key=lambda key: (_place(key[0]), key))
    head = ("Task", "Level", "Class", "Examples", "Chance", "Probe set", "Runs")
    return text_frame(head, [[*key, ", ".join(rows[key])] for key in order])


def _place(task: str) -> int:
    every = (*EASY, *HARD)
    return every.index(task) if task in every else len(every)


def size_table(runs: Sequence[Run]) -> PaperTable:
    """Table 2: sizes."""
    head = ("Run", "Size", "Architecture", "Layers", "Width", "Parameters", "Last step", "Checkpoints", "Seed")
    rows = []
    for run in runs:
        model = run.manifest.model or ModelFacts()
        shape = [_number(value) for value in (model.layers, model.d_model, model.parameters)]
        steps = run.distinct["step"]
        last = [_number(steps.max()), _number(steps.n_unique()), _number(run.distinct["seed"][0])]
        rows.append([run.label, run.size, model.architecture or "–", *shape, *last])
    lacks = [text for text in missing_sizes(select_task_aligned(runs)) if not text.startswith("seeds")]
    return PaperTable("table-2", "Table 2. Models", "The runs' models.", text_frame(head, rows), tuple(lacks))


def measure_table(runs: Sequence[Run]) -> PaperTable:
    """Table 3: measures taken, how many observations each has, and on how many rows or examples they rest."""
    table = pl.concat([run.distinct for run in runs])
    grouped = table.group_by("measure").agg(
        pl.len(), (pl.col("status") == "ok").sum().alias("ok"), pl.col("readout").n_unique(),
        pl.col("n").min().alias("low"), pl.col("n").max().alias("high"),
    ).sort("measure")  # fmt: skip
    rows = []
    for name, count, ok, readouts, low, high in grouped.rows():
        size = "–" if low is None else f"{low:,}" if low == high else f"{low:,} to {high:,}"
        rows.append([name, f"{count:,}", f"{ok:,}", readouts, size])
    head = ("Measure", "Observations", "With a value", "Readouts", "Rows or examples")
    wanted = ("gradient_rank", "llc", "hessian_top", "gradient_covariance_rank")
    absent = [name for name in wanted if name not in set(table["measure"])]
    lacks = ["cost of each measure by itself: the runs time checkpoints, not measures"]
    lacks += [f"not measured: {', '.join(absent)}"] if absent else []
    return PaperTable("table-3", "Table 3. Measures", "What was measured.", text_frame(head, rows), tuple(lacks))


def emergence_table(runs: Sequence[Run], level: str | None) -> PaperTable:
    """Tables 5 (level L2) and 8 (all): acquisition steps by run under every protocol."""
    shown = select_task_aligned(runs)
    head = ["Task", "Level", *(f"{run.label}, {name}" for run in shown for name in PROTOCOLS)]
    cells: dict[tuple[str, str], list[str]] = {}
    for column, (run, name) in enumerate((run, name) for run in shown for name in PROTOCOLS):
        same = (pl.col("event") == "acquisition") & (pl.col("protocol") == name)
        for row in run.shown_events().filter(same).iter_rows(named=True):
            if level is None or row["level"] == level:
                line = cells.setdefault((str(row["task"]), str(row["level"])), ["–"] * (len(head) - 2))
                line[column] = f"{row['step']:,}" if row["status"] == "found" else row["status"]
    places = sorted(cells, key=lambda place: (_place(place[0]), place))
    name, title = (
        ("table-5", "Table 5. Acquisition at L2") if level else ("table-8", "Table 8. Acquisition, all levels")
    )
    lacks = missing_sizes(shown)
    if shown and not places:
        lacks.append(f"no accuracy{f' at {level}' if level else ''} was measured")
    frame = text_frame(head, [[*place, *cells[place]] for place in places])
    return PaperTable(name, title, "Step of acquisition, or its status: never 0 or the last step.", frame, tuple(lacks))


def training_table(runs: Sequence[Run]) -> PaperTable:
    """Table 7: training configuration of the runs that trained."""
    shown = [run for run in runs if run.manifest.settings("training")]
    rows = [[name, *(_plain(run.manifest.settings("training").get(name)) for run in shown)] for name in _TRAINING]
    rows += [["data", *(_plain(run.manifest.settings("data").get("source")) for run in shown)]]
    lacks = (
        () if shown else ("none of the runs trained a model here; a series on the Hub does not say how it was trained",)
    )
    frame = text_frame(["Setting", *(run.label for run in shown)], rows if shown else [])
    return PaperTable("table-7", "Table 7. Training", "The training settings in the runs' manifests.", frame, lacks)


def probe_table(runs: Sequence[Run]) -> PaperTable:
    """Version 4's Table 6: exact match and linear probe at the last checkpoint before acquisition."""
    rows = []
    for run in runs:
        probes = run.distinct.filter(pl.col("measure").is_in(["linear_probe", "linear_probe_by_position"]))
        last = pl.col("site").str.ends_with(".hook_resid_post") & (pl.col("layer") == pl.col("layer").max())
        for event in find_events(run, "acquisition").iter_rows(named=True):
            task = pl.col("task").eq_missing(pl.lit(event["task"]))
            before = probes.filter(last & task & (pl.col("step") < event["step"]))
            for measure in before["measure"].unique().sort():
                row = before.filter(pl.col("measure") == measure).sort("step").row(-1, named=True)
                same = task & pl.col("level").eq_missing(pl.lit(event["level"]))
                here = run.distinct.filter(same & (pl.col("step") == row["step"]) & (pl.col("measure") == "accuracy"))
                match = here["value"][0] if here.height else None
                name = [run.label, event["task"], event["level"], f"{row['step']:,}", measure]
                rows.append([*name, _share(match), _share(row["value"])])
    head = ("Run", "Task", "Level", "Step before acquisition", "Probe", "Exact match", "Probe accuracy")
    probed = any((run.distinct["measure"] == "linear_probe").any() for run in runs)
    why = (
        "no acquired task has a probe before its acquisition"
        if probed
        else "no linear probe was fitted (--measures linear_probe)"
    )
    return PaperTable(
        "table-v4-6", "Table 6 of version 4. Probe before acquisition",
        "Exact match is per answer, the probe per token at the last block: two questions, not two answers to one. A "
        "probe by position has positions of one example on both sides of its split, which alone can make it right.",
        text_frame(head, rows), () if rows else (why,),
    )  # fmt: skip


def time_table(runs: Sequence[Run]) -> PaperTable:
    """Table 10: seconds of a checkpoint by phase, from the runs' logs."""
    rows, lacks = [], []
    for run in runs:
        spent = _spent(run.path / "log.jsonl") if run.path else {}
        if not spent:
            lacks.append(f"{run.label} has no log of what its checkpoints took")
        for phase, seconds in spent.items():
            rows.append([run.label, phase, len(seconds), f"{statistics.median(seconds):.3g}", f"{sum(seconds):.4g}"])
    head = ("Run", "Phase", "Checkpoints", "Median seconds", "Seconds in all")
    lacks.append("GPU-hours by measure: the runs time phases")
    return PaperTable(
        "table-10", "Table 10. Compute", "Wall time of the runs' checkpoints by phase, as their logs have it.",
        text_frame(head, rows), tuple(lacks),
    )  # fmt: skip


def _spent(log: Path) -> dict[str, list[float]]:
    """Return the seconds of each phase in a run's log; lines that are none of its own are passed over."""
    if not log.is_file() or log.is_symlink() or log.stat().st_size > _LOG_LIMIT:
        return {}
    spent: dict[str, list[float]] = {}
    for line in log.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        seconds = entry.get("seconds") if isinstance(entry, dict) else None
        for phase, value in seconds.items() if isinstance(seconds, dict) else ():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                spent.setdefault(str(phase)[:40], []).append(float(value))
    return spent


def freezing_table(runs: Sequence[Run]) -> PaperTable:
    """Version 4's Table 13: acquisition of the hard tasks with a block frozen at first, beside runs without."""
    shown = select_task_aligned(runs)
    frozen = [run for run in shown if run.manifest.settings("training").get("freeze_block") is not None]
    sizes = {run.size for run in frozen}
    rows = []
    for run in [run for run in shown if run.size in sizes]:
        training = run.manifest.settings("training")
        block, until = training.get("freeze_block"), training.get("freeze_until")
        held = "none" if block is None else f"block {_plain(block)} to step {_plain(until)}"
        same = (pl.col("event") == "acquisition") & (pl.col("protocol") == PROTOCOL) & pl.col("task").is_in(HARD)
        for event in run.shown_events().filter(same).sort("task", "level").iter_rows(named=True):
            step = f"{event['step']:,}" if event["status"] == "found" else event["status"]
            rows.append([run.label, run.size, run.distinct["seed"][0], held, event["task"], event["level"], step])
    head = ("Run", "Size", "Seed", "Frozen", "Task", "Level", f"Acquisition, {PROTOCOL}")
    lacks = []
    if not frozen:
        lacks.append("no run froze a block (training.freeze_block)")
    elif any(size not in {run.size for run in shown if run not in frozen} for size in sizes):
        lacks.append("no run of the same size without freezing")
    if frozen and not rows:
        lacks.append("no accuracy of a hard task was measured")
    return PaperTable(
        "table-v4-13",
        "Table 13 of version 4. Freezing a block",
        "Acquisition step of the hard tasks, or its status, with a block frozen at first and without.",
        text_frame(head, rows),
        tuple(lacks),
    )


def denoising_table() -> PaperTable:
    """Table 9, which needs an experiment that no run folder holds."""
    why = "gradients are not denoised here, so there is no rank to set beside the exact one"
    return PaperTable("table-9", "Table 9. Gradient rank and LLC under denoising", "", lacks=(why,))


def _plain(value: object) -> str:
    return "–" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)[:120]


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "–" if value is None else str(value)[:60]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
