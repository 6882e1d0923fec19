"""Training on a GPU: the CPU's losses, the same bits twice, and each faster way against the plain one.

For a machine that has one (``make gpu``): what can be known without is in test_devices.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from pythiageo.cli.app import run as cli
from pythiageo.config.runs import TrainConfig, load_config
from pythiageo.observations import read_manifest, read_observations
from pythiageo.runs.build_training import build_model, make_trainer, resolve

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

TINY = [
    "demo/tasks.toml", "--set", "model.layers=2", "--set", "model.d_model=32", "--set", "model.heads=2",
    "--set", "model.d_ff=64", "--set", "probes.score_examples=20", "--set", "probes.geometry_examples=20",
    "--set", 'training.checkpoints="0-20:10"', "--quiet",
]  # fmt: skip


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
    assert losses(60, *shared, "compute.device=cuda") == pytest.approx(here, rel=1e-3)
    graphs = losses(60, *shared, "compute.device=cuda", "training.cuda_graphs=true")
    assert graphs == pytest.approx(here, rel=1e-3)


def test_bfloat16_is_near() -> None:
    shared = ["compute.device=cuda", "training.warmup=20"]
    plain = losses(100, *shared)
    assert losses(100, *shared, "training.dtype=bfloat16") == pytest.approx(plain, rel=0.05)
    both = losses(100, *shared, "training.dtype=bfloat16", "training.cuda_graphs=true")
    assert both == pytest.approx(plain, rel=0.05)


@pytest.mark.parametrize("faster", [[], ["--dtype", "bfloat16", "--set", "training.cuda_graphs=true"]])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, faster: list[str]) -> None:
    def train(name: str, stop: int, *more: str) -> None:
        arguments = [*TINY, "--device", "cuda", *faster, "--set", f"training.stop={stop}", *more]
        assert cli(["train", *arguments, "--out", str(tmp_path / name)]) == 0

    train("whole", 20)
    train("parts", 10)
    train("parts", 20, "--resume")
    assert read_manifest(tmp_path / "parts")["provenance"]["device"] == "cuda:0"
    assert_frame_equal(read_observations(tmp_path / "whole"), read_observations(tmp_path / "parts"))


def test_every_measure_is_that_of_the_cpu(tmp_path: Path) -> None:
    landscape = ["--set", 'measures.landscape.measures=["hessian","gradient_rank","llc"]', "--set", "training.stop=0"]
    tables = []
    for device in ("cpu", "cuda"):
        assert cli(["train", *TINY, *landscape, "--device", device, "--out", str(tmp_path / device)]) == 0
        tables.append(
            read_observations(tmp_path / device).filter(pl.col("measure") != "llc").select("measure", "value")
        )
    assert_frame_equal(*tables, rel_tol=2e-3, abs_tol=1e-5)


def test_the_study_is_priced(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--size", "nano", "--steps", "3", "--sample", "10"]
    assert cli(["price", *few, "--device", "cuda", "--dtype", "bfloat16", "--cuda-graphs"]) == 0
    assert "cuda:0, bfloat16" in capsys.readouterr().out
