"""Whichever rank a run has: what is taken where nobody says, and that it is named."""

from __future__ import annotations

import json
from pathlib import Path

import planted
import polars as pl
import pytest

from pythiageo.cli.app import run as run_command
from pythiageo.errors import UserError
from pythiageo.events import Place, choose_place, open_run


def ranks(*measures: str, site: str | None = None) -> pl.DataFrame:
    """A planted run that has these ranks alone, at every site or at one."""
    table = planted.table(planted.rows(steps=[0, 100, 200, 300, 400]))
    kept = pl.col("site").is_null() | pl.col("measure").is_in(measures)
    return table.filter(kept & (pl.col("site").is_null() | (pl.col("site") == site if site else pl.lit(True))))


def test_the_studys_rank_comes_first_and_what_nobody_has_is_not_taken() -> None:
    assert choose_place([ranks("rankme", "covariance_effective_rank")]) == Place()
    assert choose_place([ranks("participation_ratio", "rankme")]).measure == "rankme"
    assert choose_place([ranks("participation_ratio")]).measure == "participation_ratio"
    # of several runs: the rank that as few as possible lack
    both, one = ranks("rankme", "covariance_effective_rank"), ranks("rankme")
    assert choose_place([both, one]).measure == "rankme"
    assert choose_place([both, both, one], measure="covariance_effective_rank").measure == "covariance_effective_rank"
    # ranks without a value are none while others have one
    gone = pl.when(pl.col("measure") == "covariance_effective_rank").then(None).otherwise(pl.col("value"))
    assert choose_place([both.with_columns(gone.alias("value"))]).measure == "rankme"
    assert choose_place([ranks()]) == choose_place([]) == Place()


def test_a_site_is_found_where_the_last_block_was_not_measured() -> None:
    assert choose_place([ranks("rankme", site="ln_final.hook_out")]).site == "final-ln"
    other = ranks("rankme", site="blocks.1.hook_resid_post").with_columns(
        pl.col("site").str.replace("hook_resid_post", "hook_mlp_out")
    )
    assert choose_place([other]).site == "blocks.1.hook_mlp_out"
    floors = planted.opened(other).shown_events().filter(event="floor", protocol="billa-v4")
    assert floors["measure"].to_list() == ["rankme"]
    assert floors["value"].to_list() == [5.0]


def test_events_are_those_of_the_rank_there_is(tmp_path: Path) -> None:
    rows = [row for row in planted.rows() if row.measure in {"rankme", "accuracy"}]
    run = open_run(planted.write_run(tmp_path / "run", rows))
    floor = run.events("billa-v4").filter(event="floor").row(0, named=True)
    assert (floor["measure"], floor["value"], floor["step"]) == ("rankme", 5.0, 300)
    with pytest.raises(UserError, match=r"no measure 'rankmee'.*did you mean 'rankme'"):
        run.events("billa-v4", measure="rankmee")
    with pytest.raises(UserError, match="did you mean 'answer/centred'"):
        run.events("billa-v4", readout="answer/centered")


def test_commands_take_it_too_and_name_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = [row for row in planted.rows() if row.measure in {"rankme", "accuracy"}]
    one = planted.write_run(tmp_path / "one", few)
    two = planted.write_run(tmp_path / "two", planted.rows(run="nano-7", series="nano-7", seed=7))
    assert run_command(["published", str(one)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "floors: rankme, answer/centred, last-block" in said
    assert "the published floors fit covariance_effective_rank" in said
    compared = ["compare", str(one), str(two), "--out", str(tmp_path / "out"), "--json"]
    assert run_command(compared) == 0
    assert json.loads(capsys.readouterr().out)["floors"]["measure"] == "rankme"
    floors = pl.read_csv(tmp_path / "out" / "events.csv").filter(event="floor", protocol="billa-v4")
    assert floors["value"].to_list() == [5.0, 5.0]
    assert run_command([*compared, "--measure", "rankme", "--site", "final-ln"]) == 0
    assert json.loads(capsys.readouterr().out)["floors"]["site"] == "final-ln"
    assert run_command([*compared, "--measure", "covariance_effective_rank"]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert any("run nano-42 has no covariance_effective_rank" in warning for warning in warnings)
    assert run_command(["claims", str(one), "--only", "top-down-in-time", "--json"]) == 0
    [claim] = json.loads(capsys.readouterr().out)["task-aligned"]["claims"]
    assert claim["measure"] == "rankme"
