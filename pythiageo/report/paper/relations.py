"""Figures 4 and 5: what leads acquisition, and what early ranks say about its order."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from pythiageo.report.loaded import SIGMA, SIGMA_SQUARED, SPECTRA, LoadedRun
from pythiageo.report.paper.spec import HARD, Axis, Line, Panel, PaperFigure, aligned, class_of, lacking
from pythiageo.report.paper.values import NO_ALIGNED, PROTOCOL, found, last_block, missing_sizes, score, spectrum_name

MEASURES = (SIGMA_SQUARED, SIGMA, "gradient_rank", "llc", "hessian_top", "gradient_covariance_rank")
"""The measures of the paper's hierarchy; RankMe under both spectra."""
RATES = "(b) the rate at which each measure leads: a claim, and without its null no figure"
CONCORDANCE = "(b) concordance and the swap test: claims, and without their intervals no figure"
_CLASSES = ("easy", "hard", "other")


def hierarchy(runs: Sequence[LoadedRun]) -> PaperFigure:
    """Figure 4a: accuracy of MOD on the left axis, every measure of the hierarchy, min-max normalised, on the right."""
    shown = aligned(runs)
    nano = next((run for run in shown if run.size == "nano"), shown[0] if shown else None)
    if nano is None:
        return PaperFigure("fig-4", "Figure 4. Hierarchy", "", (lacking("(a) MOD", NO_ALIGNED),), (NO_ALIGNED, RATES))
    level = "L2" if score(nano, "accuracy", "MOD", "L2").height else "L1"
    accuracy = score(nano, "accuracy", "MOD", level)
    title = f"(a) {nano.label}, MOD {level}"
    lacks, lines = [], []
    if accuracy["value"].count():
        lines.append(Line("accuracy (left)", accuracy["step"].to_list(), accuracy["value"].to_list(), "grey"))
    else:
        lacks.append(f"{nano.label} has no accuracy of MOD {level}")
    for number, measure in enumerate(MEASURES):
        rows = _whole_model(nano, measure)
        low, high = rows["value"].min(), rows["value"].max()
        if rows["value"].count() < 2 or low == high:
            count = rows["value"].count()
            lacks.append(f"{measure} of MOD has {count} value{'s' if count != 1 else ''} in {nano.label}, so no curve")
            continue
        scaled = rows.with_columns((pl.col("value") - low) / (high - low))  # type: ignore[operator]
        lines.append(
            Line(measure, scaled["step"].to_list(), scaled["value"].to_list(), f"category-{number}", right=True)
        )
    panel = Panel(
        title,
        Axis("step", "training step"),
        Axis("linear", "accuracy", (-0.03, 1.03)),
        tuple(lines),
        right=Axis("linear", "measure, min-max normalised", (-0.03, 1.03)),
    )
    return PaperFigure(
        "fig-4",
        "Figure 4. Hierarchy",
        "(a) Accuracy of MOD (left axis) and each measure scaled to its own minimum and maximum (right axis): where a "
        "curve turns can be read from it, how much it moves cannot.",
        (panel if lines else lacking(title, "neither accuracy nor a measure of MOD has a curve"),),
        (*lacks, RATES, *([] if nano.size == "nano" else [f"no run of size nano; {nano.label} is drawn"])),
    )


def _whole_model(run: LoadedRun, measure: str) -> pl.DataFrame:
    """Return step and value of a measure of MOD: at the last block for ranks, of all parameters for the landscape."""
    if measure in SPECTRA:
        return last_block(run, measure, "MOD").select("step", "value")
    rows = run.table.filter((pl.col("measure") == measure) & (pl.col("task") == "MOD") & pl.col("layer").is_null())
    first = rows.sort("readout", "level").partition_by("readout", "level", maintain_order=True)
    return first[0].select("step", "value").sort("step") if first else rows.select("step", "value")


def prediction(runs: Sequence[LoadedRun]) -> PaperFigure:
    """Figure 5a: a task's floor against the step at which each of its levels is acquired, by class."""
    shown = aligned(runs)
    panels, lacks = [], missing_sizes(shown)
    for measure in SPECTRA:
        points: dict[str, list[tuple[float, float, str]]] = {name: [] for name in _CLASSES}
        unreached = 0
        for run in shown:
            floor = {row["task"]: row["value"] for row in found(run, "floor", measure=measure).iter_rows(named=True)}
            acquired = found(run, "acquisition")
            for row in acquired.iter_rows(named=True):
                if row["task"] in floor and row["step"] > 0:
                    name = f"{row['task']} {row['level']}, {run.label}"
                    points[class_of(row["task"])].append((floor[row["task"]], row["step"], name))
            every = run.events().filter((pl.col("event") == "acquisition") & (pl.col("protocol") == PROTOCOL))
            unreached += every.height - acquired.height
        title = f"(a) {spectrum_name(measure)}"
        lines = [
            Line(
                name,
                [each[0] for each in points[name]],
                [each[1] for each in points[name]],
                f"category-{_CLASSES.index(name)}",
                mode="markers",
                text=[each[2] for each in points[name]],
            )
            for name in _CLASSES
            if points[name]
        ]
        panel = Panel(
            title, Axis("linear", f"floor: {spectrum_name(measure)}"), Axis("log", "acquisition step"), tuple(lines)
        )
        why = "no task has both a floor and an acquisition step" if shown else NO_ALIGNED
        panels.append(panel if lines else lacking(title, why))
        if unreached:
            said = f"{unreached} tasks and levels are not drawn: not acquired under {PROTOCOL}, so they have no step"
            lacks += [said] if said not in lacks else []
    caption = (
        "(a) Floor of the last block (billa-v4) against acquisition step (logarithmic), a point a task, level and run. "
        f"Hard: {', '.join(HARD)}, as in version 1."
    )
    return PaperFigure("fig-5", "Figure 5. Limits of prediction", caption, tuple(panels), (*lacks, CONCORDANCE))
