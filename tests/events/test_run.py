"""How a run shows itself in a notebook and at a prompt."""

from __future__ import annotations

from pathlib import Path

import planted
import pytest

import pythiageo
from pythiageo.events import Run

EVIL = "<script>alert(1)</script>\x1b[2J"


def test_a_run_says_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = [{"step": step, "label": f"step{step}", "status": "ok"} for step in planted.STEPS]
    planted.write_run(
        tmp_path / "outputs" / "nano-7", planted.rows(run="nano-7"), name="nano-7", kind="train", status="complete",
        seed=7, size="nano", checkpoints=checkpoints,
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    run = pythiageo.open_run("nano-7")  # by its name in outputs/
    assert repr(run) == (
        "<Run nano-7, train, task-aligned, nano, seed 7, complete, checkpoints 21 (step 0 to 2,000), outputs/nano-7>"
    )
    page = run._repr_html_()
    for name, value in (("tasks", "MOD"), ("blocks", "2"), ("readouts", "answer/centred")):
        assert f"<tr><th>{name}</th><td>{value}</td></tr>" in page
    assert f"{run.observations.height:,}, 0 of them without a value" in page


def test_nothing_that_a_run_is_not_stops_it(tmp_path: Path) -> None:
    assert repr(pythiageo.open_run(tmp_path)) == f"<Run {tmp_path}>"
    assert str(tmp_path) in pythiageo.open_run(tmp_path)._repr_html_()
    assert repr(Run(None, planted.table(planted.rows()))) == "<Run in memory>"
    assert "MOD" in Run(None, planted.table(planted.rows()))._repr_html_()
    planted.write_run(tmp_path / "evil", planted.rows(), name=EVIL, regime=EVIL)
    run = pythiageo.open_run(tmp_path / "evil")
    assert "\x1b" not in repr(run)
    page = run._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page
