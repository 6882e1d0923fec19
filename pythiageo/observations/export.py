"""Tables for other programs: layers as columns, and files as CSV, Parquet, Markdown, LaTeX or JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import polars as pl

from pythiageo.durable_files import replace_file
from pythiageo.errors import UserError, nearest
from pythiageo.names import FINAL_NORM
from pythiageo.observations.latex import latex_table
from pythiageo.untrusted_text import UNSAFE, escaped, visible

WIDE_KEY = [
    "run",
    "series",
    "regime",
    "size",
    "seed",
    "step",
    "tokens",
    "task",
    "level",
    "site_kind",
    "readout",
]
RESIDUAL = "residual"
"""Site kind of the residual stream: ``blocks.N.hook_resid_post`` and, after the last block,
``ln_final.hook_out``."""

PARAMETERS = "parameters"
"""Site kind of landscape measures that were taken block by block: their readout names the block's parameters, ``N``
standing for its number."""

_BLOCK_PARAMETERS = r"^(parameters=.*)\.\d+\.\*;"
_BLOCK_SITE = r"^blocks\.\d+\.(.+)$"
_KEPT = "nothing that was there before is changed"
_FORMULA_START = r"^[=+\-@\t\r]"
"""A spreadsheet reads a cell that begins so as a formula."""
_TYPESET = ("md", "latex")
"""Formats for people's eyes, in which control characters are spelt out; the others keep every character."""


def wide(observations: pl.DataFrame, measures: Sequence[str] | None = None) -> pl.DataFrame:
    """Return one row a (run, step, task, level, site kind, readout, measure), layers as columns.

    Columns: ``WIDE_KEY``, ``measure``, ``layer_0`` .. of the deepest run, ``final_ln``, ``status``. ``site_kind`` is
    ``residual`` for the output of the blocks and of the final LayerNorm, ``parameters`` for a measure of each block's
    parameters, else the hook's name without its block. A layer that was not observed is null; ``status`` is ``ok``, or
    says how many of the row's observations are not.

    Args:
        observations: the table of one or more runs.
        measures: measures to keep; all that have a layer if ``None``.

    Raises:
        UserError: a measure that the table does not hold, or holds without layers; or no layer at all.
    """
    placed = place_rows(observations).drop_nulls("place")
    known = placed["measure"].unique().sort().to_list()
    for measure in measures or ():
        if measure not in known:
            raise UserError(f"no measure {measure!r} by layer here{nearest(measure, known)}; {_listed(known)}.")
    if not known:
        raise UserError("these observations hold no measure by layer, so there is no per-layer table.")
    placed = placed if measures is None else placed.filter(pl.col("measure").is_in(list(measures)))
    depth = int(placed["layer"].max()) + 1  # type: ignore[arg-type]
    layers = [f"layer_{index}" for index in range(depth)]
    key = [*WIDE_KEY, "measure"]
    cells = [pl.col("value").filter(pl.col("place") == name).first().alias(name) for name in [*layers, "final_ln"]]
    bad = (pl.col("status") != "ok").sum()
    status = pl.when(bad == 0).then(pl.lit("ok")).otherwise(pl.format("{} of {} not ok", bad, pl.len()))
    return (
        placed.group_by(key, maintain_order=True)
        .agg(*cells, status.alias("status"))
        .sort(key, nulls_last=False, maintain_order=True)
    )


def place_rows(observations: pl.DataFrame) -> pl.DataFrame:
    """Return the observations with ``site_kind`` and ``place``, and readouts that name no block's own number.

    ``place``: ``layer_N`` or ``final_ln``; null for what has no layer: scores, and measures of all parameters.
    ``site_kind``: as for ``wide``; null where ``place`` is.
    """
    of_block = (
        pl.col("layer").is_not_null()
        & pl.col("site").is_null()
        & pl.col("readout").str.contains(_BLOCK_PARAMETERS).fill_null(False)
    )
    layered = of_block | (pl.col("layer").is_not_null() & pl.col("site").is_not_null())
    final = (pl.col("site") == FINAL_NORM).fill_null(False)
    residual = final | (pl.col("site").str.extract(_BLOCK_SITE) == "hook_resid_post").fill_null(False)
    kind = (
        pl.when(of_block)
        .then(pl.lit(PARAMETERS))
        .when(residual)
        .then(pl.lit(RESIDUAL))
        .otherwise(pl.coalesce(pl.col("site").str.extract(_BLOCK_SITE), pl.col("site")))
    )
    place = pl.when(final).then(pl.lit("final_ln")).otherwise(pl.format("layer_{}", "layer"))
    readout = pl.when(of_block).then(pl.col("readout").str.replace(_BLOCK_PARAMETERS, "${1}.N.*;")).otherwise("readout")
    return observations.with_columns(
        pl.when(layered).then(kind).alias("site_kind"),
        pl.when(layered).then(place).alias("place"),
        readout.alias("readout"),
    )


def visible_table(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table with every text in it made visible, see ``visible``; itself where all are."""
    texts = [name for name, dtype in table.schema.items() if dtype == pl.String]
    bad = [name for name in texts if table[name].str.contains(UNSAFE).any()]
    spelt = {
        name: {one: visible(one) for one in table[name].drop_nulls().unique().to_list() if visible(one) != one}
        for name in bad
    }
    return table.with_columns(pl.col(name).replace(known) for name, known in spelt.items())


class Typeset(NamedTuple):
    """How a table for people looks: significant digits, and in LaTeX a caption and a label (none: no float)."""

    digits: int = 6
    caption: str = ""
    label: str = ""


def drop_constants(table: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Return a table of several rows without the columns that say the same in each, and what those say."""
    if table.height < 2:
        return table, ""
    same = [name for name in table.columns if table[name].n_unique() == 1 and name not in ("value", "measure")]
    said = [f"{name} {table[name][0]}" for name in same if table[name][0] is not None]
    empty = [name for name in same if table[name][0] is None]
    sentences = [f"the same in every row: {', '.join(said)}"] if said else []
    sentences += [f"empty: {', '.join(empty)}"] if empty else []
    return table.drop(same), "; ".join(sentences)


def write_table(frame: pl.DataFrame, path: Path, format: str, look: Typeset = Typeset()) -> Path:  # noqa: B008
    """Write a table whole and return its path.

    ``csv``, ``json`` and ``parquet`` keep floats at full precision. In ``csv`` a text cell that a
    spreadsheet would read as a formula (it begins with ``=``, ``+``, ``-``, ``@``, tab or return) gets a
    leading apostrophe. ``md`` and ``latex`` show the digits of ``look`` and escape what the language would
    read as markup; ``latex`` is at most ``\\linewidth`` wide (``latex.latex_table``). Control characters are spelt
    out in ``md`` and ``latex``, and escaped in ``json``.

    Raises:
        UserError: an unknown format.
        MachineError: the file could not be written.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}{nearest(format, FORMATS)}; {_listed(list(FORMATS))}.")
    path = Path(path)
    content = FORMATS[format](visible_table(frame) if format in _TYPESET else frame, look)
    replace_file(path, content, _KEPT)
    return path


def _csv(frame: pl.DataFrame, _: Typeset) -> bytes:
    text = pl.col(pl.String)
    guarded = (
        frame.with_columns(
            pl.when(text.str.contains(_FORMULA_START)).then(pl.lit("'") + text).otherwise(text).name.keep()
        )
        if any(dtype == pl.String for dtype in frame.dtypes)
        else frame
    )
    return guarded.write_csv().encode()


def _parquet(frame: pl.DataFrame, _: Typeset) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _json(frame: pl.DataFrame, _: Typeset) -> bytes:
    """Return an array of one object a row; a null is ``null``."""
    text = json.dumps(frame.to_dicts(), ensure_ascii=False, allow_nan=False, indent=1)
    return (escaped(text) + "\n").encode()


def _md(frame: pl.DataFrame, look: Typeset) -> bytes:
    rule = ["---:" if dtype.is_numeric() else "---" for dtype in frame.dtypes]
    rows = [
        list(map(_md_text, frame.columns)),
        rule,
        *([_md_cell(v, look.digits) for v in row] for row in frame.rows()),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows).encode()


def _md_cell(value: object, digits: int) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else _md_text(str(value))


def _latex(frame: pl.DataFrame, look: Typeset) -> bytes:
    return latex_table(frame, look.caption, look.label, look.digits, [head_of(name) for name in frame.columns]).encode()


def head_of(column: str) -> str:
    """Return what a table for people calls a column.

    >>> head_of("layer_3"), head_of("site_kind"), head_of("final_ln")
    ('block 3', 'site kind', 'final LN')
    """
    if column == "final_ln":
        return "final LN"
    return re.sub(r"^layer_(\d+)$", r"block \1", column).replace("_", " ")


_MD_SPECIAL = re.compile(r"([\\`*_\[\]|~#$])")


def _md_text(text: str) -> str:
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MD_SPECIAL.sub(r"\\\1", flat)


def _listed(names: Sequence[str]) -> str:
    return f"there are {', '.join(names)}" if names else "there is none"


FORMATS: dict[str, Callable[[pl.DataFrame, Typeset], bytes]] = {
    "csv": _csv,
    "parquet": _parquet,
    "md": _md,
    "latex": _latex,
    "json": _json,
}
"""The formats of ``write_table`` by name."""
