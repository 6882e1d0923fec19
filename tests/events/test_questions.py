"""Runs that were asked other questions under one name are not taken together, and whoever joins them says so."""

from __future__ import annotations

from pathlib import Path

import planted
import polars as pl
import pytest

from pythiageo.claims import Evidence, ask_each
from pythiageo.cli.app import run as cli
from pythiageo.compare import compare
from pythiageo.compare.readout import choose_readout
from pythiageo.errors import UserError
from pythiageo.events.questions import other_questions
from pythiageo.events.run import open_runs
from pythiageo.figures import paper_figures, paper_tables

STEPS = range(0, 1001, 100)
SAID = "the probe sets differ: MOD L1's is a1b2c3d4e5f6 in a and 0f0f0f0f0f0f in b, and so in 1 more (MOD mixed)"


def rows(name: str, probe_set: str | None = "a1b2c3d4e5f6", regime: str = "task-aligned", seed: int = 1) -> list:
    return planted.rows(steps=STEPS, levels=("L1",), run=name, series=name, regime=regime, seed=seed,
                        probe_set=probe_set)  # fmt: skip


def table(name: str, probe_set: str | None = "a1b2c3d4e5f6", **shared: str) -> pl.DataFrame:
    return planted.table(rows(name, probe_set, **shared))


def test_the_same_questions_are_no_matter() -> None:
    assert other_questions(pl.concat([table("a"), table("b")])) is None
    alone = pl.concat([table("a"), table("b", "0f0f0f0f0f0f").with_columns(pl.lit("ADD").alias("task"))])
    assert other_questions(alone) is None
    Evidence(alone)


def test_other_questions_are_named() -> None:
    both = pl.concat([table("a"), table("b", "0f0f0f0f0f0f")])
    assert other_questions(both) == SAID
    with pytest.raises(UserError, match=r"ask these runs one by one, or measure them on the same probe sets\."):
        Evidence(both)
    found = ask_each(both)
    assert {each.verdict for each in found} == {"not decidable"}
    assert all(SAID in str(each.reason) for each in found)
    unnamed = other_questions(pl.concat([table("a", None), table("b", None)]))
    assert unnamed is not None
    assert "is unnamed in a and unnamed in b" in unnamed


def test_a_comparison_says_so_of_runs_that_it_does_not_align() -> None:
    """Two seeds of one regime stand side by side, though pairs are made across regimes alone."""
    tables = [table("a"), table("b", "0f0f0f0f0f0f"), table("c", regime="naturalistic")]
    found = compare([planted.opened(each) for each in tables], ["billa-v4"])
    assert f"{SAID}: events that stand side by side are of other questions there." in found.warnings
    tables[1] = table("b")
    assert not compare([planted.opened(each) for each in tables], ["billa-v4"]).warnings[1:]


def test_a_readout_is_not_chosen_on_them() -> None:
    with pytest.raises(UserError, match="the probe sets differ: MOD mixed's"):
        choose_readout([planted.opened(each) for each in (table("a"), table("b", "0f0f0f0f0f0f"))])


def test_commands_refuse_or_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [planted.write_run(tmp_path / name, rows(name, probe_set, seed=seed))
            for seed, (name, probe_set) in enumerate({"a": "a1b2c3d4e5f6", "b": "0f0f0f0f0f0f"}.items())]  # fmt: skip
    assert cli(["claims", *map(str, runs), "--only", "emergence"]) == 2
    assert SAID in capsys.readouterr().err
    loaded = open_runs(runs)
    assert all(SAID in shown.lacks for shown in (*paper_figures(loaded), *paper_tables(loaded)))
