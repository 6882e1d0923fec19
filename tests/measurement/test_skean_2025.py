"""Protocols skean-2025 and queipo-2025 against float64 references: of the equations, and of the code of Skean et al."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from textseries import read_texts, write_text_series
from transformers import AutoTokenizer, GPTNeoXForCausalLM

from pythiageo.cli.app import run as cli
from pythiageo.observations import read_observations

WIDTH, TEXTS = 24, 30
SITES = ["hook_embed", "blocks.0.hook_resid_post", "ln_final.hook_out"]
"""Those of transformers' ``hidden_states`` of two blocks, the last of which is behind the final LayerNorm."""


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts have fewer and more tokens than the checkpoint has dimensions."""
    return write_text_series(tmp_path_factory.mktemp("skean"), WIDTH, TEXTS)


def read_states(root: Path) -> list[list[np.ndarray]]:
    """The states of each text, by site, in float64."""
    folder = root / "series" / "step7"
    model = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    reader = AutoTokenizer.from_pretrained(folder)
    found = []
    for text in read_texts(root):
        ids = reader(text, return_tensors="pt").input_ids
        with torch.no_grad():
            found.append([one[0].numpy() for one in model(ids, output_hidden_states=True).hidden_states])
    return found


def entropy(values: np.ndarray) -> float:
    share = values[values > 0] / values[values > 0].sum()
    return float(-(share * np.log(share)).sum())


def of_states(rows: np.ndarray) -> float:
    return entropy(np.linalg.svd(rows, compute_uv=False) ** 2)


def clipped(rows: np.ndarray) -> float:
    gram = rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T
    return entropy(np.linalg.eigvalsh(np.maximum(gram, 0)))


def unit(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=0)
    return np.asarray(centred / np.linalg.norm(centred, axis=1, keepdims=True))


def turn(rows: np.ndarray) -> list[float | None]:
    """The angle of each turn; ``None`` where two states in a row are equal but for rounding."""
    steps = np.diff(rows, axis=0)
    norms = np.linalg.norm(steps, axis=1)
    still = norms < 1e-6 * np.linalg.norm(rows, axis=1).max()
    cosines = [None if still[i] or still[j] else steps[i] @ steps[j] / norms[i] / norms[j]
               for i, j in pairwise(range(len(steps)))]  # fmt: skip
    return [None if cosine is None else math.acos(min(1.0, max(-1.0, float(cosine)))) for cosine in cosines]


def references(prompts: list[np.ndarray]) -> dict[tuple[str, str], float]:
    """The numbers of one site, by measure and readout."""
    angles = [[angle for angle in turn(rows) if angle is not None] for rows in prompts]
    folded = [[0.0 if a is None else min(a, math.pi - a) for a in turn(unit(rows))] for rows in prompts]
    means = np.array([rows.mean(axis=0) for rows in prompts])
    of_prompts = {
        "prompt_entropy": [of_states(rows) for rows in prompts],
        "prompt_entropy_normalised": [of_states(rows) / math.log(min(rows.shape)) for rows in prompts],
        "curvature": [float(np.mean(each)) for each in angles if each],
        "prompt_entropy_skean": [clipped(unit(rows)) for rows in prompts],
        "curvature_skean": [float(np.mean(each)) for each in folded],
        "dataset_entropy_skean": [clipped(np.array([unit(rows).mean(axis=0) for rows in prompts]))],
        "dataset_entropy": [of_states(np.concatenate(prompts))],
    }
    found = {(name, "all/uncentred"): float(np.mean(values)) for name, values in of_prompts.items()}
    return {**found, ("dataset_entropy", "mean/uncentred"): of_states(means)}


def test_the_numbers_of_skean_2025(series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To 1e-4: passes are in float32."""
    out = tmp_path / "run"
    few = ["--tasks", "texts", "--tasks-folder", str(series), "--examples", str(TEXTS), "--out", str(out), "--quiet"]
    assert cli(["analyze", str(series / "series"), "--protocol", "skean-2025", *few]) == 0
    assert "measured under protocol skean-2025: Skean et al., ICML 2025" in capsys.readouterr().err
    table = read_observations(out).filter(pl.col("site").is_not_null() & pl.col("readout").is_not_null())
    assert set(table["status"]) == {"ok"}
    states = read_states(series)
    for number, site in enumerate(SITES):
        rows = table.filter(site=site)
        found = {(row["measure"], row["readout"]): row for row in rows.iter_rows(named=True)}
        expected = references([text[number] for text in states])
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key]["value"] == pytest.approx(value, rel=1e-4), (site, key)
        of_prompts = found["prompt_entropy", "all/uncentred"]
        assert of_prompts["n"] == TEXTS
        assert of_prompts["stderr"] > 0


def test_the_numbers_of_queipo_2025(series: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    few = ["--tasks", "texts", "--tasks-folder", str(series), "--examples", str(TEXTS), "--out", str(out), "--quiet"]
    assert cli(["analyze", str(series / "series"), "--protocol", "queipo-2025", *few]) == 0
    table = read_observations(out)
    states = read_states(series)
    for number, site in enumerate(SITES):
        prompts = [text[number] for text in states]
        found = dict(table.filter(site=site).select("measure", "value").iter_rows())
        expected = references(prompts)
        for name in ("prompt_entropy", "prompt_entropy_normalised"):
            assert found[name] == pytest.approx(expected[name, "all/uncentred"], rel=1e-4)
        assert found["first_norm"] == pytest.approx(np.mean([np.linalg.norm(rows[0]) for rows in prompts]), rel=1e-5)
    assert table.filter(measure="sink_rate")["site"].to_list() == [
        "blocks.0.attn.hook_pattern",
        "blocks.1.attn.hook_pattern",
    ]


def test_a_readout_of_one_row_an_example_alone_is_refused(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    asked = ["--tasks", "texts", "--tasks-folder", str(series), "--measures", "curvature", "--readouts", "mean/centred"]
    assert cli(["analyze", str(series / "series"), *asked, "--out", str(out)]) == 2
    assert "curvature is taken of the states of one prompt at a time: expected a readout" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not out.exists()
