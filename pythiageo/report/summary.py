"""What a run shows at first sight: verdicts in words, and one small chart of collapse and acquisition."""

from __future__ import annotations

from typing import Any

import polars as pl

from pythiageo.claims.result import NOT_DECIDABLE, describe_verdict
from pythiageo.events import get_protocol
from pythiageo.events.run import Run
from pythiageo.events.trajectory import at_site
from pythiageo.figures.spec import Axis, Line, Panel, PaperFigure, leave_empty
from pythiageo.report.findings import describe_rank, describe_site
from pythiageo.report.words import format_estimate, format_interval

PROTOCOL = "billa-v4"


def decided_claims(answers: pl.DataFrame) -> tuple[list[dict[str, str]], int]:
    """Return the claims that a run decides, in words, and how many it leaves undecided.

    Args:
        answers: the run's rows of ``compare.claims.claims_by_run``.
    """
    decided = []
    for row in answers.filter(pl.col("verdict") != NOT_DECIDABLE).iter_rows(named=True):
        numbers = [] if row["estimate"] is None else [format_estimate(row["estimate"])]
        numbers += [] if row["low"] is None else [f"95% interval {format_interval(row['low'], row['high'])}"]
        numbers += [] if row["null"] is None else [f"null {format_estimate(row['null'])}"]
        answer = describe_verdict(row["verdict"], row["rests_on"])
        known = {name: row[name] for name in ("verdict", "claim", "name")}
        decided.append({**known, "answer": answer, "numbers": ", ".join(numbers)})
    return decided, answers.height - len(decided)


def summary_figure(run: Run, number: int) -> PaperFigure:
    """Return the small chart of a run: what is left of its ranks' first values, and the share of what is acquired.

    The rank is that of ``run.place``: the median of the tasks, and from the lowest to the highest of them, at
    checkpoints at which every task that has a first value has one. Acquired is what is found under billa-v4, of the
    tasks and levels of which it can be asked. A run of one checkpoint has nothing to draw, and says so.
    """
    alone = run.distinct["step"].n_unique() == 1
    left, acquired = ([], []) if alone else (_left(run), _acquired(run))
    lines = (*left, *acquired)
    axis = Axis("step", "training step")
    titles = [f"rank {describe_site(run)}"] * bool(left) + ["acquisition"] * bool(acquired)
    title = " and ".join(titles) or "rank and acquisition"
    title = title[0].upper() + title[1:]
    panel = Panel(title, axis, Axis("linear", "share", _range(lines)), lines)
    if not lines:
        lack = "no rank has a value at the first checkpoint, and no acquisition can be asked"
        panel = leave_empty(title, "one checkpoint alone: nothing can have moved" if alone else lack)
    return PaperFigure(f"finding-{number}", title, "", (panel,))


def _left(run: Run) -> list[Line]:
    place = run.place
    rows = run.distinct.filter((pl.col("measure") == place.measure) & (pl.col("readout") == place.readout))
    rows = rows.filter(pl.col("site").is_not_null())
    if not rows.height:
        return []
    rows = at_site(rows, place.site).drop_nulls(["task", "value"])
    first = rows.filter((pl.col("step") == run.distinct["step"].min()) & (pl.col("value") > 0))
    shares = rows.join(first.select("task", "level", pl.col("value").alias("first")), on=["task", "level"])
    shares = shares.with_columns(pl.col("value") / pl.col("first"))
    whole = (
        shares.group_by("step")
        .agg(
            pl.col("value").median().alias("middle"),
            pl.col("value").min().alias("low"),
            pl.col("value").max().alias("high"),
            pl.len().alias("count"),
        )
        .filter(pl.col("count") == first.height)
        .sort("step")
    )
    if not whole.height:
        return []
    of = f"median, range of {first.height} tasks" if first.height > 1 else str(first["task"][0])
    name = f"{describe_rank(run)}, share of its first value: {of}"
    columns: dict[str, Any] = whole.to_dict(as_series=False)
    ends = {"low": columns["low"], "high": columns["high"], "band": True} if first.height > 1 else {}
    return [Line(name, columns["step"], columns["middle"], "category-0", mode="lines", **ends)]


def _acquired(run: Run) -> list[Line]:
    events = run.shown_events().filter((pl.col("event") == "acquisition") & (pl.col("protocol") == PROTOCOL))
    asked = events.filter(pl.col("status") != "undefined")
    if not asked.height:
        return []
    found = asked.filter(pl.col("status").is_in(get_protocol(PROTOCOL).counted))["step"].drop_nulls().to_list()
    steps = run.distinct["step"].unique().sort().to_list()
    reached = [sum(each <= step for each in found) / asked.height for step in steps]
    name = f"tasks and levels acquired, share of {asked.height}"
    return [Line(name, steps, reached, "category-1", mode="lines", dash="dash")]


def _range(lines: tuple[Line, ...]) -> tuple[float, float]:
    highest = max((each for line in lines for each in (line.high or line.y) if each is not None), default=1.0)
    return -0.03, 1.05 * max(1.0, highest)
