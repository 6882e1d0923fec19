"""docs/findings.md: its commands and blocks run, and print what it quotes."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from printed import run_blocks

from pythiageo.cli.app import run as cli

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs" / "data"
PAGE = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")


def test_every_figure_is_printed_by_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = re.findall(r"^\| (\S+\.parquet) \| ([0-9a-f]{64}) \|$", PAGE, re.MULTILINE)
    assert len(hashes) == 3
    for name, sha in hashes:
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == sha
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^pythiageo (.+)$", PAGE, re.MULTILINE)
    assert len(commands) == 9
    for command in commands:
        assert cli(shlex.split(command.replace("docs/data", str(DATA)))) == 0
    for lines, quoted in run_blocks(PAGE, 5):
        assert lines == quoted


def test_the_tables_are_made_of_the_sources_files(tmp_path: Path) -> None:
    harness = tmp_path / "pythia" / "evals" / "pythia-v1" / "pythia-70m" / "zero-shot"
    layers = tmp_path / "flow" / "experiments" / "results" / "Pythia" / "410m" / "step64"
    for folder in (harness, layers / "metrics" / "wikitext", layers / "mteb" / "layer_3"):
        folder.mkdir(parents=True)
    results = {"results": {"sciq": {"acc": 0.25, "acc_stderr": 0.01}}, "config": {"model_args": "pretrained=x"}}
    (harness / "70m_step512.json").write_text(json.dumps(results))
    with (layers / "metrics" / "wikitext" / "dime.pkl").open("wb") as file:
        pickle.dump({"raw": [1.0, np.float32(2.5)], "logN": np.array([0.5])}, file)
    (layers / "mteb" / "layer_3" / "STS.json").write_text(
        json.dumps(
            {"scores": {"test": [{"hf_subset": "en", "main_score": 0.2}, {"hf_subset": "fr", "main_score": 0.4}]}}
        )
    )
    command = [sys.executable, str(DATA / "make_tables.py"), "--out", str(tmp_path / "out")]
    command += ["--harness", str(tmp_path / "pythia"), "--layers", str(tmp_path / "flow")]
    subprocess.run(command, check=True, timeout=60)
    scores, geometry, mteb = (
        pl.read_parquet(tmp_path / "out" / f"pythia_{name}.parquet")
        for name in ("lm_eval", "layer_geometry", "layer_mteb")
    )
    assert scores.row(0) == ("pythia-70m", "zero-shot", 512, "sciq", "acc", 0.25, 0.01, "pretrained=x")
    assert geometry.select("step", "variant", "layer", "value").rows() == [
        (64, "raw", 0, 1.0), (64, "raw", 1, 2.5), (64, "logN", 0, 0.5),
    ]  # fmt: skip
    assert mteb.select("step", "layer", "task", "main_score").row(0) == (64, 3, "STS", pytest.approx(0.3))


def test_a_pickle_of_anything_but_numbers_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "experiments" / "results" / "Pythia" / "410m" / "step64" / "metrics" / "wikitext"
    folder.mkdir(parents=True)
    with (folder / "dime.pkl").open("wb") as file:
        pickle.dump({"raw": [Path("x")]}, file)
    command = [sys.executable, str(DATA / "make_tables.py"), "--out", str(tmp_path / "out"), "--layers", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "expected numbers, arrays and containers of them alone" in done.stderr
