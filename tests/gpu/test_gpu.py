"""On a GPU: the CPU's losses and observations, the same bits twice, and each faster way against the plain one.

For a machine that has one (``make gpu``): what can be known without is in test_devices. ``PYTHIAGEO_TEST_DEVICE=cpu``
runs the same lines on the CPU, so that they are known to run before there is a GPU; recorded graphs are left out then.
"""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from tinyseries import write_series

from pythiageo.cli.app import run as cli
from pythiageo.config.runs import TrainConfig, load_config
from pythiageo.observations import read_manifest, read_observations
from pythiageo.runs.build_training import build_model, make_trainer, resolve
from pythiageo.series.files.load import open_folder

DEVICE = os.environ.get("PYTHIAGEO_TEST_DEVICE", "cuda")
GRAPHS = DEVICE != "cpu"
pytestmark = [
    pytest.mark.gpu, pytest.mark.skipif(GRAPHS and not torch.cuda.is_available(), reason="needs a GPU")
]  # fmt: skip

TINY = [
    "demo/tasks.toml", "--set", "model.layers=2", "--set", "model.d_model=32", "--set", "model.heads=2",
    "--set", "model.d_ff=64", "--set", "probes.score_examples=20", "--set", "probes.geometry_examples=20",
    "--set", 'training.checkpoints="0-20:10"', "--quiet",
]  # fmt: skip


def check_equal(found: pl.DataFrame, expected: pl.DataFrame, rel: float = 0.0, absolute: float = 0.0) -> None:
    """Compare tables; polars renamed the tolerances of its own comparison between versions that are allowed."""
    assert found.drop("value").equals(expected.drop("value"))
    if not rel:
        assert found.equals(expected)
        return
    ours, theirs = (table["value"].fill_null(0.0).to_torch().double() for table in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=rel, atol=absolute, equal_nan=True)


def losses(steps: int, *sets: str) -> list[float]:
    config = load_config(Path("billa-v4.toml"), ["model.size=nano", *sets], "train")
    assert isinstance(config, TrainConfig)
    config = resolve(config)
    trainer = make_trainer(config, *build_model(config), None)
    found = []
    for _ in range(steps):
        trainer.advance()
        found.append(trainer.loss)
    return found


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_losses_are_those_of_the_cpu(architecture: str) -> None:
    shared = [f"model.architecture={architecture}", "training.warmup=20"]
    here = losses(60, *shared, "compute.device=cpu")
    assert losses(60, *shared, f"compute.device={DEVICE}", "training.cuda_graphs=false") == pytest.approx(
        here, rel=1e-3
    )
    if GRAPHS:
        graphs = losses(60, *shared, f"compute.device={DEVICE}")
        assert graphs == pytest.approx(here, rel=1e-3)


def test_bfloat16_is_near() -> None:
    shared = [f"compute.device={DEVICE}", "training.warmup=20"]
    shared.append("training.cuda_graphs=false")
    plain = losses(100, *shared)
    assert losses(100, *shared, "training.dtype=bfloat16") == pytest.approx(plain, rel=0.05)
    if GRAPHS:
        both = losses(100, *shared[:-1], "training.dtype=bfloat16")
        assert both == pytest.approx(plain, rel=0.05)


@pytest.mark.parametrize("faster", [["--set", "training.cuda_graphs=false"], ["--dtype", "bfloat16"]])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, faster: list[str]) -> None:
    def train(name: str, stop: int, *more: str) -> None:
        arguments = [*TINY, "--device", DEVICE, *faster, "--set", f"training.stop={stop}", *more]
        assert cli(["train", *arguments, "--out", str(tmp_path / name)]) == 0

    train("whole", 20)
    train("parts", 10)
    train("parts", 20, "--resume")
    assert read_manifest(tmp_path / "parts")["provenance"]["device"] == ("cuda:0" if GRAPHS else DEVICE)
    check_equal(*(read_observations(tmp_path / name) for name in ("whole", "parts")))


def test_every_measure_in_training_is_that_of_the_cpu(tmp_path: Path) -> None:
    landscape = ["--set", 'measures.landscape.measures=["hessian","gradient_rank","llc"]', "--set", "training.stop=1"]
    tables = []
    for place, device in (("here", "cpu"), ("there", DEVICE)):
        assert cli(["train", *TINY, *landscape, "--device", device, "--out", str(tmp_path / place)]) == 0
        tables.append(read_observations(tmp_path / place).filter(pl.col("measure") != "llc").select("measure", "value"))
    check_equal(*tables, rel=2e-3, absolute=1e-5)


def analyze(series: Path, out: Path, device: str, *more: str) -> pl.DataFrame:
    few = ["--tasks", "ADD,COPY", "--examples", "20", "--quiet"]
    assert cli(["analyze", str(series), "--out", str(out), "--device", device, *few, *more]) == 0
    return read_observations(out).select("step", "task", "layer", "site", "readout", "measure", "value", "status")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_are_loaded_there_with_the_same_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = write_series(tmp_path, (0,)) / "step0"
    path = folder / "model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    here, there = open_folder(folder, "t"), open_folder(folder, "t", DEVICE)
    assert here.weight_sha == there.weight_sha
    for name, weight in there.model.state_dict().items():
        assert weight.device.type == DEVICE.partition(":")[0]
        assert torch.equal(weight.cpu(), here.model.state_dict()[name]), name


def test_a_series_has_the_cpus_observations_and_the_same_bits_twice(tmp_path: Path) -> None:
    series = write_series(tmp_path / "series", (0, 10))
    here = analyze(series, tmp_path / "here", "cpu")
    there = analyze(series, tmp_path / "there", DEVICE)
    check_equal(there, here, rel=1e-3, absolute=1e-4)
    check_equal(analyze(series, tmp_path / "again", DEVICE), there)
    small = analyze(series, tmp_path / "small", DEVICE, "--set", "compute.batch_tokens=256")
    check_equal(small, there, rel=1e-4, absolute=1e-5)
    check_equal(
        analyze(series, tmp_path / "threads", DEVICE, "--set", "compute.threads=4"), there, rel=1e-4, absolute=1e-5
    )


def test_a_series_in_bfloat16_is_near(tmp_path: Path) -> None:
    series = write_series(tmp_path / "series", (0,))
    scores = [
        analyze(series, tmp_path / name, DEVICE, "--dtype", name).filter(pl.col("measure") == "log_prob")
        for name in ("float32", "bfloat16")
    ]
    assert scores[0].height > 0
    check_equal(*scores, rel=0.05)


def test_landscape_measures_of_a_series_are_those_of_the_cpu(tmp_path: Path) -> None:
    series = write_series(tmp_path / "series", (0,))
    tables = [
        analyze(series, tmp_path / name, device, "--measures", "gradient_rank,hessian", "--tasks", "ADD")
        for name, device in (("here", "cpu"), ("there", DEVICE))
    ]
    check_equal(*tables, rel=2e-3, absolute=1e-4)


def test_the_study_is_priced(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--size", "nano", "--steps", "3", "--sample", "10", "--device", DEVICE, "--dtype", "bfloat16"]
    assert cli(["price", *few, *["--no-cuda-graphs"] * (not GRAPHS)]) == 0
    assert f"{'cuda:0' if GRAPHS else DEVICE}, bfloat16" in capsys.readouterr().out
