"""How a table of observations shows itself, and that it is a polars DataFrame otherwise."""

from __future__ import annotations

import pickle

import planted
import polars as pl
from planted import observation

from pythiageo.observations.shown import ObservationTable

EVIL = '<script>alert(1)</script>"\x1b[2J'


def test_what_tells_rows_apart_stands_first_and_the_rest_above() -> None:
    plain = planted.table(planted.rows(steps=[0, 100]))
    table = ObservationTable(plain)
    head, *lines = str(table).splitlines()
    assert head == (
        f"{plain.height} observations, 20 columns; in every row: run nano-42, series nano-42, regime task-aligned, "
        "size nano, seed 42, task MOD"
    )
    names = lines[1].replace("│", " ").replace("┆", " ").split()
    assert names == ["step", "level", "layer", "site", "readout", "measure", "value", "status"]
    assert repr(table) == str(table)
    assert all(name in table._repr_html_() for name in names)


def test_it_is_the_table_that_it_was() -> None:
    plain = planted.table(planted.rows())
    table = ObservationTable(plain)
    assert isinstance(table, pl.DataFrame)
    assert table.equals(plain)
    assert plain.equals(table)
    assert table.schema == plain.schema
    assert type(table.filter(measure="rankme")) is pl.DataFrame
    assert pl.concat([table, plain]).height == 2 * plain.height
    assert pickle.loads(pickle.dumps(table)).equals(plain)
    for part in (table.clear(), table.head(1), ObservationTable(table.select("series"))):
        assert str(part)
        assert part._repr_html_()


def test_texts_of_strangers_are_shown_and_not_obeyed() -> None:
    rows = [observation(run=EVIL, task=EVIL, step=step) for step in (0, 1)] + [observation(run=EVIL, step=2)]
    table = ObservationTable(planted.table(rows))
    assert "\x1b" not in str(table)
    page = table._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
