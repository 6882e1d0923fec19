"""Layers by a short text: ``0,3-5,last,final-ln``."""

from __future__ import annotations

import re

import polars as pl

from pythiageo.errors import UserError
from pythiageo.names import FINAL_LN

FINAL_PLACE = "final_ln"
"""The ``place`` of the final LayerNorm (``export.place_rows``)."""
_LAYERS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


def keep_layers(placed: pl.DataFrame, text: str) -> pl.DataFrame:
    """Return the rows of the layers that a text names: blocks, ranges of them, ``last``, ``final-ln``, ``all``.

    Args:
        placed: rows with ``layer`` and ``place`` (``export.place_rows``); ``last`` is the deepest of each run.
        text: names by commas.

    Raises:
        UserError: a word that is no layer, or no row of these layers.
    """
    final, depth = pl.col("place") == FINAL_PLACE, pl.col("layer").max().over("run")
    kept = [pl.lit(False)]
    for word in (each.strip() for each in text.split(",")):
        if word == "all":
            kept.append(pl.lit(True))
        elif word == "last":
            kept.append((pl.col("layer") == depth) & ~final)
        elif word == FINAL_LN:
            kept.append(final)
        elif match := _LAYERS.fullmatch(word):
            kept.append(pl.col("layer").is_between(int(match[1]), int(match[2] or match[1])) & ~final)
        else:
            raise UserError(f"--layers: {word!r} is no layer; expected all, or e.g. 0,3-5,last,{FINAL_LN}")
    chosen = placed.filter(pl.any_horizontal(kept).fill_null(False))
    if not chosen.height:
        deepest = placed["layer"].max()
        there = "there is none" if deepest is None else f"the blocks are 0 to {deepest!r}"
        raise UserError(f"--layers: no layer {text} here; {there}")
    return chosen
