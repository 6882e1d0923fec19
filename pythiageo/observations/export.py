"""Tables for other programs: layers as columns, and files as CSV, Parquet, Markdown, LaTeX or JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import polars as pl

from pythiageo.durable_files import replace_file
from pythiageo.errors import UserError, nearest
from pythiageo.names import FINAL_NORM
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


def write_table(frame: pl.DataFrame, path: Path, format: str) -> Path:
    """Write a table whole and return its path.

    ``csv``, ``json`` and ``parquet`` keep floats at full precision. In ``csv`` a text cell that a
    spreadsheet would read as a formula (it begins with ``=``, ``+``, ``-``, ``@``, tab or return) gets a
    leading apostrophe. ``md`` and ``latex`` show six significant digits and escape what the language would
    read as markup. Control characters are spelt out in ``md`` and ``latex``, and escaped in
    ``json``.

    Raises:
        UserError: an unknown format.
        MachineError: the file could not be written.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}{nearest(format, FORMATS)}; {_listed(list(FORMATS))}.")
    path = Path(path)
    replace_file(path, FORMATS[format](visible_table(frame) if format in _TYPESET else frame), _KEPT)
    return path


def _csv(frame: pl.DataFrame) -> bytes:
    text = pl.col(pl.String)
    guarded = (
        frame.with_columns(
            pl.when(text.str.contains(_FORMULA_START)).then(pl.lit("'") + text).otherwise(text).name.keep()
        )
        if any(dtype == pl.String for dtype in frame.dtypes)
        else frame
    )
    return guarded.write_csv().encode()


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _json(frame: pl.DataFrame) -> bytes:
    """Return an array of one object a row; a null is ``null``."""
    text = json.dumps(frame.to_dicts(), ensure_ascii=False, allow_nan=False, indent=1)
    return (escaped(text) + "\n").encode()


def _md(frame: pl.DataFrame) -> bytes:
    rule = ["---:" if dtype.is_numeric() else "---" for dtype in frame.dtypes]
    rows = [
        list(map(_md_text, frame.columns)),
        rule,
        *([_cell(v, _md_text) for v in row] for row in frame.rows()),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows).encode()


def _latex(frame: pl.DataFrame) -> bytes:
    columns = "".join("r" if dtype.is_numeric() else "l" for dtype in frame.dtypes)
    head = " & ".join(map(latex_text, frame.columns))
    body = [" & ".join(_cell(value, latex_text) for value in row) for row in frame.rows()]
    lines = [f"\\begin{{tabular}}{{{columns}}}", "\\hline", f"{head} \\\\", "\\hline"]
    return "\n".join([*lines, *(f"{row} \\\\" for row in body), "\\hline", "\\end{tabular}", ""]).encode()


def _cell(value: object, escape: Callable[[str], str]) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else escape(str(value))


_MD_SPECIAL = re.compile(r"([\\`*_\[\]|~#$])")


def _md_text(text: str) -> str:
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MD_SPECIAL.sub(r"\\\1", flat)


_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",
    "]": "{]}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def latex_text(text: str) -> str:
    """Return text that LaTeX shows as it is."""
    return "".join(_LATEX_SPECIAL.get(character, character) for character in " ".join(text.split()))


def _listed(names: Sequence[str]) -> str:
    return f"there are {', '.join(names)}" if names else "there is none"


FORMATS: dict[str, Callable[[pl.DataFrame], bytes]] = {
    "csv": _csv,
    "parquet": _parquet,
    "md": _md,
    "latex": _latex,
    "json": _json,
}
"""The formats of ``write_table`` by name."""
