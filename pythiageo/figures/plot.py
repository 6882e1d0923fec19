"""One plot of one or more runs: what lies along x, what a line is and what a panel is, by one grammar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from pythiageo.errors import UserError, nearest
from pythiageo.events.questions import other_questions
from pythiageo.events.run import Run
from pythiageo.figures.captions import describe
from pythiageo.figures.selection import BY, Asked, select_rows
from pythiageo.figures.spec import RELATIVE_DEPTH, Axis, ColourBar, Line, Panel, Plot
from pythiageo.observations.layers import FINAL_PLACE
from pythiageo.observations.measures import axis_title, find_declared
from pythiageo.observations.ranges import range_of

PARTS = ("measure", "task", "level", "run", "readout", "site", "layer", "step")
"""What tells rows of a plot apart, in the order in which panels are named."""
HUES = {
    "step": ("layer", "level", "run", "task"),
    "layer": ("step", "run", "task", "level"),
    "task": ("run", "step", "layer", "level"),
    "run": ("task", "step", "layer", "level"),
}
"""By x: what is a line; the first of these of which there are several."""
_COLUMN = {"site": "site_kind", "layer": "place"}
_PANELS, _LINES, _NAMED = 24, 14, 8
_CATEGORIES = 7
_AFTER = 1.12
"""Where the final LayerNorm stands on an axis of relative depth."""
_SHARE = (-0.03, 1.03)


def plot_runs(runs: Sequence[Run], asked: Asked, hue: str | None = None) -> Plot:
    """Return the plot of what is asked for.

    Along x lies ``asked.by``; a line is ``hue`` (by default the first in ``HUES`` of which there are several); every
    combination of what else there are several of is a panel. Panels of one measure share their axes.

    Raises:
        UserError: nothing of that name, an ambiguity that no default resolves, or more lines or panels than can be told
            apart.
    """
    for option, word, known in (("by", asked.by, BY), ("hue", hue, PARTS)):
        if word is not None and word not in known:
            raise UserError(f"--{option}: no {word!r}{nearest(word, known)}; there are {', '.join(known)}")
    chosen = select_rows(runs, asked)
    rows = chosen.rows
    parts = {name: _values(rows, name) for name in PARTS}
    several = [name for name in PARTS if _is_several(rows, name) and name != asked.by]
    if hue is None:
        hue = next((name for name in HUES[asked.by] if name in several), None)
    elif hue == asked.by:
        raise UserError(f"--hue {hue}: it lies along x; choose another, or another --by")
    panels = [name for name in several if name != hue]
    hue = hue if hue in several else None
    colours = _colours(hue, parts[hue], rows) if hue else {None: "category-0"}
    columns = [_COLUMN.get(name, name) for name in panels]
    groups = rows.partition_by(columns, maintain_order=True) if panels else [rows]
    _check_size(panels, parts, len(groups), hue, colours)
    groups.sort(key=lambda group: [parts[name].index(_first(group, name)) for name in panels])
    grammar = _Grammar(asked, hue, parts, colours, rows)
    drawn = [grammar.panel(" · ".join(_name(part, _first(group, part)) for part in panels), group) for group in groups]
    bar = None
    if hue == "layer" and rows["depth"].n_unique() > 1:
        bar = RELATIVE_DEPTH
    elif hue and hue in ("layer", "step") and sum(value != FINAL_PLACE for value in parts[hue]) > _NAMED:
        bar = _bar(hue, parts[hue])
    questions = other_questions(
        pl.concat([run.distinct.filter(pl.col("task").is_in(rows["task"].unique().implode())) for run in runs])
    )
    said = (*chosen.said, *([questions] if questions else []))
    return Plot(tuple(drawn), describe(rows, asked, hue, parts), said, rows, bar)


def _values(rows: pl.DataFrame, part: str) -> list[Any]:
    """Return the values of a part in the order in which they are drawn."""
    column = _COLUMN.get(part, part)
    if part == "layer":
        found = rows.select("place", "layer").unique().sort(pl.col("place") == FINAL_PLACE, "layer", nulls_last=False)
        return found["place"].unique(maintain_order=True).to_list()
    if part in ("run", "measure"):
        return rows[column].unique(maintain_order=True).to_list()
    return rows[column].unique().sort().to_list()


def _is_several(rows: pl.DataFrame, part: str) -> bool:
    """Return whether rows differ in a part; in layer and step only if one run's do: each has a last of its own."""
    values = pl.col(_COLUMN.get(part, part)).n_unique().alias("n")
    if part in ("layer", "step"):
        return bool((rows.group_by("measure", "run").agg(values)["n"] > 1).any())
    return bool(rows.select(values).item() > 1)


def _deepest(rows: pl.DataFrame) -> int:
    return max(rows["depth"].drop_nulls(), default=1)


def _first(group: pl.DataFrame, part: str) -> Any:
    return group[_COLUMN.get(part, part)][0]


def _name(part: str, value: Any) -> str:
    if value is None:
        return f"no {part}"
    if part == "layer":
        return "final LayerNorm" if value == FINAL_PLACE else "block " + str(value).removeprefix("layer_")
    if part == "measure":
        known = find_declared(value)
        return known.title if known else str(value)
    return f"step {value:,}" if part == "step" else str(value)


def _colours(hue: str, values: Sequence[Any], rows: pl.DataFrame) -> dict[Any, str]:
    """Return a colour a value: light to dark for layers and steps, which have an order; else one each."""
    if hue == "layer":
        deepest = max(_deepest(rows) - 1, 1)
        layers = {value: int(str(value).removeprefix("layer_")) for value in values if value not in (FINAL_PLACE, None)}
        return {value: f"depth-{layers[value] / deepest:.3f}" if value in layers else "final" for value in values}
    if hue == "step":
        return {value: f"depth-{number / max(len(values) - 1, 1):.3f}" for number, value in enumerate(values)}
    return {value: f"category-{number}" for number, value in enumerate(values)}


def _check_size(
    panels: Sequence[str], parts: dict[str, list[Any]], count: int, hue: str | None, colours: dict[Any, str]
) -> None:
    if count > _PANELS:
        what = " x ".join(f"{len(parts[name])} {name}s" for name in panels)
        raise UserError(f"that would be {count} panels ({what}), and {_PANELS} are the most: choose some of them")
    lines = sum(colour.startswith("category") for colour in colours.values())
    if lines > _LINES:
        raise UserError(f"that would be {lines} {hue}s in one panel, and {_LINES} are told apart: choose some of them")


def _bar(hue: str, values: Sequence[Any]) -> ColourBar:
    names = [_name(hue, value).removeprefix("block ").removeprefix("step ") for value in values if value != FINAL_PLACE]
    return ColourBar("block" if hue == "layer" else "training step", tuple(names))


@dataclass(frozen=True)
class _Grammar:
    """What all panels of a plot have in common."""

    asked: Asked
    hue: str | None
    parts: dict[str, list[Any]]
    colours: dict[Any, str]
    rows: pl.DataFrame

    def panel(self, title: str, group: pl.DataFrame) -> Panel:
        measure = group["measure"][0]
        lines: list[Line] = []
        hues = (
            [value for value in self.parts[self.hue] if value in set(group[_COLUMN.get(self.hue, self.hue)])]
            if self.hue
            else [None]
        )
        for value in hues:
            own = (
                group
                if self.hue is None
                else group.filter(pl.col(_COLUMN.get(self.hue, self.hue)).eq_missing(pl.lit(value)))
            )
            lines += self._draw(value, own)
        y = Axis("linear", axis_title(measure), self._range(measure))
        return Panel(title, self._axis(), y, tuple(lines))

    def _axis(self) -> Axis:
        by = self.asked.by
        if by == "step":
            return Axis("step", "training step")
        if by in ("task", "run"):
            return Axis("names", names=tuple(_name(by, value) for value in self.parts[by]))
        final, depth = FINAL_PLACE in self.parts["layer"], _deepest(self.rows)
        name, end, last = "block", float(depth), depth - 0.6
        places: list[float] = list(range(0, depth, math.ceil(depth / 7)))
        if self._relative:
            name, end, last = "relative depth of the block", _AFTER, 1.06
            places = [0, 0.25, 0.5, 0.75, 1]
        ticks = [(place, f"{place:g}") for place in places]
        if not final:
            return Axis("linear", name, (places[0] - (end - last), last), ticks=tuple(ticks))
        return Axis("linear", f"{name} (LN: final LayerNorm)", (last - end, end + 0.4), ticks=(*ticks, (end, "LN")))

    @property
    def _relative(self) -> bool:
        return self.rows["depth"].n_unique() > 1

    def _draw(self, value: Any, own: pl.DataFrame) -> list[Line]:
        by, name = self.asked.by, "" if self.hue is None else _name(self.hue, value)
        if self.hue is None:
            name = _name("run", own["run"][0])
        number = list(self.colours).index(value)
        dash = (
            "dash"
            if value == FINAL_PLACE or (self.colours[value].startswith("category") and number >= _CATEGORIES)
            else "solid"
        )
        if by == "step":
            return [self._line(name, own, value, own["step"].to_list(), dash)]
        if by == "layer":
            lines, final = [], own.filter(pl.col("place") == FINAL_PLACE)
            blocks = own.filter(pl.col("place") != FINAL_PLACE).sort("layer")
            last = (blocks["depth"] - 1).clip(1).to_list() if self._relative else [1] * blocks.height
            if blocks.height:
                x = [layer / end for layer, end in zip(blocks["layer"], last, strict=True)]
                lines.append(self._line(name, blocks, value, x, dash))
            if final.height:
                x = [_AFTER if self._relative else int(final["depth"][0])]
                lines.append(self._line(name, final, value, x, dash, "markers", "diamond"))
            return lines
        apart = (number - (len(self.colours) - 1) / 2) * 0.7 / max(len(self.colours), 2)
        places = [self.parts[by].index(each) + apart for each in own[by]]
        return [self._line(name, own, value, places, dash, "markers", "circle" if number < _CATEGORIES else "square")]

    def _line(
        self, name: str, rows: pl.DataFrame, value: Any, x: Sequence[float], dash: str,
        mode: str | None = None, symbol: str = "circle",
    ) -> Line:  # fmt: skip
        order = sorted(range(len(x)), key=lambda index: x[index])
        rows = rows[order]
        low, high = (rows[end].to_list() if rows[end].count() else None for end in ("low", "high"))
        return Line(
            name, [x[index] for index in order], rows["value"].to_list(), self.colours[value], dash, mode,
            low=low, high=high, symbol=symbol, band=self.asked.pooled and mode is None, legend=None if self.hue else "",
        )  # fmt: skip

    def _range(self, measure: str) -> tuple[float, float] | None:
        own = self.rows.filter(pl.col("measure") == measure)
        known = range_of(measure)
        if known == (0.0, 1.0):
            return _SHARE
        low = min([*own["value"], *own["low"].drop_nulls()])
        high = max([*own["value"], *own["high"].drop_nulls()])
        if low >= 0 and (known is None or known[0] >= 0):
            return 0.0, high * 1.06 or 1.0
        room = (high - low) * 0.06 or abs(high) * 0.06 or 1.0
        return low - room, high + room
