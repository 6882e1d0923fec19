"""Training runs: the study's sizes, weights kept or not, going on for longer, divergence, frozen blocks."""

from __future__ import annotations

import json
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import load_file

from pythiageo.cli.app import run as cli
from pythiageo.observations import read_manifest, read_observations
from pythiageo.probes.task import GeneratorTask, load_tasks
from pythiageo.runs.building import checkpoint_steps, resolve, shape_of, training_memory
from pythiageo.runs.config import TrainConfig, load_config
from pythiageo.synthetic.batches import task_batches
from pythiageo.synthetic.model import Decoder, Shape
from pythiageo.synthetic.sizes import SIZES
from pythiageo.synthetic.trainable import ARCHITECTURES
from pythiageo.synthetic.trainer import Freeze, Optimiser, Schedule, Trainer

TINY = [
    "demo/tasks.toml",
    "--set", "model.layers=2", "--set", "model.d_model=16", "--set", "model.heads=2", "--set", "model.d_ff=32",
    "--set", "training.batch_size=8", "--set", "training.warmup=5", "--set", "probes.score_examples=4",
    "--set", "probes.geometry_examples=6", "--set", 'measures.readouts=["answer/centred"]', "--quiet",
]  # fmt: skip


def train(out: Path, *arguments: str) -> int:
    return cli(["train", *TINY, "--out", str(out), *arguments])


def study(size: str) -> TrainConfig:
    config = load_config(Path("billa-v4.toml"), [f"model.size={size}"], "train")
    assert isinstance(config, TrainConfig)
    return resolve(config)


@pytest.mark.parametrize("size", SIZES)
def test_the_studys_sizes(size: str) -> None:
    config = study(size)
    shape = shape_of(config)
    assert shape.parameters == pytest.approx(SIZES[size].published_parameters, rel=0.01)
    steps = checkpoint_steps(config)
    long = size in {"medium", "large", "xlarge"}
    assert (steps[0], steps[-1], len(steps)) == (0, 200_000 if long else 100_000, 256 if long else 206)
    assert config.training.peak_lr == (1e-4 if long else 3e-4)
    assert (config.probes.score_examples, config.probes.geometry_examples) == (1000, 200)
    assert (config.training.batch_size, config.training.warmup, config.training.clip) == (64, 1000, 1.0)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("layers", "d_model", "d_ff"), [(1, 8, 32), (3, 16, 40)])
def test_parameters_by_their_formula(bias: bool, layers: int, d_model: int, d_ff: int) -> None:
    shape = Shape(layers, d_model, 2, d_ff, 20, 41, bias)
    built = Decoder(shape, torch.Generator())
    assert shape.parameters == sum(parameter.numel() for parameter in built.parameters())


def test_the_study_is_trained_without_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["train", "--protocol", "billa-v4", "--size", "micro", "--seed", "7", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "micro-7" in shown
    assert "1,788,288" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a config, or --protocol billa-v4 with --size and --seed"),
        (["--protocol", "billa-v4"], "needs a --size: nano, micro"),
        (["--protocol", "billa-v9", "--size", "nano"], "nothing is trained as 'billa-v9'; there is billa-v4"),
        (["nano.toml", "--protocol", "billa-v4"], "takes the place of a config"),
        (["nano.toml", "--size", "nanoo"], r"no size 'nanoo' (did you mean 'nano'?)"),
        (["nano.toml", "--freeze-block", "2", "--freeze-until", "9"], "there is no block 2: a model of 2 has 0 to 1"),
        (["nano.toml", "--freeze-block", "1"], "freeze_block and freeze_until belong together"),
        (["nano.toml", "--checkpoints", "some"], "training.weights"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["train", *arguments, "--dry-run"]) == 2
    assert message in capsys.readouterr().err


def test_measure_only_has_the_same_observations_and_can_be_resumed(tmp_path: Path) -> None:
    steps = ["--set", 'training.checkpoints="0-8:4"']
    assert train(tmp_path / "keep", *steps, "--set", "training.stop=8") == 0
    only = [*steps, "--checkpoints", "measure-only"]
    assert train(tmp_path / "only", *only, "--set", "training.stop=4") == 0
    assert train(tmp_path / "only", *only, "--set", "training.stop=8", "--resume") == 0
    assert not (tmp_path / "only" / "checkpoints").exists()
    assert_frame_equal(read_observations(tmp_path / "keep"), read_observations(tmp_path / "only"))


def test_a_lengthened_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    grid, coarse = ['training.checkpoints="0-12:3"', 'training.checkpoints="0-6:3"']
    assert train(tmp_path / "whole", "--set", grid, "--set", "training.stop=12") == 0
    assert train(tmp_path / "parts", "--set", coarse, "--set", "training.stop=6") == 0
    assert train(tmp_path / "parts", "--set", grid, "--set", "training.stop=12", "--resume") == 0
    assert_frame_equal(read_observations(tmp_path / "whole"), read_observations(tmp_path / "parts"))
    last = [load_file(tmp_path / name / "checkpoints/step12/model.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])
    assert read_manifest(tmp_path / "parts")["config"]["training"]["stop"] == 12


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["seed=3"], "holds a run of another config; seed differ"),
        (["training.peak_lr=1e-3"], "training.peak_lr differ"),
        (["training.stop=3"], "training is at step 6 already, beyond training.stop 3"),
        (["training.stop=9", 'training.checkpoints="0-9:1"'], "step 1 was not measured, and training is at step 6"),
    ],
)
def test_another_config_is_not_gone_on_with(
    tmp_path: Path, changed: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--set", 'training.checkpoints="0-6:3"', "--set", "training.stop=6"]
    assert train(tmp_path / "a", *settings) == 0
    sets = [part for change in changed for part in ("--set", change)]
    assert train(tmp_path / "a", *settings, *sets, "--resume") == 2
    assert message in capsys.readouterr().err
    assert read_observations(tmp_path / "a")["step"].max() == 6


def test_a_setting_that_is_new_does_not_stop_an_old_run(tmp_path: Path) -> None:
    settings = ["--set", 'training.checkpoints="0-6:3"', "--set", "training.stop=6"]
    assert train(tmp_path / "a", *settings) == 0
    manifest = read_manifest(tmp_path / "a")
    del manifest["config"]["training"]["weights"]
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest))
    assert train(tmp_path / "a", *settings, "--resume") == 0


def test_a_diverged_run_stops_with_what_was_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wild = [
        "--set", "training.peak_lr=1e30", "--set", "training.clip=1e30", "--set", "training.warmup=5",
        "--set", "training.stop=40", "--set", 'training.checkpoints="0-40:1"',
    ]  # fmt: skip
    assert train(tmp_path / "a", *wild) == 1
    assert "is NaN or infinite, so training stops" in capsys.readouterr().err
    manifest = read_manifest(tmp_path / "a")
    assert manifest["status"] == "diverged"
    assert "is NaN or infinite" in manifest["training"]["reason"]
    kept = read_observations(tmp_path / "a")
    assert 0 < kept["step"].max() < 40  # type: ignore[operator]
    assert (tmp_path / "a" / "checkpoints" / "step1" / "model.safetensors").is_file()
    assert train(tmp_path / "a", *wild, "--resume") == 1  # the same step again


def test_a_size_beyond_memory_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    needed = training_memory(study("xlarge"), shape_of(study("xlarge")))
    assert needed > 16 * 151e6  # weights, gradient, two moments

    class Memory:
        available = needed - 1

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory)
    assert cli(["train", "--protocol", "billa-v4", "--size", "xlarge", "--dry-run"]) == 3
    assert f"takes about {needed / 1e9:.1f} GB of memory" in capsys.readouterr().err


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("block", [0, 1])
def test_a_frozen_block_does_not_move(architecture: str, block: int, tmp_path: Path) -> None:
    tasks = [task for name in ("COPY", "MOD") if isinstance(task := load_tasks()[name], GeneratorTask)]

    def trainer(freeze: Freeze | None) -> Trainer:
        trainable = ARCHITECTURES[architecture](Shape(2, 16, 2, 32, 48, 41, False), 0)
        return Trainer(
            trainable,
            task_batches(tasks, ["L1"], 8, 0),
            Schedule(1e-2, 1, 100),
            Optimiser((0.9, 0.95), 0.1, 1.0),
            freeze,
        )

    def moved(one: Trainer, before: list[torch.Tensor]) -> list[bool]:
        return [not torch.equal(a, b) for a, b in zip(before, one._trainable.module.parameters(), strict=True)]

    one = trainer(Freeze(block, 3))
    start = [p.detach().clone() for p in one._trainable.module.parameters()]
    inside = {id(p) for p in one._trainable.block(block).parameters()}
    frozen = [id(p) in inside for p in one._trainable.module.parameters()]
    for _ in range(3):
        one.advance()
    assert moved(one, start) == [not still for still in frozen]
    one.save(tmp_path / "state.safetensors")
    again = trainer(Freeze(block, 3))
    again.load(tmp_path / "state.safetensors")
    for each in (one, again):
        each.advance()
        assert all(moved(each, start))
    assert not any(moved(again, [p.detach() for p in one._trainable.module.parameters()]))
    free = trainer(None)
    for _ in range(4):
        free.advance()
    assert any(moved(free, [p.detach() for p in one._trainable.module.parameters()]))
