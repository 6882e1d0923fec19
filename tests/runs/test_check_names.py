"""A name that there is not is told before anything is written, or asked of the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest

import pythiageo
from pythiageo.cli.app import run as cli
from pythiageo.errors import UserError

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
