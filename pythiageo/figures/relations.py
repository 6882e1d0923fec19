"""Figures 4 and 5: what leads acquisition, and what early ranks say about its order."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from pythiageo.claims import ClaimResult
from pythiageo.errors import count_noun
from pythiageo.events.run import Run
from pythiageo.figures.spec import (
    HARD,
    Axis,
    Line,
    Panel,
    PaperFigure,
    PaperTable,
    class_of,
    leave_empty,
    select_task_aligned,
    text_frame,
)
from pythiageo.figures.values import (
    NO_ALIGNED,
    PROTOCOL,
    SPECTRA,
    edge_floors,
    find_events,
    last_block,
    missing_sizes,
    score,
    spectrum_name,
)
from pythiageo.names import COVARIANCE_RANK, RANKME
from pythiageo.observations.measures import find_declared

MEASURES = (COVARIANCE_RANK, RANKME, "gradient_rank", "llc", "hessian_top", "gradient_covariance_rank")
"""The measures of the paper's hierarchy; RankMe under both spectra."""
PAIRS = {"prediction-across": "across", "prediction-hard": "hard", "prediction-easy": "easy", "prediction-swap": "swap"}
"""The claims of Figure 5b and what its axis calls them."""
_CLASSES = ("easy", "hard", "other")
_MARKS = ("circle", "diamond", "square", "triangle")


def hierarchy(runs: Sequence[Run], claims: Sequence[ClaimResult] = ()) -> PaperFigure:
    """Figure 4: (a) accuracy of MOD and every measure, min-max normalised; (b) how often each measure leads."""
    shown = select_task_aligned(runs)
    nano = next((run for run in shown if run.size == "nano"), shown[0] if shown else None)
    if nano is None:
        return PaperFigure("fig-4", "Figure 4. Hierarchy", "", (leave_empty("(a) MOD", NO_ALIGNED),), (NO_ALIGNED,))
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
            lacks.append(f"{measure} of MOD has {count_noun(count, 'value')} in {nano.label}, so no curve")
            continue
        scaled = rows.with_columns((pl.col("value") - low) / (high - low))  # type: ignore[operator]
        lines.append(
            Line(
                measure,
                scaled["step"].to_list(),
                scaled["value"].to_list(),
                f"category-{number}",
                right=True,
                legend=_title(measure),
            )
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
        "curve turns can be read from it, how much it moves cannot. (b) Share of acquisitions that each measure leads, "
        "with its 95% interval, beside the rate at which it leads the acquisitions of other tasks.",
        (
            panel if lines else leave_empty(title, "neither accuracy nor a measure of MOD has a curve"),
            _rates(claims),
        ),
        (*lacks, *([] if nano.size == "nano" else [f"no run of size nano; {nano.label} is drawn"])),
    )


def _title(measure: str) -> str:
    known = find_declared(measure)
    return known.title if known else measure


def find_claim(claims: Sequence[ClaimResult], name: str) -> ClaimResult | None:
    """Return the claim of this name."""
    return next((each for each in claims if each.name == name), None)


def _rates(claims: Sequence[ClaimResult]) -> Panel:
    """Return Figure 4b: the rate of every measure by class, all sizes together, and the rate of the null."""
    title = "(b) rate of leading"
    claim = find_claim(claims, "hierarchy")
    if claim is None:
        return leave_empty(title, "the claim was not asked for")
    table = (
        claim.table.filter((pl.col("size") == "all") & pl.col("rate").is_not_null())
        if claim.table.width
        else claim.table
    )
    if not table.height:
        return leave_empty(title, claim.reason or "no acquisition beside a transition was found")
    measures = table["measure"].unique().sort().to_list()
    lines = []
    for number, name in enumerate(("all", *_CLASSES)):
        rows = table.filter(pl.col("class") == name)
        if rows.height:
            places = [measures.index(measure) + (number - 1.5) / 8 for measure in rows["measure"]]
            text = [f"{row['measure']}, {name}: {row['n']} events" for row in rows.iter_rows(named=True)]
            # colours are the measures' in (a): here classes are told apart by their marks
            lines.append(
                Line(name, places, rows["rate"].to_list(), "ink", mode="markers", text=text, symbol=_MARKS[number],
                     low=rows["low"].to_list(), high=rows["high"].to_list())
            )  # fmt: skip
    null = table.filter((pl.col("class") == "all") & pl.col("null_rate").is_not_null())
    if null.height:
        places = [measures.index(measure) for measure in null["measure"]]
        name = "null: other tasks' acquisitions"
        lines.append(Line(name, places, null["null_rate"].to_list(), "grey", mode="markers", symbol="x"))
    names = tuple(_title(measure) for measure in measures)
    return Panel(title, Axis("names", names=names), Axis("linear", "share led", (-0.05, 1.05)), tuple(lines))


def _concordance(claims: Sequence[ClaimResult]) -> Panel:
    """Return Figure 5b: concordance across and within classes, and the swap test, beside one half."""
    title = "(b) concordance"
    known = [(each, PAIRS[each.name]) for each in claims if each.name in PAIRS]
    if not known:
        return leave_empty(title, "the claims were not asked for")
    drawn = [(claim, name) for claim, name in known if claim.estimate is not None]
    if not drawn:
        return leave_empty(title, "; ".join(f"{name}: {claim.reason}" for claim, name in known))
    names = tuple(PAIRS.values())
    ends = [claim.interval or (None, None) for claim, _ in drawn]
    line = Line(
        "share of pairs",
        [names.index(name) for _, name in drawn],
        [claim.estimate for claim, _ in drawn],
        "ink",  # colours are the classes' in (a)
        mode="markers",
        low=[end[0] for end in ends],
        high=[end[1] for end in ends],
        text=[f"{name}: {claim.n} pairs, {claim.verdict}" for claim, name in drawn],
    )
    return Panel(title, Axis("names", names=names), Axis("linear", "share of pairs", (-0.05, 1.05)), (line,), level=0.5)


def _whole_model(run: Run, measure: str) -> pl.DataFrame:
    """Return step and value of a measure of MOD: at the last block for ranks, of all parameters for the landscape."""
    if measure in SPECTRA:
        return last_block(run, measure, "MOD").select("step", "value")
    rows = run.distinct.filter((pl.col("measure") == measure) & (pl.col("task") == "MOD") & pl.col("layer").is_null())
    first = rows.sort("readout", "level").partition_by("readout", "level", maintain_order=True)
    return first[0].select("step", "value").sort("step") if first else rows.select("step", "value")


def prediction(runs: Sequence[Run], claims: Sequence[ClaimResult] = ()) -> PaperFigure:
    """Figure 5: (a) floor against the step at which a task's level is acquired; (b) concordance and the swap test."""
    shown = select_task_aligned(runs)
    panels, lacks = [], missing_sizes(shown)
    for measure in SPECTRA:
        points: dict[str, list[tuple[float, float, str]]] = {name: [] for name in _CLASSES}
        unreached = 0
        for run in shown:
            floor = {
                row["task"]: row["value"] for row in find_events(run, "floor", measure=measure).iter_rows(named=True)
            }
            lacks += edge_floors(run, measure)
            acquired = find_events(run, "acquisition")
            for row in acquired.iter_rows(named=True):
                if row["task"] in floor and row["step"] > 0:
                    name = f"{row['task']} {row['level']}, {run.label}"
                    points[class_of(row["task"])].append((floor[row["task"]], row["step"], name))
            every = run.shown_events().filter((pl.col("event") == "acquisition") & (pl.col("protocol") == PROTOCOL))
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
        panels.append(panel if lines else leave_empty(title, why))
        if unreached:
            said = f"{unreached} tasks and levels are not drawn: not acquired under {PROTOCOL}, so they have no step"
            lacks += [said] if said not in lacks else []
    caption = (
        "(a) Floor of the last block (billa-v4) against acquisition step (logarithmic), a point a task, level and run. "
        f"Hard: {', '.join(HARD)}, as in version 1. (b) Share of pairs of tasks whose order of floors is that of their "
        "acquisition, with 95% intervals; dotted: one half."
    )
    return PaperFigure(
        "fig-5", "Figure 5. Limits of prediction", caption, (*panels, _concordance(claims)), tuple(lacks)
    )


def hierarchy_table(claims: Sequence[ClaimResult]) -> PaperTable:
    """Table 6 (version 4: 7 and 12): how often each measure leads, is synchronous or lags, by class and size."""
    title, caption = "Table 6. Hierarchy", "Relation of each measure's transition to acquisition; rate: share led."
    claim = find_claim(claims, "hierarchy")
    if claim is None:
        return PaperTable("table-6", title, caption, lacks=("the claim was not asked for",))
    rows = [
        ["–" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row]
        for row in claim.table.rows()
    ]
    frame = text_frame(claim.table.columns, rows)
    lacks = ("cost of each measure by itself: the runs time checkpoints, not measures",)
    if not frame.height:
        lacks = (claim.reason or "no acquisition beside a transition was found",)
    return PaperTable("table-6", title, caption, frame, lacks)
