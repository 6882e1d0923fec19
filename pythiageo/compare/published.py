"""Published figures (arXiv 2602.15997) beside the events of a run."""

from __future__ import annotations

import math

import polars as pl

from pythiageo.errors import UserError, nearest
from pythiageo.study.published import published, published_sizes

_KEY = ["run", "regime", "seed", "protocol", "event", "task", "level", "measure", "readout"]


def beside_published(events: pl.DataFrame, size: str) -> pl.DataFrame:
    """Return the acquisition steps and floors of ``size`` beside the published ones.

    One row an event for which a figure is published under the same protocol: run, regime, seed, protocol,
    event, task, level, measure, readout, ``ours``, ``our_status``, ``published``, ``published_status``
    (``found`` or ``not-reached``), ``ratio`` (ours over published; null unless both were found),
    ``source``. ``ours`` is a step for ``acquisition`` and the measure's value for ``floor``. The paper
    does not say which readout its floors rest on, so the row names ours.

    Raises:
        UserError: nothing is published for this size.
    """
    if size not in published_sizes():
        raise UserError(
            f"no published figures for size {size!r}{nearest(size, published_sizes())}; "
            f"there are some for {', '.join(published_sizes())}."
        )
    figure = pl.when(pl.col("event") == "floor").then(pl.col("value")).otherwise(pl.col("step"))
    ours = events.filter(pl.col("size") == size).with_columns(
        figure.cast(pl.Float64).alias("ours"), pl.col("status").alias("our_status")
    )
    both = ours.join(_figures(size), on=["protocol", "event", "task", "level"], how="inner", maintain_order="left")
    ratio = (pl.col("ours") / pl.col("published")).alias("ratio")
    return both.with_columns(ratio).select(
        *_KEY, "ours", "our_status", "published", "published_status", "ratio", "source"
    )


def _figures(size: str) -> pl.DataFrame:
    """Return the published figures of one size in long form; one that was not read off is left out."""
    rows = []
    for event in ("acquisition", "floor"):
        for protocol, table in published()[event].items():
            sizes = table["sizes"]
            if size not in sizes:
                continue
            for task, levels in ((name, entry) for name, entry in table.items() if isinstance(entry, dict)):
                for level, by_size in levels.items():
                    figure = float(by_size[sizes.index(size)])
                    if math.isnan(figure):
                        continue
                    found = event != "acquisition" or figure > 0
                    status = "found" if found else "not-reached"
                    rows.append((protocol, event, task, level, figure if found else None, status, table["source"]))
    schema = ["protocol", "event", "task", "level", "published", "published_status", "source"]
    return pl.DataFrame(
        rows, schema={name: pl.Float64 if name == "published" else pl.String for name in schema}, orient="row"
    )
