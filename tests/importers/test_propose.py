"""A map that is proposed from the columns of a table, and what a table imported by it holds."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from pythiageo.cli.app import run as cli
from pythiageo.importers.mapping import load_mapping
from pythiageo.importers.propose import propose_map
from pythiageo.observations import read_observations

WIDE = "model,Training Step,benchmark,acc,acc_stderr,ppl\na/b,0,sciq,25.0,1,9\na/b,1000,sciq,54.2,2,5\n"
LONG = "run,step,dataset,Layer,metric,score,note\nx,0,piqa,0,rankme,12.5,\nx,0,piqa,1,RankMe,9,\nx,0,piqa,,acc,0.5,\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_proposed_imports_the_numbers_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "w.csv", WIDE)
    assert cli(["import", "w.csv", "--propose"]) == 0
    shown = capsys.readouterr()
    assert "pythiageo import w.csv --map w.toml --out outputs/w" in shown.err
    write(tmp_path / "w.toml", shown.out)  # as a shell's > does
    assert cli(["import", "w.csv", "--map", "w.toml", "--out", "run"]) == 0
    table = read_observations(tmp_path / "run")
    assert table.select("series", "step", "task", "measure").rows() == [
        ("a/b", 0, "sciq", "accuracy"), ("a/b", 1000, "sciq", "accuracy")
    ]  # fmt: skip
    assert table["value"].to_list() == pytest.approx([0.25, 0.542])  # they were per cent
    assert table["stderr"].to_list() == pytest.approx([0.01, 0.02])


def test_measures_in_a_column_get_our_names(tmp_path: Path) -> None:
    proposal = propose_map(write(tmp_path / "t.csv", LONG))
    mapping = load_mapping(write(tmp_path / "t.toml", proposal.text))
    assert mapping.columns == {
        "step": "step", "task": "dataset", "layer": "Layer", "measure": "metric", "value": "score"
    }  # fmt: skip
    assert mapping.rename == {"measure": {"RankMe": "rankme", "acc": "accuracy"}}
    assert not mapping.scale
    assert proposal.missing == ()
    assert "is layer 0 the embedding?" in " ".join(proposal.remarks)
    assert any('"run", "note"' in remark for remark in proposal.remarks)


def test_what_cannot_be_guessed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "x.csv", "model,when,effective_rank\na,1,2\nb,1,3\n")
    proposal = propose_map(source)
    assert proposal.missing == ("step",)
    assert "# Missing: which column is 'step'?" in proposal.text
    assert "of which spectrum is it?" in proposal.text
    assert 'Rows of 2 "model" (a, b): choose one with --where' in proposal.text
    nothing = propose_map(write(tmp_path / "y.csv", "a,b\n1,2\n"))
    assert nothing.missing == ("step", "measure", "value")
    load_mapping(write(tmp_path / "y.toml", nothing.text))  # as TOML it is whole


def test_a_table_without_a_map_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pl.read_csv(write(tmp_path / "w.csv", WIDE))
    table.write_parquet(tmp_path / "w.parquet")
    for name in ("w.csv", "w.parquet"):
        for more in ([], ["--out", str(tmp_path / "run")]):
            assert cli(["import", str(tmp_path / name), *more]) == 2
            shown = capsys.readouterr()
            assert 'step = "Training Step"' in shown.out
            assert "a table needs --map; the one above is proposed from its columns" in shown.err
    assert not (tmp_path / "run").exists()
    assert cli(["import", str(tmp_path / "none.csv"), "--propose"]) == 2
    assert "no such file" in capsys.readouterr().err
    assert cli(["import", str(tmp_path)]) == 2
    assert "say where with --out" in capsys.readouterr().err
    assert cli(["import", str(tmp_path / "w.csv"), "--propose", "--map", "x.toml"]) == 2
    assert "leave one of them out" in capsys.readouterr().err


def test_names_of_strangers_end_no_comment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pl.DataFrame({'ste"p\n[columns]': [1], "Step": [1], "rankme": [2.0], "\x1b[2Jevil": ["x"]})
    table.write_parquet(tmp_path / "t.parquet")
    proposal = propose_map(tmp_path / "t.parquet")
    mapping = load_mapping(write(tmp_path / "t.toml", proposal.text))
    assert mapping.columns == {"step": "Step", "value": "rankme"}
    assert cli(["import", str(tmp_path / "t.parquet")]) == 2
    assert "\x1b" not in "".join(capsys.readouterr())
