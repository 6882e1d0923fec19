"""The table of a run as people look at it: what tells its rows apart first, what they share in a line above."""

from __future__ import annotations

from html import escape
from typing import Any

import polars as pl

from pythiageo.untrusted_text import visible

FIRST = ("step", "task", "level", "layer", "site", "readout", "measure", "value", "stderr", "status")
"""The columns that are shown, in this order."""
_ALWAYS = ("step", "measure", "value", "status")
"""Shown though every row says the same."""
_SHARED = ("run", "series", "regime", "size", "seed", *FIRST)
_LOOK: dict[str, Any] = {
    "tbl_cols": -1,
    "tbl_rows": 10,
    "tbl_hide_dataframe_shape": True,
    "tbl_hide_column_data_types": True,
}


class ObservationTable(pl.DataFrame):
    """A polars DataFrame of observations. It differs from any other in how it shows itself, and in nothing else.

    What polars makes of it (``filter``, ``select``) is a plain DataFrame with every column in its place.
    """

    def __str__(self) -> str:
        with pl.Config(**_LOOK):
            return visible(f"{self._head()}\n{self._shown()}")

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self, *, _from_series: bool = False) -> str:
        with pl.Config(**_LOOK):
            table = self._shown()._repr_html_()
        return visible(f"<div><p>{escape(self._head())}</p>{table}</div>".replace("\n", " "))

    def _head(self) -> str:
        """Return how many rows and columns there are, and what every row says."""
        shared = [
            f"{name} {self[name][0]}"
            for name in _SHARED
            if name in self.columns and name not in _ALWAYS and self.height and self[name].n_unique() == 1
            if self[name][0] is not None
        ]
        counted = f"{self.height:,} observations, {self.width} columns"
        return counted + (f"; in every row: {', '.join(shared)}" if shared else "")

    def _shown(self) -> pl.DataFrame:
        names = [name for name in FIRST if name in self.columns]
        kept = [name for name in names if name in _ALWAYS or (self.height and self[name].n_unique() > 1)]
        return pl.DataFrame(self.select(kept or self.columns))
