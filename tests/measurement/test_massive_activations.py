"""Sinks through ``analyze``, of a model with a massive first position built in, against float64 of what was planted.

States are float32 and ranks good to 1e-4 of their value here: the spectra are flat, and the first position is exact.
"""

from __future__ import annotations

from pathlib import Path

import massive
import numpy as np
import polars as pl
import pytest
import torch
from tinyseries import write_series
from transformers import AutoModelForCausalLM

from pythiageo import open_run
from pythiageo.cli.app import run as cli
from pythiageo.lens import BridgeReader
from pythiageo.observations import read_observations
from pythiageo.report.findings import findings
from pythiageo.series.files.load import open_folder

RATIOS = 1, 10, 100
EQUAL, MIXED = "EVEN", "UNEVEN"
READOUTS = ["all", "mean", "answer", "all-but-sinks", "mean-but-sinks", "answer-but-sinks"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[list[int]]], np.ndarray]:
    root = tmp_path_factory.mktemp("massive")
    tokens = massive.write_massive(root / "series", RATIOS)
    rng = np.random.Generator(np.random.PCG64(0))
    lengths = {EQUAL: [30] * 200, MIXED: rng.integers(10, 51, 200).tolist()}
    ids = {name: massive.write_texts(root / "tasks", name, each) for name, each in lengths.items()}
    readouts = ",".join(f"{name}/{centring}" for name in READOUTS for centring in ("centred", "uncentred"))
    assert cli(["analyze", str(root / "series"), "--out", str(root / "run"), "--quiet", "--tasks-folder",
                str(root / "tasks"), "--tasks", f"{EQUAL},{MIXED}", "--readouts", readouts, "--layers", "0",
                "--measures", "covariance_effective_rank,rankme,cka_below,sinks", "--rows", "150"]) == 0  # fmt: skip
    return root / "run", ids, tokens


@pytest.fixture(scope="module")
def run(
    folder: tuple[Path, dict[str, list[list[int]]], np.ndarray],
) -> tuple[pl.DataFrame, dict[str, list[list[int]]], np.ndarray]:
    return read_observations(folder[0]).filter(pl.col("task").is_not_null()), *folder[1:]


def states(ids: list[list[int]], tokens: np.ndarray, ratio: int) -> list[np.ndarray]:
    found = [tokens[one] for one in ids]
    for one in found:
        one[0, massive.DIRECTION] = ratio
    return found


def covariance_rank(rows: np.ndarray, centring: str) -> float:
    sigma = np.linalg.svd(rows - rows.mean(axis=0) * (centring == "centred"), compute_uv=False)
    share = sigma[sigma > 0] ** 2 / (sigma**2).sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def pick(table: pl.DataFrame, measure: str, **columns: object) -> dict[str, object]:
    (row,) = table.filter(measure=measure, **columns).rows(named=True)
    return row


@pytest.mark.parametrize("task", [EQUAL, MIXED])
@pytest.mark.parametrize("centring", ["centred", "uncentred"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_ranks_collapse_with_sinks_and_are_the_planted_truth_without(run, task, centring, ratio):
    table, ids, tokens = run
    of_texts = states(ids[task], tokens, ratio)
    but_first = [one[1:] for one in of_texts]
    truth = {
        "all": np.concatenate(of_texts),
        "mean": np.array([one.mean(axis=0) for one in of_texts]),
        "all-but-sinks": np.concatenate(but_first),
        "mean-but-sinks": np.array([one.mean(axis=0) for one in but_first]),
    }
    truth |= {"answer": truth["all"], "answer-but-sinks": truth["all-but-sinks"]}
    found = {}
    for name in READOUTS:
        row = pick(table, "covariance_effective_rank", step=ratio, task=task, readout=f"{name}/{centring}")
        assert row["value"] == pytest.approx(covariance_rank(truth[name], centring), rel=1e-4)
        assert row["n"] == len(truth[name])
        found[name] = row["value"]
        if name.endswith("-but-sinks"):
            positions = sum(map(len, of_texts))
            assert row["reason"].startswith(f"200 of {positions:,} positions left out: 200 first ones, and 0 others")
    if ratio == 100:  # as in the known table: 1.03, 1.03, 1.08, and 33.6 of centred means of one length
        assert found["all"] < 1.1
        assert (found["mean"] < 1.1) == ((centring, task) != ("centred", EQUAL))
        assert found["all-but-sinks"] > 25
        assert found["mean-but-sinks"] > (20 if centring == "centred" else 10)


def test_a_rank_that_sinks_make_says_so_and_no_other_does(run):
    table, _, _ = run
    plain = ~pl.col("readout").str.contains("/rows=")
    ranks = table.filter(pl.col("measure").is_in(["covariance_effective_rank", "rankme"]) & plain)
    said = ranks.filter(pl.col("reason").str.contains("dominated by sinks").fill_null(value=False))
    told = {(row["step"], row["task"], row["readout"]) for row in said.iter_rows(named=True)}
    places = [(task, f"{name}/{c}") for task in (EQUAL, MIXED) for name in ("all", "answer", "mean")
              for c in ("centred", "uncentred")]  # fmt: skip
    assert told == {(r, *place) for r in (10, 100) for place in places if place != (EQUAL, "mean/centred")}
    assert said.filter(readout="all/uncentred", step=100, task=EQUAL, measure="rankme")["reason"][0] == (
        "dominated by sinks: they bring 99.7% of the squared norm (all-but-sinks leaves them out); "
        "dominated by one direction: it holds 99.7% of the squared norm"
    )
    other = table.filter(measure="cka_below")
    assert not other["reason"].str.contains("dominated").any()


@pytest.mark.parametrize("task", [EQUAL, MIXED])
@pytest.mark.parametrize("ratio", RATIOS)
def test_measures_of_sinks_are_their_closed_forms(run, task, ratio):
    """To 1e-6: norms of float32 states; embeddings of norm 1 are so to that."""
    table, ids, _ = run
    lengths = np.array([len(one) for one in ids[task]])
    positions, examples = int(lengths.sum()), len(lengths)
    total = examples * ratio**2 + positions - examples
    site = {"step": ratio, "task": task, "site": "blocks.0.hook_resid_post"}
    names = ("first_norm_ratio", "massive_positions", "largest_position_share", "largest_dimension_share")
    found = {name: pick(table, name, **site) for name in names}
    assert {row["readout"] for row in found.values()} == {None}
    assert found["first_norm_ratio"]["value"] == pytest.approx(ratio, rel=1e-6)
    assert found["massive_positions"]["value"] == (examples if ratio > 5 else 0)
    assert found["largest_position_share"]["value"] == pytest.approx(examples * ratio**2 / total, rel=1e-6)
    assert (found["first_norm_ratio"]["n"], found["massive_positions"]["n"]) == (examples, positions)
    if ratio > 1:
        assert found["largest_dimension_share"]["value"] == pytest.approx(examples * ratio**2 / total, rel=1e-6)
    rate = pick(table, "sink_rate", step=ratio, task=task)
    assert (rate["value"], rate["n"], rate["site"]) == (0.25, 50, "blocks.0.attn.hook_pattern")
    assert rate["stderr"] == 0


def test_ranks_at_equal_rows_stand_beside_the_others_under_a_name_of_their_own(run):
    table, _, _ = run
    at_rows = table.filter(pl.col("readout").str.ends_with("/rows=150").fill_null(value=False))
    assert set(at_rows["measure"]) == {"covariance_effective_rank", "rankme"}
    assert set(at_rows["n"]) == {150}
    for row in at_rows.filter(measure="covariance_effective_rank", step=1, site="blocks.0.hook_resid_post").rows(
        named=True
    ):
        plain = row["readout"].removesuffix("/rows=150")
        beside = pick(table, row["measure"], step=1, task=row["task"], readout=plain, site=row["site"])
        assert 0.6 * beside["value"] < row["value"] < 1.02 * beside["value"]
        assert 0 < row["stderr"] < 0.1 * row["value"]
        assert row["reason"] == beside["reason"]


def test_more_rows_than_there_are_are_none(tmp_path):
    massive.write_massive(tmp_path / "series", [1])
    massive.write_texts(tmp_path / "tasks", "FEW", [12] * 12)
    assert cli(["analyze", str(tmp_path / "series"), "--out", str(tmp_path / "run"), "--quiet", "--tasks", "FEW",
                "--tasks-folder", str(tmp_path / "tasks"), "--rows", "20", "--examples", "12", "--readouts",
                "all/centred,last/centred", "--layers", "0", "--measures", "rankme,mean_cosine"]) == 0  # fmt: skip
    found = read_observations(tmp_path / "run").filter(pl.col("readout").str.ends_with("/rows=20")).sort("readout")
    assert found.select("measure", "readout", "status").rows() == [
        ("rankme", "all/centred/rows=20", "ok"), ("rankme", "last/centred/rows=20", "undefined")]  # fmt: skip
    assert found["reason"].to_list() == [None, "the readout has 12 rows, and 20 were asked for"]


def test_a_run_that_is_shown_and_its_page_name_what_is_dominated(folder, capsys):
    path = folder[0]
    capsys.readouterr()
    assert cli(["runs", "show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "ranks of matrices that sinks or one direction dominate" in shown
    said = "\n".join(findings(open_run(path)))
    assert "ranks of all positions, centred are of matrices that sinks dominate (steps 10 to 100, 1 site)" in said
    assert "all-but-sinks" not in said


def test_examples_that_are_short_have_no_sink_rate(tmp_path):
    """Attention that is spread evenly gives the first of nine positions 0.31 of it."""
    massive.write_massive(tmp_path / "series", [1])
    massive.write_texts(tmp_path / "tasks", "SHORT", [9] * 12)
    assert cli(["analyze", str(tmp_path / "series"), "--out", str(tmp_path / "run"), "--quiet", "--tasks", "SHORT",
                "--tasks-folder", str(tmp_path / "tasks"), "--measures", "sinks", "--examples", "12"]) == 0  # fmt: skip
    row = pick(read_observations(tmp_path / "run"), "sink_rate", layer=0)
    assert row["status"] == "undefined"
    assert "gives the first position 0.31 of it" in row["reason"]


def test_attention_to_the_first_position_is_that_of_transformers(tmp_path):
    """Of a random GPT-NeoX, to 1e-6: float32 softmaxes summed in another order."""
    folder = write_series(tmp_path, [3]) / "step3"
    ids = torch.randint(0, 41, (3, 17), generator=torch.Generator().manual_seed(0))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        expected = model(ids, output_attentions=True).attentions
    with BridgeReader(open_folder(folder, "step3").model, folder) as reader:
        whole, first = reader.attention_to_first(ids, [0, 1]), reader.attention_to_first(ids, [0])
    for layer, found in whole.items():
        assert torch.allclose(found, expected[layer][..., 0].double().mean(dim=-1), rtol=1e-6)
    assert torch.equal(first[0], whole[0])  # a pass that stops early
