"""``pythiageo show`` as a terminal shows it."""

from __future__ import annotations

import json
from pathlib import Path

import planted
import pytest
from planted import Plant, observation

from pythiageo.cli.app import run as cli

TASKS = {"logical-deduction-three-objects": Plant(), "ADD": Plant(acquired=None)}


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    planted.write_run(tmp_path / "outputs" / "nano-7", planted.rows(TASKS, layers=6, run="nano-7"), name="nano-7")
    return tmp_path / "outputs"


@pytest.mark.parametrize("columns", [80, 120])
def test_it_fits_the_terminal_with_every_number_whole(
    outputs: Path, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"COLUMNS": str(columns), "TTY_COMPATIBLE": "1", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    assert cli(["show", "nano-7"]) == 0  # found in outputs/ by its name
    shown = capsys.readouterr()
    plain = [line for line in shown.out.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()]
    assert all(len(line) <= columns for line in plain)
    assert plain[0].startswith("nano-7: ")
    rows = [line.split() for line in plain if line.lstrip().startswith("logical-deduction-three-objects")]
    assert len(rows) == 2
    assert rows[0][-2:] == ["0.96", "0.1"]  # the last step's accuracy, and chance
    assert rows[1][-1] == "35"  # 2.5 times the 14 at which it ends
    assert "2,000" in shown.out
    assert "next: pythiageo plot outputs/nano-7 --measure accuracy" in shown.err


def test_it_is_data_for_scripts_too(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["show", "outputs/nano-7", "--measure", "rankme", "--task", "ADD", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    [by_task, by_block] = found["tables"]
    [row] = by_task["rows"]
    assert row["task"] == "ADD"
    assert {one["step"]: one["value"] for one in row["values"]}[300] == pytest.approx(5.0)
    assert [row["block"] for row in by_block["rows"]] == ["0", "1", "2", "3", "4", "5", "LN"]


def test_mistakes_and_what_is_not_shown(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["show", "nano-8"]) == 2
    assert "there is no run folder nano-8 (did you mean 'nano-7'?)" in capsys.readouterr().err
    assert cli(["show", "nano-7", "--measure", "rankm"]) == 2
    assert "did you mean 'rankme'" in capsys.readouterr().err
    rows = planted.rows(readouts=("a/centred", "b/centred"))
    planted.write_run(outputs / "two", rows, name="two")
    assert cli(["show", "two"]) == 0  # what cannot be chosen hides nothing else
    shown = capsys.readouterr().out
    assert "accuracy, mean of" in shown
    assert "rankme is not shown: --readout: rankme was taken under a/centred, b/centred: say which" in shown
    planted.write_run(outputs / "none", [observation(value=None, status="undefined", reason="no")], name="none")
    assert cli(["show", "none"]) == 0
    assert "1 observation, 1 of them without a value" in capsys.readouterr().out


def test_a_run_of_the_final_layernorm_alone_is_shown_there(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row for row in planted.rows(TASKS, run="ln") if row.site in (None, "ln_final.hook_out")]
    assert any(row.site for row in rows)
    planted.write_run(outputs / "ln", rows, name="ln")
    assert cli(["show", "ln", "--measure", "rankme", "--json"]) == 0
    [by_task] = json.loads(capsys.readouterr().out)["tables"]
    assert by_task["title"] == "rankme, after the final LayerNorm, answer/centred"
    assert {row["task"] for row in by_task["rows"]} == set(TASKS)
