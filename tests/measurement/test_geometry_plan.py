"""Ranks of alpha-ReQ's fit, said in the measure's name or beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from polars.testing import assert_frame_equal
from tinyseries import write_series

from pythiageo.cli.app import run as cli
from pythiageo.config.tables import MeasureConfig
from pythiageo.errors import UserError
from pythiageo.measurement.geometry_plan import GeometryPlan
from pythiageo.observations import read_observations


@pytest.mark.parametrize(
    ("names", "ranks", "measures"),
    [
        (("alpha_req_12_100",), (11, 50), ["alpha_req_12_100"]),
        (("alpha_req_12_100",), (12, 100), ["alpha_req_12_100"]),
        (("alpha_req", "alpha_req_12_100"), (11, 50), ["alpha_req", "alpha_req_12_100"]),
        (("alpha_req", "alpha_req_12_100"), (12, 100), ["alpha_req_12_100"]),
        (("alpha_req_11_50", "rankme"), (11, 50), ["alpha_req", "rankme"]),
        (("alpha_req_11_50", "alpha_req"), (11, 50), ["alpha_req"]),
    ],
)
def test_ranks_are_said_in_either_way(names: tuple[str, ...], ranks: tuple[int, int], measures: list[str]) -> None:
    plan = GeometryPlan.of(MeasureConfig(geometry=names, alpha_range=ranks))
    assert [measure.name for measure in plan.measures] == measures


@pytest.mark.parametrize("name", ["alpha_req_12_100", "alpha_req_11_50"])
def test_ranks_said_twice_and_differently_are_one_sentence(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} says its ranks, and --alpha-range .* says 20,60: expected one of"):
        GeometryPlan.of(MeasureConfig(geometry=(name,), alpha_range=(20, 60)))


@pytest.mark.parametrize("name", ["alpha_req_12_20", "rankme_12_100", "alpha_req_100_12"])
def test_a_name_of_no_fit_is_unknown(name: str) -> None:
    with pytest.raises(UserError, match=f"no measure '{name}'"):
        GeometryPlan.of(MeasureConfig(geometry=(name,)))


def test_an_analysis_takes_either_way_and_has_the_same_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series = write_series(tmp_path / "series", [0])
    words = ["analyze", str(series), "--tasks", "ADD", "--examples", "40", "--readouts", "all/centred", "--name", "a"]
    by_name, beside = ["--measures", "alpha_req_12_40"], ["--measures", "alpha_req", "--alpha-range", "12,40"]
    for out, said in (("named", by_name), ("beside", beside)):
        assert cli([*words, *said, "--out", str(tmp_path / out), "--quiet"]) == 0
    assert_frame_equal(read_observations(tmp_path / "named"), read_observations(tmp_path / "beside"))
    assert "alpha_req_12_40" in set(read_observations(tmp_path / "named")["measure"])
    capsys.readouterr()
    assert cli([*words, *by_name, "--alpha-range", "12,41", "--out", str(tmp_path / "no"), "--quiet"]) == 2
    assert "alpha_req_12_40 says its ranks" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
