"""``pythiageo series``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tinyseries import write_series

from pythiageo.cli.app import run as cli
from pythiageo.series.layout import Naming


def test_known_series_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["series", "list"]) == 0
    assert "olmo-3-7b" in capsys.readouterr().out
    assert cli(["series", "list", "--json"]) == 0
    assert {entry["name"] for entry in json.loads(capsys.readouterr().out)} > {"pythia", "marin"}
    assert cli(["series", "show", "olmo-3-7b"]) == 0
    assert "1413814" in capsys.readouterr().out
    assert cli(["series", "show", "olmo-3"]) == 2
    assert "no series 'olmo-3' (did you mean" in capsys.readouterr().err


def test_what_is_read_and_what_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series = write_series(tmp_path / "s", [0, 10])
    assert cli(["series", "check", str(series)]) == 0
    assert "2 checkpoints" in capsys.readouterr().out
    (series / "step10").rename(series / "stage2-step10")
    (series / "step0").rename(series / "stage1-step0")
    assert cli(["series", "check", str(series)]) == 1
    assert "1 of stage2 is left out (stage2-step10): --stage stage2 reads them" in capsys.readouterr().out
    assert cli(["series", "check", str(series), "--stage", "stage2", "--json"]) == 1
    [only] = json.loads(capsys.readouterr().out)["checkpoints"]
    assert (only["name"], only["step"], only["stage"]) == ("stage2-step10", 10, "stage2")
    assert cli(["series", "check", str(series), "--stage", "stage3"]) == 2
    assert "no stage 'stage3'" in capsys.readouterr().err


def test_tokens_a_step_are_what_a_person_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series = write_series(tmp_path / "s", [0, 10])
    assert cli(["analyze", str(series), "--tokens-per-step", "7", "--dry-run", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["series"]["tokens_per_step"] == 7
    places = Naming(tokens_per_step=7).arrange(["step0", "step10"], "s").places
    assert [place.tokens for place in places.values()] == [0, 70]
