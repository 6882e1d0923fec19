"""A name that there is not is told before anything is written, or asked of the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from tinyseries import write_series

import pythiageo
from pythiageo.cli.app import run as cli
from pythiageo.config.runs import AnalyzeConfig
from pythiageo.errors import UserError
from pythiageo.runs.folder import open_run_folder
from pythiageo.runs.listing import summarise

WRONG = [
    (["--measures", "rank_me"], "no measure 'rank_me' (did you mean 'rankme'?)"),
    (["--measures", "hesian"], "no measure 'hesian' (did you mean 'hessian'?)"),
    (["--set", 'measures.landscape.measures=["lcc"]'], "no measure 'lcc' (did you mean 'llc'?)"),
    (["--readouts", "answer/center"], "no readout 'answer/center' (did you mean 'answer/centred'?)"),
    (["--tasks", "AD"], "no task 'AD' (did you mean 'ADD'?)"),
    (["--set", 'probes.levels=["L9"]'], "has no level 'L9'"),
    (["--steps", "lg:3"], "cannot read 'lg:3'"),
    (["--set", 'measures.landscape.steps="some"'], "cannot read 'some'"),
    (["--layers", "a-b"], "cannot read 'a-b'"),
]


@pytest.mark.parametrize(("options", "sentence"), WRONG)
@pytest.mark.parametrize("command", [["analyze"], ["analyze", "--dry-run"], ["plan"]])
def test_before_anything_is_written_or_asked(
    command: list[str],
    options: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli([*command, "owner/not-there", *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_callback_says_it_when_it_is_made() -> None:
    with pytest.raises(UserError, match="did you mean 'rankme'"):
        pythiageo.MeasureCallback(["ADD"], name="x", measures=["rank_me"])
    with pytest.raises(UserError, match="no task 'AD'"):
        pythiageo.MeasureCallback(["AD"], name="x")
    pythiageo.MeasureCallback(["ADD"], name="x", steps="saves")


def test_a_mistake_that_the_series_tells_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series = write_series(tmp_path / "series", [0, 1])
    out = tmp_path / "out"
    assert cli(["analyze", str(series), "--steps", "7", "--out", str(out)]) == 2
    assert "step 7 is not there" in capsys.readouterr().err
    assert not out.exists()
    out.mkdir()
    assert cli(["analyze", str(series), "--steps", "7", "--out", str(out)]) == 2
    assert {path.name for path in out.iterdir()} <= {".lock"}


def test_a_run_whose_process_was_killed_is_interrupted(tmp_path: Path) -> None:
    with open_run_folder(tmp_path / "run", AnalyzeConfig(name="r", target="t"), False, False, "cpu") as folder:
        assert summarise(folder.path)["status"] == "running"
        manifest = (folder.path / "manifest.json").read_text()
    (tmp_path / "run" / "manifest.json").write_text(manifest)  # as a kill leaves it
    assert summarise(tmp_path / "run")["status"] == "interrupted"
