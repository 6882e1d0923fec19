"""The weight measures of an audit by value, as a run that report, compare and export read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tinyseries import write_series

from pythiageo.cli.app import run as cli
from pythiageo.observations import read_manifest, read_observations


def test_weight_measures_are_observations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series, audit = write_series(tmp_path / "s", (0, 1, 2)), tmp_path / "audit.json"
    assert cli(["audit", str(series), "--values", "--out", str(audit), "-q"]) == 1  # each step has a seed of its own
    assert cli(["import", str(audit), "--out", str(tmp_path / "run")]) == 0
    table = read_observations(tmp_path / "run")
    assert table.height == 3 * 2 * 3
    assert (read_manifest(tmp_path / "run")["series"], table["status"].unique().to_list()) == ("s", ["ok"])
    name = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
    first, second = (load_file(series / f"step{step}" / "model.safetensors")[name].double() for step in (0, 2))
    rows = table.filter(site=name, step=2)
    assert rows.select("layer", "n", "readout").unique().rows() == [(1, 256, "rows=0:256")]
    values = dict(rows.select("measure", "value").rows())
    sigma = torch.linalg.svdvals(second)
    assert values == pytest.approx(
        {
            "weight_rms": float(second.square().mean().sqrt()),
            "weight_distance": float((second - first).norm() / first.norm()),
            "weight_stable_rank": float((sigma / sigma[0]).square().sum()),
        },
        rel=1e-9,  # of the same float32 entries, both in float64
    )
    capsys.readouterr()
    assert cli(["audit", str(series), "--out", str(audit), "-q"]) == 0
    assert cli(["import", str(audit), "--out", str(tmp_path / "none")]) == 2
    assert "an audit by hashes alone: pythiageo audit --values" in capsys.readouterr().err
    audit.write_text(json.dumps({"repo": "s", "content": "", "steps": [], "values": {"weights": [{"step": 1}]}}))
    assert cli(["import", str(audit), "--out", str(tmp_path / "none")]) == 2
    assert "a damaged audit" in capsys.readouterr().err
