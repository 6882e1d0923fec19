"""Protocol li-2025 against an independent float64 reference, and against the constant that the study's code adds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from textseries import read_texts, write_text_series
from transformers import AutoTokenizer, GPTNeoXForCausalLM

from pythiageo.cli.app import run as cli
from pythiageo.observations import read_manifest, read_observations

WIDTH, TEXTS, TOKENS = 112, 130, 20
EPSILON = 1e-7
"""What the study's code adds to each share of the variance before it takes their entropy."""


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the texts about half are longer than a passage."""
    return write_text_series(tmp_path_factory.mktemp("li"), WIDTH, TEXTS)


def reference(root: Path) -> tuple[float, float, float]:
    """The rank, alpha over ranks 12 to 100, and the rank with the constant, of last tokens behind the final norm."""
    folder = root / "series" / "step7"
    model = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    reader = AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in read_texts(root):
        # transformers' own truncation would keep the end token, which this tokenizer adds and Pythia's does not
        ids = reader(text, return_tensors="pt").input_ids[:, :TOKENS]
        with torch.no_grad():
            rows.append(model(ids, output_hidden_states=True).hidden_states[-1][0, -1].numpy())
    matrix = np.array(rows)
    squares = np.linalg.svd(matrix - matrix.mean(axis=0), compute_uv=False) ** 2
    share = squares / squares.sum()
    ranks = np.arange(12, 101)
    x, y, w = np.log(ranks), np.log(share[11:100]), 1 / ranks
    x = x - (w * x).sum() / w.sum()
    alpha = -(w * x * y).sum() / (w * x * x).sum()
    moved = share + EPSILON
    return float(np.exp(-(share * np.log(share)).sum())), alpha, float(np.exp(-(moved * np.log(moved)).sum()))


def test_the_numbers_are_those_of_the_study(series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    few = ["--tasks", "texts", "--tasks-folder", str(series), "--text-tokens", str(TOKENS), "--examples", str(TEXTS)]
    assert cli(["analyze", str(series / "series"), "--protocol", "li-2025", *few, "--out", str(out), "--quiet"]) == 0
    told = capsys.readouterr().err
    assert "measured under protocol li-2025: Li et al., NeurIPS 2025, arXiv 2509.23024" in told
    assert f"protocol li-2025 has probes.text_tokens = 512, and this run {TOKENS}" in told
    table = read_observations(out).filter(pl.col("site").is_not_null())
    assert set(table["readout"]) == {"last/centred"}
    assert set(table["site"]) == {"ln_final.hook_out"}
    assert set(table["n"]) == {TEXTS}
    found = dict(zip(table["measure"], table["value"], strict=True))
    assert found.keys() == {"covariance_effective_rank", "alpha_req_12_100"}
    rank, alpha, with_constant = reference(series)
    # float32 passes and float64 ones: a few 1e-6 of the states
    assert found["covariance_effective_rank"] == pytest.approx(rank, rel=1e-4)
    assert found["alpha_req_12_100"] == pytest.approx(alpha, rel=1e-4)
    # the constant raises the entropy by less than 1e-7 for each eigenvalue and nat
    assert 0 < with_constant / rank - 1 < EPSILON * WIDTH * 16
    manifest = read_manifest(out)
    assert manifest.config["protocol"] == "li-2025"
    assert manifest.as_json()["probe_sets"][-1]["passages"] == {"way": "truncate", "tokens": TOKENS, "stride": None}
    lost = read_observations(out).filter(measure="tokens_left_out", level="mixed")
    lengths = [len(text) + 2 for text in read_texts(series)]
    assert lost["value"].to_list() == [sum(max(0, length - TOKENS) for length in lengths)]
    assert lost["n"].to_list() == [sum(lengths)]


@pytest.mark.parametrize("way", ["pack", "stride"])
def test_packed_and_strided_texts_are_measured_too(way: str, series: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    few = ["--tasks", "texts", "--tasks-folder", str(series), "--examples", "40", "--readouts", "last/centred"]
    more = ["--long-texts", way, "--text-tokens", "16", "--sites", "ln_final.hook_out", "--set", "measures.bootstrap=3",
            "--measures", "covariance_effective_rank", "--rows", "30"]  # fmt: skip
    assert cli(["analyze", str(series / "series"), *few, *more, "--out", str(out), "--quiet"]) == 0
    table = read_observations(out).filter(measure="covariance_effective_rank").sort("readout")
    lengths = [len(text) + 2 for text in read_texts(series)[:40]]
    starts = [range(0, max(1, length - 8), 8) for length in lengths]
    assert table["n"].to_list() == [sum(lengths) // 16 if way == "pack" else sum(map(len, starts)), 30]
    assert table["stderr"].null_count() == 0
    assert not set(table["status"]) - {"ok"}
