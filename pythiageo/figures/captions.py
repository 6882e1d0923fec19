"""The caption of a plot, as text: what the picture itself does not say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from pythiageo.errors import count_noun
from pythiageo.figures.selection import Asked
from pythiageo.observations.export import RESIDUAL
from pythiageo.observations.layers import FINAL_PLACE
from pythiageo.observations.measures import find_declared

_HUES = {
    "layer": "A line a block, light to dark with depth",
    "step": "A line a checkpoint, light to dark with training",
    "run": "A colour a run",
    "task": "A colour a task",
    "level": "A colour a level",
}
_PLURAL = 6


def describe(rows: pl.DataFrame, asked: Asked, hue: str | None, parts: dict[str, list[Any]]) -> str:
    """Return the caption of the plot of these rows."""
    sentences = [_define(measure) for measure in parts["measure"]]
    sentences.append(_where(parts, bool((rows["layer"] == rows["depth"] - 1).all())))
    if hue is not None:
        drawn = _HUES.get(hue, f"A colour a {hue}")
        if hue == "layer" and FINAL_PLACE in parts["layer"]:
            drawn += "; dashed: after the final LayerNorm"
        sentences.append(drawn)
    if asked.by == "step":
        steps = parts["step"]
        apart = "; step 0 stands apart, joined by dots" if 0 in steps and len(steps) > 1 else ""
        sentences.append(
            f"Step axis logarithmic{apart}; a tick under it for each of {count_noun(len(steps), 'checkpoint')}"
        )
    if asked.by == "layer" and rows["depth"].n_unique() > 1:
        sentences.append("Relative depth: 0 is a run's first block and 1 its last")
    if asked.pooled:
        sentences.append("Line: mean of the seeds; band: from the lowest to the highest of them")
    elif rows["low"].count():
        sentences.append("Bars: one standard error to either side")
    return " ".join(f"{sentence.rstrip('.')}." for sentence in sentences if sentence)


def _define(measure: str) -> str:
    known = find_declared(measure)
    return known.definition if known else measure


def _where(parts: dict[str, list[Any]], last: bool) -> str:
    """Return runs, tasks, readout and site in words."""
    said = [_named("run", parts["run"]), _named("task", parts["task"])]
    if levels := [level for level in parts["level"] if level not in (None, "mixed")]:
        said.append(_named("level", levels))
    readouts = [each for each in parts["readout"] if each is not None]
    said += [_named("readout", readouts)] if readouts else []
    sites = [each for each in parts["site"] if each is not None]
    blocks = [place for place in parts["layer"] if place not in (FINAL_PLACE, None)]
    if sites == [RESIDUAL]:
        where = []
        if blocks:
            one = (
                "the last block" if last else "each block" if len(blocks) > 1 else blocks[0].replace("layer_", "block ")
            )
            where.append(f"after {one}")
        if FINAL_PLACE in parts["layer"]:
            where.append("after the final LayerNorm")
        said.append("residual stream " + " and ".join(where))
    elif sites:
        said.append(_named("site", sites))
    if len(parts["step"]) == 1:
        said.append(f"step {parts['step'][0]:,}")
    text = ", ".join(each for each in said if each)
    return text[:1].upper() + text[1:]


def _named(word: str, values: Sequence[Any]) -> str:
    names = [str(value) for value in values if value is not None]
    if not names:
        return ""
    if len(names) > _PLURAL:
        return f"{len(names)} {word}s"
    return f"{word}{'s' if len(names) > 1 else ''} {', '.join(names)}"
