"""Claims on the page: estimate, interval, null and verdict of each, and how its verdict depends on definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from pythiageo.claims import VERDICTS, ClaimResult
from pythiageo.figures.spec import Axis, Line, Panel, PaperFigure, leave_empty
from pythiageo.report.tables import Table
from pythiageo.report.words import format_cell, format_estimate, format_interval, named

_MARKS = {
    "supported": ("category-2", "circle"),
    "contradicted": ("category-1", "diamond"),
    "not decidable": ("grey", "x"),
}
"""Verdicts, and the colour and symbol of their points."""
_OWN = (
    "name",
    "claim",
    "verdict",
    "rule",
    "estimate",
    "low",
    "high",
    "null",
    "p",
    "n",
    "reason",
    "rests_on",
    "resamples",
    "seed",
)
"""Columns of a specification that are no choices."""
_MANY = 400
"""Specifications drawn of one claim; of more, evenly spaced ones are drawn, and the panel says so."""


def claims_table(claims: Mapping[str, Sequence[ClaimResult]], verdicts: Sequence[str] = VERDICTS) -> Table:
    """Return one row a claim and regime with one of these verdicts; of several regimes, a column says which."""
    rows = []
    for regime, some in claims.items():
        for each in some:
            if each.verdict not in verdicts:
                continue
            numbers = [format_estimate(each.estimate), format_interval(*(each.interval or (None, None)))]
            numbers += [format_estimate(each.null), format_estimate(each.p), str(each.n)]
            of = [regime] if len(claims) > 1 else []
            rows.append([named(each.claim, each.name), *of, each.answer, *numbers, each.reason or ""])
    of = ["Regime"] if len(claims) > 1 else []
    head = ["Claim", *of, "Verdict", "Estimate", "95% interval", "Null", "p", "n", "Why"]
    return {"head": head, "rows": rows, "text": 2 + len(of)}


def claim_rules(claims: Mapping[str, Sequence[ClaimResult]]) -> list[tuple[str, str]]:
    """Return each claim, once, with how its verdict follows from the figures."""
    return list(dict.fromkeys((each.claim, each.rule) for some in claims.values() for each in some if each.rule))


def case_tables(claims: Mapping[str, Sequence[ClaimResult]], limit: int = 200) -> list[dict[str, Any]]:
    """Return the cases of each claim that has some, the first ``limit`` of them."""
    return [
        {
            "title": f"{each.claim}, {regime}" if len(claims) > 1 else each.claim,
            "grid": {
                "head": each.table.columns,
                "rows": [[format_cell(cell) for cell in row] for row in each.table.head(limit).rows()],
                "text": each.table.width,
            },
            "more": max(0, each.table.height - limit),
        }
        for regime, some in claims.items()
        for each in some
        if each.table.height
    ]


def specification_curve(specifications: pl.DataFrame) -> PaperFigure:
    """Return the specification curve of every claim: estimates in their order, and beside them the choices.

    Args:
        specifications: one row a claim and specification: ``name``, ``verdict``, ``estimate``, ``low`` and ``high``
            (null where there is no interval); other columns are choices (protocol, readout, measure ..).

    Raises:
        ValueError: a verdict that is none of ``_MARKS``.
    """
    unknown = set(specifications["verdict"]) - set(_MARKS)
    if unknown:
        raise ValueError(f"verdicts are {', '.join(_MARKS)}; found {sorted(map(str, unknown))}")
    panels: list[Panel] = []
    for rows in specifications.partition_by("name", maintain_order=True):
        panels += _claim_panels(rows)
    # a curve stands beside its choices; claims without one come last
    panels.sort(key=lambda panel: panel.lack is not None)
    return PaperFigure(
        "specifications",
        "Specification curves",
        "Each claim under every definition, in the order of its estimate; beside it, which choices a point stands for. "
        "The title has the share of specifications in which the claim is supported.",
        tuple(panels) or (leave_empty("Specifications", "no claim was made under several definitions"),),
    )


def _claim_panels(rows: pl.DataFrame) -> list[Panel]:
    name, count = str(rows["name"][0]), rows.height
    supported = int((rows["verdict"] == "supported").sum())
    title = f"{name}: supported in {supported} of {count} ({supported / count:.0%})"
    known = rows.filter(pl.col("estimate").is_not_null() & pl.col("estimate").is_finite()).sort("estimate")
    if not known.height:
        return [leave_empty(title, "no specification gave an estimate")]
    lacks = count - known.height
    title += f"; {lacks} without an estimate" if lacks else ""
    if known.height > _MANY:
        title += f"; {_MANY} of {known.height} drawn"
        known = known.gather([round(i * (known.height - 1) / (_MANY - 1)) for i in range(_MANY)])
    known = known.with_row_index("place")
    lines = tuple(_points(known.filter(pl.col("verdict") == verdict), verdict) for verdict in _MARKS)
    x = Axis("linear", "specification, by its estimate", (-1.0, float(known.height)))
    curve = Panel(title, x, Axis("linear", "estimate"), tuple(line for line in lines if line.x))
    return [curve, _choices(known, x, name)]


def _points(rows: pl.DataFrame, verdict: str) -> Line:
    low, high = (rows[name].to_list() if name in rows.columns else None for name in ("low", "high"))
    text = [_words(row) for row in rows.iter_rows(named=True)]
    places, estimates = rows["place"].to_list(), rows["estimate"].to_list()
    colour, symbol = _MARKS[verdict]
    return Line(verdict, places, estimates, colour, mode="markers", low=low, high=high, text=text, symbol=symbol)


def _words(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {format_cell(value)}" for name, value in row.items() if name not in (*_OWN, "place"))


def _choices(rows: pl.DataFrame, x: Axis, claim: str) -> Panel:
    """Return a panel with a row a choice and a mark where a specification made it."""
    names: list[str] = []
    lines: list[Line] = []
    for column in rows.columns:
        values = [] if column in (*_OWN, "place") else rows[column].unique().sort().to_list()
        if len(values) < 2:
            continue  # a choice that was never made differently tells nothing
        for value in values:
            places = rows.filter(pl.col(column).eq_missing(pl.lit(value)))["place"].to_list()
            height = len(names)
            names.append(f"{column} {format_cell(value)}")
            lines.append(Line(names[-1], places, [height] * len(places), "grey", mode="markers", legend="choice made"))
    title = f"{claim}: choices"
    if not names:
        return leave_empty(title, "there is one specification only, so no choice")
    return Panel(title, x, Axis("names", names=tuple(names)), tuple(lines))
