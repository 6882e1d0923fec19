"""Figures 1, 2, 3 and 7: emergence, floors and layers of the synthetic models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from pythiageo.events import PROTOCOLS
from pythiageo.events.run import Run
from pythiageo.figures.spec import (
    EASY,
    HARD,
    RELATIVE_DEPTH,
    Axis,
    Cells,
    Line,
    Panel,
    PaperFigure,
    class_of,
    leave_empty,
    select_task_aligned,
)
from pythiageo.figures.values import (
    NO_ALIGNED,
    NO_RANK,
    PROTOCOL,
    SPECTRA,
    blocks,
    depth,
    edge_floors,
    find_events,
    last_block,
    missing_sizes,
    short_runs,
    spectrum_name,
    tasks,
    values,
)
from pythiageo.names import RANKME
from pythiageo.observations.measures import axis_title

FLOOR_UNTIL = 25_000
AFTER = 10_000
"""Steps after emergence at which Figure 3's right panel is taken."""
_ORDER = {"easy": 0, "hard": 1, "other": 2}


def emergence(runs: Sequence[Run]) -> PaperFigure:
    """Figure 1: task and level by run, colour log10 of the acquisition step, under every protocol."""
    shown = select_task_aligned(runs)
    panels = (
        tuple(_emergence_panel(shown, name) for name in PROTOCOLS) if shown else (leave_empty("Emergence", NO_ALIGNED),)
    )
    return PaperFigure(
        "fig-1",
        "Figure 1. Emergence map",
        "Acquisition step (colour: its log10) by task, level and run; the line parts easy from hard tasks. An empty "
        "cell was not reached (n.r.) or cannot be read (undefined): never a step.",
        panels,
        tuple(missing_sizes(shown)),
    )


def _emergence_panel(runs: Sequence[Run], protocol: str) -> Panel:
    rule = f"{protocol}: {PROTOCOLS[protocol].rule}"
    tables = [
        run.shown_events().filter((pl.col("event") == "acquisition") & (pl.col("protocol") == protocol)) for run in runs
    ]
    places = sorted(
        {place for table in tables for place in table.select("task", "level").iter_rows()},
        key=lambda place: (_ORDER[class_of(place[0])], _rank(place[0]), str(place[1])),
        reverse=True,  # rows are drawn from below
    )
    if not places:
        return leave_empty(rule, "no accuracy was measured")
    steps = [{(row["task"], row["level"]): row for row in table.iter_rows(named=True)} for table in tables]
    z: list[list[float | None]] = []
    text: list[list[str]] = []
    for place in places:
        rows = [table.get(place) for table in steps]
        z.append([_log(row["step"]) if row and row["status"] == "found" else None for row in rows])
        text.append([_cell(row) for row in rows])
    names = tuple(f"{task} {level}" if level else str(task) for task, level in places)
    below = sum(class_of(task) != "easy" for task, _ in places)
    labels = tuple(run.label for run in runs)
    return Panel(
        rule,
        Axis("names", names=labels),
        Axis("names", names=names),
        cells=Cells(list(range(len(runs))), names, z, text, "log10 step"),
        level=below - 0.5 if 0 < below < len(places) else None,
    )


def _rank(task: str | None) -> tuple[int, str]:
    every = (*EASY, *HARD)
    return (every.index(task) if task in every else len(every)), str(task)


def _log(step: int) -> float:
    return math.log10(max(step, 1))


def _cell(row: dict[str, object] | None) -> str:
    if row is None:
        return "–"
    if row["status"] == "found":
        return f"{row['step']:,}"
    return "n.r." if row["status"] == "not-reached" else str(row["status"])


def task_floors(runs: Sequence[Run]) -> PaperFigure:
    """Figure 2: the rank of the last block against the step, a panel a hard task and spectrum, a line a run."""
    shown = select_task_aligned(runs)
    panels = []
    for measure in SPECTRA:
        for task in HARD:
            title = f"{task}, {spectrum_name(measure)}"
            rows = [last_block(run, measure, task).filter(pl.col("step") <= FLOOR_UNTIL) for run in shown]
            lines = [
                Line(run.label, each["step"].to_list(), values(each), f"category-{number}")
                for number, (run, each) in enumerate(zip(shown, rows, strict=True))
                if each["value"].count()
            ]
            lack = f"no rank of {task} was measured" if shown else NO_ALIGNED
            y = Axis("linear", axis_title(measure), _from_zero(lines))
            x = Axis("step", "training step")
            panels.append(Panel(title, x, y, tuple(lines), shade=(0, 200)) if lines else leave_empty(title, lack))
    return PaperFigure(
        "fig-2",
        "Figure 2. Task floors",
        "Rank at the last block, before the final LayerNorm, by step, to step 25,000; steps 0–200 are shaded. Both "
        f"spectra, each under its own name{_readout(shown)}. The paper's step axis is linear, this one logarithmic.",
        tuple(panels),
        (*missing_sizes(shown), *short_runs(shown, FLOOR_UNTIL)),
    )


def _readout(runs: Sequence[Run]) -> str:
    names = sorted({run.readout for run in runs if run.readout})
    return f" (readout {', '.join(names)})" if names else ""


def _from_zero(lines: Sequence[Line]) -> tuple[float, float] | None:
    high = max((value for line in lines for value in line.y if value is not None), default=None)
    return None if high is None else (0.0, high * 1.06)


def top_down(runs: Sequence[Run]) -> PaperFigure:
    """Figure 3: the rank of MOD by layer, at the floor and 10,000 steps after emergence, a line a run."""
    shown = select_task_aligned(runs)
    lacks = [text for text in missing_sizes(shown) if not text.startswith("seeds")]
    panels, taken = [], []
    for measure in SPECTRA:
        for moment in ("at the floor", "10K steps after emergence"):
            lines = []
            for number, run in enumerate(shown):
                step, why = _moment(run, measure, moment)
                if step is None:
                    lacks.append(f"{run.label}, {moment}, {spectrum_name(measure)}: {why}")
                    continue
                profile = _profile(run, measure, step, f"category-{number}")
                if not any(value is not None for value in profile.y):
                    lacks.append(f"{run.label}, {moment}, {spectrum_name(measure)}: not measured at step {step:,}")
                    continue
                lines.append(profile)
                taken.append(f"{lines[-1].name} ({moment}, {spectrum_name(measure)})")
                lacks += edge_floors(run, measure, ["MOD"]) if moment == "at the floor" else []
            title = f"MOD {moment}, {spectrum_name(measure)}"
            x = Axis("linear", "relative depth of the block", (-0.04, 1.04))
            y = Axis("linear", axis_title(measure), _from_zero(lines))
            why = "no run has this step (see below)" if shown else NO_ALIGNED
            panels.append(Panel(title, x, y, tuple(lines)) if lines else leave_empty(title, why))
    caption = "Rank by block for MOD; 0 is the first block and 1 the last. The floor is billa-v4's, emergence MOD L2's."
    caption += f" Drawn: {'; '.join(taken)}." if taken else ""
    return PaperFigure("fig-3", "Figure 3. Top-down", caption, tuple(panels), tuple(lacks))


def _moment(run: Run, measure: str, moment: str) -> tuple[int | None, str]:
    """Return the step of a moment of MOD, or why there is none."""
    if moment == "at the floor":
        floor = find_events(run, "floor", measure=measure).filter(pl.col("task") == "MOD")
        return (int(floor["step"][0]), "") if floor.height else (None, "no floor of MOD was found")
    acquired = find_events(run, "acquisition").filter((pl.col("task") == "MOD") & (pl.col("level") == "L2"))
    if not acquired.height:
        return None, f"MOD L2 was not acquired under {PROTOCOL}"
    wanted = int(acquired["step"][0]) + AFTER
    later = run.geometry.filter((pl.col("task") == "MOD") & (pl.col("step") >= wanted))["step"].min()
    return (None, f"no checkpoint at or after step {wanted:,}") if later is None else (int(later), "")  # type: ignore[arg-type]


def _profile(run: Run, measure: str, step: int, colour: str) -> Line:
    rows = blocks(run, measure, "MOD").filter((pl.col("step") == step) & ~pl.col("final"))
    last = max(depth(run) - 1, 1)
    name = f"{run.label}, step {step:,}"
    return Line(name, [layer / last for layer in rows["layer"]], values(rows), colour, legend=run.label)


def layers_over_training(runs: Sequence[Run]) -> PaperFigure:
    """Figure 7: the rank against the step, a line a layer, a panel a run and task (of trained tasks the hard)."""
    measure = next((name for name in SPECTRA if any(_has(run, name) for run in runs)), None)
    measure = measure or next((name for run in runs for name in run.geometry["measure"].unique().sort()), RANKME)
    panels = []
    for run in runs:
        measured = tasks([run])
        hard = [task for task in HARD if task in measured] if run.regime == "task-aligned" else []
        for task in hard or measured:
            lines = _layer_lines(run, measure, task)
            title = f"{task} · {run.label}"
            y = Axis("linear", axis_title(measure), _from_zero(lines))
            full = Panel(title, Axis("step", "training step"), y, tuple(lines))
            panels.append(full if lines else leave_empty(title, f"no {spectrum_name(measure)} of {task} was measured"))
    lacks = [] if any(run.size == "micro" for run in runs) else ["the paper shows size micro, of which there is no run"]
    return PaperFigure(
        "fig-7",
        "Figure 7. Layers over training",
        f"{spectrum_name(measure)} by step, a line a block, light to dark with depth, and the final LayerNorm.",
        tuple(panels) or (leave_empty("Layers", NO_RANK),),
        tuple(lacks),
        RELATIVE_DEPTH if len({depth(run) for run in runs if depth(run)}) > 1 else None,
    )


def _has(run: Run, measure: str) -> bool:
    return bool((run.geometry["measure"] == measure).any())


def _layer_lines(run: Run, measure: str, task: str) -> list[Line]:
    lines = []
    for rows in blocks(run, measure, task).partition_by("final", "layer", maintain_order=True):
        if not rows["value"].count():
            continue
        layer, final = int(rows["layer"][0]), bool(rows["final"][0])
        share = layer / (depth(run) - 1) if depth(run) > 1 else 1.0
        name = "final LayerNorm" if final else f"block {layer}"
        colour, dash = ("final", "dash") if final else (f"depth-{share:.3f}", "solid")
        lines.append(Line(name, rows["step"].to_list(), values(rows), colour, dash))
    return lines
