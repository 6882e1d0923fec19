"""Figures as data: panels of lines, laid out by the report's own script to the width of the page.

A figure is a dictionary: ``id``, ``title``, ``caption``, ``legend`` (for the template), ``x`` (``step`` or
``layer``) and ``panels`` (for the script). A panel has ``title``, ``task`` (index into the report's tasks, or
``None``), ``range`` (of y) and ``lines``. Text that the drawing library shows has passed ``label_text``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from pythiageo.report.loaded import SIGMA_SQUARED, SPECTRA, LoadedRun

FINAL_COLOUR = "#B4430C"
GREY = "#767676"
CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart under the common kinds of colour blindness."""
_DEPTH_STOPS = ((0x9D, 0xBF, 0xDB), (0x5B, 0x98, 0xC6), (0x2B, 0x6E, 0xA6), (0x0B, 0x2F, 0x5E))
"""Light to dark with depth, so that the order survives printing in grey."""
_LABEL_LENGTH = 60


def label_text(text: object) -> str:
    """Return text that the drawing library shows as it is: it reads a subset of HTML in labels."""
    flat = " ".join(str(text).split())
    short = flat if len(flat) <= _LABEL_LENGTH else flat[: _LABEL_LENGTH - 1] + "…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def depth_colour(layer: int, depth: int) -> str:
    """Return the colour of a block by its relative depth."""
    position = (layer / (depth - 1) if depth > 1 else 1.0) * (len(_DEPTH_STOPS) - 1)
    low = min(int(position), len(_DEPTH_STOPS) - 2)
    share = position - low
    channels = zip(_DEPTH_STOPS[low], _DEPTH_STOPS[low + 1], strict=True)
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in channels)


def tasks_of(runs: Sequence[LoadedRun]) -> list[str]:
    """Return all tasks of the runs, sorted."""
    return sorted({task for run in runs for task in run.table["task"].drop_nulls().unique()})


def figures(runs: Sequence[LoadedRun]) -> list[dict[str, Any]]:
    """Return the figures that the runs have data for, in reading order."""
    drawn = [_ranks(runs, measure, title) for measure, title in SPECTRA.items()]
    drawn += [_profiles(runs), *([_last_blocks(runs)] if len(runs) > 1 else [])]
    drawn += [_scores(runs, "accuracy", "Accuracy"), _scores(runs, "log_prob", "Mean log-probability")]
    drawn += [_losses(runs)]
    return [figure for figure in drawn if figure["panels"]]


def _figure(name: str, title: str, caption: str, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "title": title,
        "caption": caption,
        "x": "step",
        "panels": [],
        "legend": [],
    } | more


def _line(rows: pl.DataFrame, name: str, colour: str, dash: str = "solid", x: str = "step") -> dict[str, Any]:
    values = [None if value is None else float(f"{value:.6g}") for value in rows["value"]]
    return {"name": label_text(name), "x": rows[x].to_list(), "y": values, "colour": colour, "dash": dash}


def _panel(
    title: str, task: int | None, lines: Iterable[dict[str, Any]], y_range: list[float] | None
) -> dict[str, Any]:
    return {"title": label_text(title), "task": task, "lines": list(lines), "range": y_range}


def _title(task: str, run: LoadedRun, runs: Sequence[LoadedRun]) -> str:
    return task if len(runs) == 1 else f"{task} · {run.label}"


def _from_zero(values: pl.Series) -> list[float] | None:
    """Return a range from zero to a little above the largest value."""
    top = values.max()
    return None if top is None else [0.0, float(top) * 1.06]  # type: ignore[arg-type]


def _depth(rows: pl.DataFrame) -> int:
    return int(rows["layer"].max()) + 1  # type: ignore[arg-type]


def _layer_legend(runs: Sequence[LoadedRun]) -> list[dict[str, str]]:
    """Return one entry a block, or first and last block where there are many or several depths."""
    depths = sorted({_depth(run.geometry) for run in runs if run.geometry.height})
    if not depths:
        return []
    if len(depths) == 1 and depths[0] <= 12:
        entries = [(f"block {layer}", depth_colour(layer, depths[0])) for layer in range(depths[0])]
    else:
        entries = [(name, depth_colour(at, 3)) for at, name in enumerate(("first block", "middle", "last block"))]
    blocks = [{"name": name, "colour": colour, "dash": "solid"} for name, colour in entries]
    return [*blocks, {"name": "final LayerNorm", "colour": FINAL_COLOUR, "dash": "dash"}]


def _ranks(runs: Sequence[LoadedRun], measure: str, title: str) -> dict[str, Any]:
    readouts = sorted({run.readout for run in runs if run.readout})
    caption = (
        f"By step, a line for each block's output and one for the final LayerNorm. "
        f"Readout {', '.join(readouts)}. Panels of one task share their axes; a gap is a checkpoint without a value."
    )
    figure = _figure(measure, f"{title} by layer and step", caption, legend=_layer_legend(runs))
    for index, task in enumerate(tasks_of(runs)):
        shown = [run.geometry.filter((pl.col("measure") == measure) & (pl.col("task") == task)) for run in runs]
        y_range = _from_zero(pl.concat([rows["value"] for rows in shown]))
        for run, rows in zip(runs, shown, strict=True):
            if y_range is not None and rows["value"].count():
                figure["panels"].append(_panel(_title(task, run, runs), index, _layer_lines(run, rows), y_range))
    return figure


def _layer_lines(run: LoadedRun, rows: pl.DataFrame) -> Iterable[dict[str, Any]]:
    depth = _depth(run.geometry)
    for site in rows.sort("layer", "site").partition_by("site", "level", maintain_order=True):
        final = site["site"][0] == "ln_final.hook_out"
        layer = int(site["layer"][0])
        name = "final LayerNorm" if final else f"block {layer}"
        colour = FINAL_COLOUR if final else depth_colour(layer, depth)
        yield _line(_gapped(run, site), name, colour, "dash" if final else "solid")


def _gapped(run: LoadedRun, rows: pl.DataFrame) -> pl.DataFrame:
    """Return step and value at every checkpoint of the run, null where there is no observation."""
    return run.table.select("step").unique().sort("step").join(rows.select("step", "value"), on="step", how="left")


def _floors(run: LoadedRun) -> pl.DataFrame:
    found = (pl.col("event") == "floor") & (pl.col("protocol") == "billa-v4") & (pl.col("status") == "found")
    return run.events().filter(found)


def _profiles(runs: Sequence[LoadedRun]) -> dict[str, Any]:
    caption = (
        "Each run at the step of its own floor at the last block (protocol billa-v4). Blocks are placed "
        "by relative depth, 0 the first and 1 the last; the separate mark is the final LayerNorm."
    )
    figure = _figure(
        "profiles", f"{SPECTRA[SIGMA_SQUARED]} at the floor, by layer", caption, x="layer", legend=_run_legend(runs)
    )
    floors = [_floors(run) for run in runs]
    for index, task in enumerate(tasks_of(runs)):
        lines: list[dict[str, Any]] = []
        values = [0.0]
        for number, (run, floor) in enumerate(zip(runs, floors, strict=True)):
            for step in floor.filter(pl.col("task") == task)["step"]:
                rows = run.geometry.filter(
                    (pl.col("measure") == SIGMA_SQUARED) & (pl.col("task") == task) & (pl.col("step") == step)
                )
                lines += _profile_lines(run, rows, f"{run.label}, step {step:,}", _category(number))
                values += rows["value"].drop_nulls().to_list()
        if lines:
            figure["panels"].append(_panel(task, index, lines, [0.0, max(values) * 1.06]))
    return figure


def _profile_lines(run: LoadedRun, rows: pl.DataFrame, name: str, colour: str) -> Iterable[dict[str, Any]]:
    last = max(_depth(run.geometry) - 1, 1)
    final = pl.col("site") == "ln_final.hook_out"
    placed = rows.with_columns(pl.when(final).then(1.12).otherwise(pl.col("layer") / last).alias("at")).sort("at")
    yield _line(placed.filter(~final), name, colour, x="at")
    yield _line(placed.filter(final), f"{name}, final LayerNorm", colour, x="at")


def _category(number: int) -> str:
    return CATEGORIES[number % len(CATEGORIES)]


def _run_legend(runs: Sequence[LoadedRun]) -> list[dict[str, str]]:
    names = [f"{run.label} ({run.regime})" for run in runs]
    return [{"name": name, "colour": _category(number), "dash": "solid"} for number, name in enumerate(names)]


def _last_blocks(runs: Sequence[LoadedRun]) -> dict[str, Any]:
    caption = "The last block of every run on the same axes, before the final LayerNorm."
    figure = _figure("last-blocks", f"{SPECTRA[SIGMA_SQUARED]}, runs side by side", caption, legend=_run_legend(runs))
    for index, task in enumerate(tasks_of(runs)):
        lines, values = [], [0.0]
        for number, run in enumerate(runs):
            rows = run.geometry.filter(
                (pl.col("measure") == SIGMA_SQUARED) & (pl.col("layer") == pl.col("layer").max())
            )
            block = pl.col("site") != "ln_final.hook_out"
            rows = rows.filter(block & (pl.col("task") == task))
            if rows["value"].count():
                lines.append(_line(_gapped(run, rows), run.label, _category(number)))
                values += rows["value"].drop_nulls().to_list()
        if lines:
            figure["panels"].append(_panel(task, index, lines, [0.0, max(values) * 1.06]))
    return figure


def _scores(runs: Sequence[LoadedRun], measure: str, title: str) -> dict[str, Any]:
    levels = sorted(
        {level for run in runs for level in run.table.filter(pl.col("measure") == measure)["level"].drop_nulls()}
    )
    colours = {level: _category(number) for number, level in enumerate(levels)}
    legend = [{"name": level, "colour": colour, "dash": "solid"} for level, colour in colours.items()]
    accuracy = measure == "accuracy"
    if accuracy:
        legend.append({"name": "chance, in the level's colour", "colour": GREY, "dash": "dot"})
        caption = (
            "Exact match of the whole answer. Dotted: the larger of the declared chance and the share "
            "of the most common answer in the probe set."
        )
    else:
        caption = "Mean log-probability of an answer token, in nats, given the prompt and the answer so far."
    figure = _figure(measure, f"{title} by task and level", caption, legend=legend)
    for index, task in enumerate(tasks_of(runs)):
        shown = [run.table.filter((pl.col("measure") == measure) & (pl.col("task") == task)) for run in runs]
        low = min((float(v) for rows in shown for v in rows["value"].drop_nulls()), default=math.nan)
        for run, rows in zip(runs, shown, strict=True):
            if not rows["value"].count():
                continue
            lines = _level_lines(run, rows, colours, with_chance=accuracy)
            y_range = [-0.03, 1.03] if accuracy else [low * 1.05 if low < 0 else low, 0.0]
            figure["panels"].append(_panel(_title(task, run, runs), index, lines, y_range))
    return figure


def _level_lines(
    run: LoadedRun, rows: pl.DataFrame, colours: dict[str, str], with_chance: bool
) -> Iterable[dict[str, Any]]:
    for level in rows.sort("level", "step").partition_by("level", maintain_order=True):
        name = level["level"][0] or ""
        colour = colours.get(name, GREY)
        if with_chance:
            guess = run.table.filter(
                pl.col("measure").is_in(["chance_accuracy", "majority_rate"])
                & (pl.col("task") == rows["task"][0])
                & (pl.col("level") == name)
            )
            guess = guess.group_by("step").agg(pl.col("value").max()).sort("step")
            if guess.height:
                yield _line(guess, f"{name} chance", colour, "dot")
        yield _line(_gapped(run, level), name, colour)


def _losses(runs: Sequence[LoadedRun]) -> dict[str, Any]:
    caption = "Mean cross-entropy on held-out text, in nats per predicted token."
    figure = _figure("held-out-loss", "Held-out loss", caption)
    for number, run in enumerate(runs):
        rows = run.table.filter(pl.col("measure") == "held_out_loss")
        y_range = _from_zero(rows["value"])
        if y_range is not None:
            line = _line(_gapped(run, rows), run.label, _category(number))
            figure["panels"].append(_panel(run.label, None, [line], y_range))
    return figure
