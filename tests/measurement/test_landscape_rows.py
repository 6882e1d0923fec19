"""Landscape measures of checkpoints: the right loss, on the plain module, in the table; and calibration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch.nn import functional

from pythiageo.cli.app import run as cli
from pythiageo.config.landscape import LandscapeConfig
from pythiageo.errors import CheckpointError, UserError
from pythiageo.landscape.gradient_rank import GradientRank, gradient_effective_rank
from pythiageo.landscape.gram import GradientGram, gradient_gram
from pythiageo.landscape.hessian import Hessian
from pythiageo.measurement.landscape import Landscape, block_prefix, llc_settings
from pythiageo.measurement.probe_loss import live_logits, logits_of, problem_of, shared_problem_of
from pythiageo.measurement.probe_sets import GEOMETRY, SCORE, Probe, prepare
from pythiageo.observations import read_observations
from pythiageo.probes.encoding import CharacterTokenizer
from pythiageo.probes.probeset import make_probe_set
from pythiageo.probes.task import MIXED, load_tasks
from pythiageo.series.files.load import open_folder
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint

FEW = ["--set", "probes.score_examples=4", "--set", "probes.geometry_examples=12", "--quiet"]
CHEAP = ["gradient_rank", "gradient_covariance_rank", "first_parameters_covariance_rank", "hessian", "llc"]
LLC = ["--set", "measures.landscape.llc.draws=8", "--set", "measures.landscape.llc.burn_in=2",
       "--set", "measures.landscape.batch=4", "--set", "measures.landscape.hessian.k=2"]  # fmt: skip


@pytest.fixture(scope="module", params=["gpt_neox", "gpt2"])
def series(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("landscape")
    for step in (0, 10):
        trainable = ARCHITECTURES[request.param](Shape(2, 16, 2, 32, 48, 41, True), seed=step)
        write_checkpoint(root / f"step{step}", trainable, step, tokens=step)
    return root


def probe(task: str = "ADD", examples: int = 12, purpose: str = GEOMETRY) -> Probe:
    return Probe(make_probe_set(load_tasks(None)[task], MIXED, examples, 0), purpose)


def test_the_loss_is_the_mean_over_examples_of_the_mean_over_answer_tokens(series: Path) -> None:
    model = open_folder(series / "step0", "t").model
    encoded = prepare([probe("SORT")], CharacterTokenizer(), None)[0].encoded
    assert len({len(example.ids) for example in encoded}) > 1
    assert len({len(example.targets) for example in encoded}) > 1
    problem = problem_of(model, logits_of(model), encoded)
    model.requires_grad_(True)
    total = torch.zeros(())
    for example in encoded:  # by hand, one at a time, with transformers' full logits
        logits = model(torch.tensor([example.ids])).logits[0]
        total = total + functional.cross_entropy(logits[list(example.answer_positions)], torch.tensor(example.targets))
    (total / len(encoded)).backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]
    model.zero_grad()
    assert problem.loss() == pytest.approx(float(total.detach()) / len(encoded), rel=1e-5)
    assert problem.size == sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(problem.gradient(), expected, rtol=1e-4, atol=1e-6)


def test_a_tied_unembedding_is_differentiated_for_all_examples_at_once(tmp_path: Path) -> None:
    """Its gradients are formed by ``vmap``, which a loss that asks a tensor for a number would turn into a loop."""
    trainable = ARCHITECTURES["gpt2"](Shape(1, 16, 2, 32, 48, 41, True), seed=0)
    write_checkpoint(tmp_path / "step0", trainable, 0, tokens=0)
    model = open_folder(tmp_path / "step0", "t").model
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    problem = problem_of(model, logits_of(model), prepare([probe(examples=40)], CharacterTokenizer(), None)[0].encoded)
    calls: list[None] = []
    handle = model.register_forward_pre_hook(lambda *_: calls.append(None))
    assert isinstance(gradient_gram(problem), GradientGram)
    handle.remove()
    assert len(calls) < problem.examples


def test_blocks_are_found_by_name(series: Path) -> None:
    model = open_folder(series / "step0", "t").model
    assert block_prefix(model, 2) in {"gpt_neox.layers", "transformer.h"}
    with pytest.raises(CheckpointError, match="expected one list of 3 blocks"):
        block_prefix(model, 3)


def landscape_rows(run: Path) -> pl.DataFrame:
    table = read_observations(run)
    return table.filter(pl.col("readout").str.starts_with("parameters="))


def analyze(series: Path, out: Path, *arguments: str, code: int = 0) -> pl.DataFrame:
    command = ["analyze", str(series), "--out", str(out), "--tasks", "ADD,COPY", *FEW, *LLC, *arguments]
    assert cli(command) == code
    return landscape_rows(out)


def test_rows_are_what_the_library_says(series: Path, tmp_path: Path) -> None:
    rows = analyze(series, tmp_path / "run", "--measures", ",".join(["rankme", *CHEAP]))
    names = ["first_parameters_covariance_rank", "gradient_covariance_rank", "gradient_rank", "hessian_top",
             "hessian_top_2", "hessian_trace", "llc", "llc_bulk_draws", "llc_chain_sd", "llc_r_hat",
             "llc_sampling_error", "llc_step_bias", "llc_tail_draws"]  # fmt: skip
    assert rows.filter(pl.col("step") == 10)["measure"].sort().to_list() == names
    assert rows["task"].unique().to_list() == ["ADD"]
    assert rows["n"].unique().to_list() == [12]
    model = open_folder(series / "step10", "t").model
    count = sum(p.numel() for p in model.parameters())
    assert rows["readout"].unique().to_list() == [f"parameters=*;count={count}"]
    encoded = prepare([probe()], CharacterTokenizer(), None)[0].encoded
    rank = gradient_effective_rank(gradient_gram(problem_of(model, logits_of(model), encoded)))
    assert isinstance(rank, GradientRank)
    found = rows.filter((pl.col("step") == 10) & (pl.col("measure") == "gradient_rank"))["value"].item()
    assert found == pytest.approx(rank.value, rel=1e-9)
    trace = rows.filter(pl.col("measure") == "hessian_trace")
    assert (trace["stderr"] > 0).all()
    for row in rows.iter_rows(named=True):
        assert (row["value"] is not None) == (row["status"] == "ok")
        assert row["reason"] or row["status"] == "ok"


def test_layers_are_measured_alone_and_draws_do_not_depend_on_company(series: Path, tmp_path: Path) -> None:
    arguments = ("--set", "measures.landscape.per_layer=true", "--steps", "10")
    both = analyze(series, tmp_path / "both", "--measures", "gradient_rank,hessian_trace,hessian_top", *arguments)
    alone = analyze(series, tmp_path / "alone", "--measures", "hessian_trace", *arguments)
    assert both["layer"].unique().sort().to_list() == [0, 1]
    columns = ["layer", "readout", "measure", "value", "stderr"]
    assert both.filter(pl.col("measure") == "hessian_trace").select(columns).equals(alone.select(columns))
    model = open_folder(series / "step10", "t").model
    block = sum(p.numel() for p in model.get_submodule(f"{block_prefix(model, 2)}.0").parameters())
    assert all(readout.endswith(f".*;count={block}") for readout in both["readout"])


def test_steps_and_tasks_are_few_unless_asked_for(series: Path, tmp_path: Path) -> None:
    arguments = ("--set", 'measures.landscape.tasks=["COPY"]', "--set", 'measures.landscape.steps="10"')
    rows = analyze(series, tmp_path / "run", "--measures", "gradient_rank", *arguments)
    assert rows.select("step", "task").rows() == [(10, "COPY")]
    chosen = Landscape.of(LandscapeConfig(measures=("llc",)), list(range(100)), [probe("ADD"), probe("MUL")])
    assert len(chosen.steps) == 5
    assert chosen.tasks == ("ADD",)
    assert not Landscape.of(LandscapeConfig(), [0, 1], [probe()]).steps


def test_too_few_examples_and_a_model_that_is_not_finite_have_a_status(series: Path, tmp_path: Path) -> None:
    rows = analyze(series, tmp_path / "few", "--measures", "gradient_covariance_rank",
                   "--set", "measures.landscape.batch=7", "--steps", "10")  # fmt: skip
    assert rows.select("status", "reason").rows() == [
        ("undefined", "needs two batches of 7 examples, there are 12 examples")
    ]
    broken = ARCHITECTURES["gpt_neox"](Shape(2, 16, 2, 32, 48, 41, True), seed=0)
    next(iter(broken.module.parameters())).data[0, 0] = torch.nan
    write_checkpoint(tmp_path / "nan" / "step5", broken, 5, tokens=5)
    rows = analyze(tmp_path / "nan", tmp_path / "broken", "--measures", "gradient_rank,llc", code=1)
    assert rows["status"].to_list() == ["nonfinite", "nonfinite"]


def test_an_estimate_that_is_not_healthy_is_a_reason_and_no_value(series: Path, tmp_path: Path) -> None:
    rows = analyze(series, tmp_path / "run", "--measures", "llc", "--steps", "10",
                   "--set", "measures.landscape.llc.step=10.0")  # fmt: skip
    row = rows.row(0, named=True)
    assert row["status"] in {"diverged", "negative", "drifting", "not_converged"}
    assert row["value"] is None
    assert ":" in row["reason"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--measures", "gradient_rnak"], "no measure 'gradient_rnak'"),
        (["--measures", "hessian_density"], "a curve, not a number"),
        (["--measures", "llc", "--set", "measures.landscape.llc.setting=bila"], "did you mean 'billa'"),
        (["--measures", "llc", "--set", 'measures.landscape.tasks=["MUL"]'], "'MUL' is not probed; there are ADD"),
        (["--measures", "llc", "--set", 'measures.landscape.steps="7"'], "step 7 is not there"),
        (["--measures", "llc", "--set", "measures.landscape.llc.n_beta=1.0",
          "--set", "measures.landscape.llc.beta=1.0"], "expected one of n_beta and beta"),
        (["--measures", "llc", "--set", "measures.landscape.per_layer=true",
          "--set", 'measures.landscape.parameters=["x"]'], "per_layer chooses the parameters"),
        (["--measures", "llc", "--set", 'measures.landscape.parameters=["nothing"]'], "nothing"),
    ],
)  # fmt: skip
def test_wrong_requests_are_one_sentence(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    analyze_arguments = ["analyze", str(series), "--out", str(tmp_path / "r"), "--tasks", "ADD,COPY", *FEW]
    assert cli([*analyze_arguments, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_settings_replace_the_named_ones() -> None:
    def of(**llc: Any) -> Any:
        return llc_settings(LandscapeConfig(llc=llc), 200)

    assert (of().gamma, of().n_beta, of().beta) == (10_000.0, 1.0, None)
    assert (of(beta=2.0).beta, of(beta=2.0).n_beta) == (2.0, None)
    assert of(setting="theory", chains=2).chains == 2
    assert of(setting="theory").n_beta == pytest.approx(200 / 5.298317366548036)
    with pytest.raises(UserError, match="no baseline 'half'"):
        of(baseline="half")


def test_a_live_model_has_the_rows_of_its_checkpoints(tmp_path: Path) -> None:
    config = ["demo/pythia.toml", "--set", "training.stop=2", "--set", 'training.checkpoints="0-2:1"', "--set",
              'probes.tasks=["ADD"]', "--set", 'measures.landscape.measures=["gradient_rank","hessian_trace"]',
              "--set", "measures.landscape.hessian.probes=2", "--set", "model.layers=1", "--set", "model.d_model=16",
              "--set", "model.heads=2", "--set", "model.d_ff=32"]  # fmt: skip
    assert cli(["train", *config, *FEW, "--out", str(tmp_path / "run")]) == 0
    live = landscape_rows(tmp_path / "run")
    saved = analyze(tmp_path / "run", tmp_path / "saved", "--tasks", "ADD", "--measures", "gradient_rank")
    pairs = live.filter(pl.col("measure") == "gradient_rank").join(saved, on="step", suffix="_saved")
    assert pairs["step"].to_list() == [0, 2]  # step 1 holds the weights of step 0: its learning rate was zero
    assert pairs["value"].to_list() == pytest.approx(pairs["value_saved"].to_list(), rel=1e-4)


def calibrate(series: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = cli(["llc", "calibrate", str(series), "--draws", "40", "--burn-in", "20", "--examples", "12", "--quiet",
                "--json", *arguments])  # fmt: skip
    out = capsys.readouterr().out
    return code, json.loads(out) if out else None


def test_calibration_says_which_settings_are_sane(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--step-sizes", "1e-9,1e-4,10", "--gammas", "1000", "--setting", "billa")
    code, trials = calibrate(series, capsys, "--step", "10", *sizes)
    short, middle, coarse = trials
    assert code == (0 if any(trial["sane"] for trial in trials) else 1)
    assert (middle["gamma"], middle["step_size"], middle["n_beta"]) == (1000, 1e-4, 1)
    assert "burn-in is too short" in " ".join(short["reasons"])
    assert coarse["coarseness"] > 1
    assert not short["sane"]
    assert not coarse["sane"]
    assert abs(middle["equipartition"] - 1) < 0.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step", "11"], "step 11 is not there; the nearest is 10"),
        (["--step", "10", "--task", "ADDD"], "no task 'ADDD'"),
        (["--step", "10", "--gammas", "a"], "expected numbers separated by commas"),
        (["--step", "10", "--gammas", "-1"], "expected gamma of zero or more"),
        (["--step", "10", "--setting", "paper"], "no LLC settings 'paper'"),
        (["--step", "10", "--parameters", "nothing"], "nothing"),
    ],
)
def test_wrong_calibrations_are_one_sentence(
    series: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli(["llc", "calibrate", str(series), "--quiet", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_measures_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["measures", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"rankme", "participation_ratio"} <= {entry["name"] for entry in listed["geometry"]}
    assert {"llc", "gradient_rank", "hessian_top"} <= {entry["name"] for entry in listed["landscape"]}
    assert all(entry[key] for room in listed.values() for entry in room for key in ("formula", "source", "needs"))
    assert cli(["measures"]) == 0
    assert "exp(-sum p log p)" in capsys.readouterr().out


def test_score_probes_have_no_landscape(series: Path) -> None:
    prepared = prepare([probe(purpose=SCORE)], CharacterTokenizer(), None)
    with pytest.raises(UserError, match="is not probed"):
        Landscape.of(LandscapeConfig(measures=("llc",), tasks=("ADD",)), [0], [prepared[0].probe])


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_what_examples_share_changes_no_number(architecture: str) -> None:
    trainable = ARCHITECTURES[architecture](Shape(2, 16, 2, 32, 48, 41, True), seed=3)
    module = trainable.module.double()
    if architecture == "gpt2":
        module.mask = module.mask.double()
    encoded = prepare([probe("SORT", 120)], CharacterTokenizer(), None)[0].encoded
    plain = problem_of(module, live_logits(trainable), encoded)
    shared = shared_problem_of(module, trainable.scored_logits, encoded)
    assert len(plain.pieces) > len(shared.pieces) == 1
    torch.testing.assert_close(shared.example_losses(), plain.example_losses(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(shared.gradient(), plain.gradient(), rtol=1e-8, atol=1e-12)
    vector = torch.randn(plain.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with Hessian(plain) as a, Hessian(shared) as b:
        torch.testing.assert_close(b.product(vector), a.product(vector), rtol=1e-7, atol=1e-10)
    few = torch.tensor([0, 7, 11, 90])
    drawn = [torch.cat([one.piece_losses(piece) for piece, _ in one.minibatch(few)]) for one in (plain, shared)]
    torch.testing.assert_close(drawn[1], drawn[0], rtol=1e-10, atol=1e-12)
