"""``analyze --harness``: its scores are rows of the run's table, from the same pass over the checkpoints."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from fakeharness import stand_in
from tinyseries import write_series

from pythiageo.cli.app import run as cli
from pythiageo.observations import read_manifest, read_observations
from pythiageo.observations.schema import HARNESS

FEW = ["--tasks", "COPY", "--set", "probes.score_examples=2", "--set", "probes.geometry_examples=3", "-q"]
ASKED = ["--harness", "sciq"]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_series(tmp_path_factory.mktemp("scored"), (0, 10))


def analyze(series: Path, out: Path, *more: str) -> int:
    return cli(["analyze", str(series), *FEW, "--out", str(out), *more])


def test_its_scores_stand_beside_the_others(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    stand_in(monkeypatch, asked)
    assert analyze(series, tmp_path / "scored", *ASKED) == 0
    assert analyze(series, tmp_path / "plain") == 0
    scored, plain = (read_observations(tmp_path / name).drop("run") for name in ("scored", "plain"))
    theirs = scored.filter(scored["task"] == "sciq").sort("step", "measure")
    assert theirs.select("step", "level", "measure", "value", "status").rows() == [
        (step, "0-shot", measure, value, status)
        for step in (0, 10)
        for measure, value, status in (("accuracy", 0.5, "ok"), ("accuracy_normalised", None, "undefined"))
    ]
    assert all(name.startswith(HARNESS) for name in theirs["probe_set"])
    assert scored.filter(scored["task"] != "sciq").equals(plain.filter(plain["task"] != "sciq"))
    assert set(theirs["weight_sha"]) == set(plain["weight_sha"])
    assert [one["tasks"] for one in asked] == [["sciq"], ["sciq"]]
    # the model as saved, and a tokenizer of transformers: what the harness itself would load
    assert type(asked[0]["model"]["pretrained"]).__name__ == "GPTNeoXForCausalLM"
    assert asked[0]["model"]["tokenizer"]("a")["input_ids"]
    assert analyze(series, tmp_path / "scored", *ASKED, "--resume") == 0
    assert len(asked) == 2
    capsys.readouterr()
    assert cli(["plan", str(series), *FEW, *ASKED, "--out", str(tmp_path / "other")]) == 0
    assert "the time that lm-evaluation-harness takes is not counted" in capsys.readouterr().err


def test_an_error_of_the_harness_is_a_row(series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, [])

    def fail(**_: Any) -> None:
        raise ValueError("no data")

    monkeypatch.setattr(sys.modules["lm_eval"], "simple_evaluate", fail)
    assert analyze(series, tmp_path / "run", *ASKED) == 1
    table = read_observations(tmp_path / "run")
    lost = table.filter(table["task"] == "sciq")
    assert lost.select("step", "measure", "status", "reason").rows() == [
        (step, "accuracy", "failed", "ValueError: no data") for step in (0, 10)
    ]
    assert table.filter((table["task"] == "COPY") & (table["status"] == "ok")).height
    assert [one.status for one in read_manifest(tmp_path / "run").checkpoints] == ["failed", "failed"]


@pytest.mark.parametrize(
    ("there", "tasks", "sentence"),
    [(False, "sciq", "lm-evaluation-harness cannot be imported .*pip install lm_eval"),
     (True, "sciq,scik", "lm-evaluation-harness has no task 'scik'")],
)  # fmt: skip
def test_what_is_not_there_is_said_before_anything_is_written(
    there: bool, tasks: str, sentence: str, series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if there:
        stand_in(monkeypatch, [])
    else:
        for name in ("lm_eval", "lm_eval.tasks"):
            monkeypatch.setitem(sys.modules, name, None)
    assert analyze(series, tmp_path / "run", "--harness", tasks) == 2
    assert re.search(sentence, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
