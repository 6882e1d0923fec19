"""``pythiageo claims`` as people run it."""

from __future__ import annotations

import json
from pathlib import Path

import planted
import polars as pl
import pytest
from planted import Plant

from pythiageo.cli.app import run

TASKS = {"COPY": 500, "REV": 600, "ADD": 1100, "MOD": 1300, "MUL": None}


def folder(path: Path, name: str, seed: int, tasks: tuple[str, ...] = ("COPY", "REV", "ADD", "MOD")) -> Path:
    plants = {task: Plant(acquired=at, floor=300) for task, at in TASKS.items()}
    rows = planted.rows(plants, run=name, series=name, seed=seed, layers=2)
    data = {"data": {"source": "tasks", "tasks": list(tasks)}}
    return planted.write_run(path / name, rows, name=name, seed=seed, config=data)


def test_claims_are_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(folder(tmp_path, f"nano-{seed}", seed)) for seed in (1, 2)]
    out = tmp_path / "claims"
    assert run(["claims", *runs, "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "claims on task-aligned: nano-1, nano-2" in shown
    assert "not decidable" in shown
    assert "how often the measure leads, and its nulls" in shown
    table = pl.read_parquet(out / "task-aligned" / "claims.parquet")
    assert table.height == 15
    assert pl.read_csv(out / "task-aligned" / "claims.csv").height == 15
    by_name = {row["name"]: row for row in table.iter_rows(named=True)}
    assert by_name["emergence"]["estimate"] == 1.0
    # MUL is in the table and was not trained: a control
    assert by_name["controls"]["estimate"] == 0.0
    assert by_name["controls"]["trained"] == "COPY,REV,ADD,MOD"
    assert by_name["hierarchy"]["n"] == 2 * 3 * 4


def test_claims_as_json_with_their_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder(tmp_path, "nano-1", 1)
    arguments = ["--only", "emergence,hierarchy", "--curve", "--json", "--rule", "v4", "--measure", "rankme"]
    assert run(["claims", str(path), *arguments]) == 0
    answer = json.loads(capsys.readouterr().out)["task-aligned"]
    assert [each["name"] for each in answer["claims"]] == ["emergence", "hierarchy"]
    assert {each["name"]: each["specifications"] for each in answer["curve"]} == {
        "emergence": 4,
        # four ways to acquire, three measures, two sites, five ways to lead
        "hierarchy": 4 * 3 * 2 * 5,
    }
    # of noise of this run's shape; claims that can hardly be decided with so few tasks hold under few definitions
    assert all(0 <= each["share_supported_noise"] <= 0.3 for each in answer["curve"])
    row = next(each for each in answer["claims"] if each["name"] == "hierarchy")
    assert (row["estimate"], row["null"], row["verdict"]) == (1.0, 1.0, "not decidable")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--readout", "equal/centred"], "no readout 'equal/centred'"),
        (["--protocol", "billa-v2"], "unknown protocol 'billa-v2'"),
        (["--only", "hierachy"], "no claim 'hierachy'"),
        (["--rule", "v3"], "unknown rule 'v3'"),
        (["AGAIN"], "two runs are called 'nano-1'"),
        (["OTHER"], "was trained on other tasks than the runs before it"),
    ],
)
def test_mistakes_are_told(arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(folder(tmp_path, "nano-1", 1))
    other = str(folder(tmp_path, "nano-2", 2, tasks=("COPY",)))
    words = {"AGAIN": path, "OTHER": other}
    assert run(["claims", path, *(words.get(word, word) for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
