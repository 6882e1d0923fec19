"""Training runs: the study's sizes, weights kept or not, going on for longer, divergence, frozen blocks."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
import psutil  # type: ignore[import-untyped]
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import load_file

from pythiageo.claims import trained_tasks
from pythiageo.cli.app import run as cli
from pythiageo.config.runs import TrainConfig, load_config
from pythiageo.config.tables import ComputeConfig
from pythiageo.estimate.study_cost import Price
from pythiageo.events import events
from pythiageo.observations import read_manifest, read_observations
from pythiageo.probes.task import GeneratorTask, load_tasks
from pythiageo.runs.build_training import checkpoint_steps, resolve, shape_of, training_memory
from pythiageo.study.sizes import SIZES
from pythiageo.study.tasks import TASKS as STUDY_TASKS
from pythiageo.synthetic.batches import TaskMix, task_batches
from pythiageo.synthetic.model import Decoder, Shape
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


def test_small_models_take_one_thread_and_wide_ones_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pythiageo.runs.build_training.count_cores", lambda: 8)
    assert [study(size).compute.threads for size in SIZES] == [1, 1, 1, 8, 8, 8]
    config = load_config(Path("billa-v4.toml"), ["model.size=large", "compute.threads=3"], "train")
    assert isinstance(config, TrainConfig)
    assert resolve(config).compute.threads == 3
    assert resolve(study("large").model_copy(update={"compute": ComputeConfig()}), at_once=3).compute.threads == 2


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
        (["nano.toml", "--weights", "some"], "training.weights"),
        (
            ["nano.toml", "--regime", "mix:1.5"],
            "expected task-aligned, naturalistic or mix:P with a share P between 0 and 1",
        ),
        (["nano.toml", "--regime", "text"], "expected task-aligned, naturalistic or mix:P"),
        (["nano.toml", "--set", "regime=mix:0.5"], "regime: expected task-aligned or naturalistic for this data"),
        (["nano.toml", "--set", "data.source=mix"], "data.task_share belongs to data.source = 'mix'"),
        (["nano.toml", "--set", "regime=natural"], "expected task-aligned, naturalistic or a mixture"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["train", *arguments, "--dry-run"]) == 2
    assert message in capsys.readouterr().err


def test_a_mixture_is_trained_and_told(tmp_path: Path) -> None:
    few = ["--set", 'training.checkpoints="0,4"', "--set", "training.stop=4"]
    assert train(tmp_path / "mix", *few, "--regime", "mix:0.25") == 0
    table, manifest = read_observations(tmp_path / "mix"), read_manifest(tmp_path / "mix")
    assert set(table["regime"]) == {"mix:0.25"} == {manifest["regime"]}
    assert manifest["corpus"]["train_tokens"] > 0
    assert {"accuracy", "held_out_loss"} <= set(table["measure"])
    probes = ["--tasks", "MOD", "--set", "probes.score_examples=4", "--set", "probes.geometry_examples=6"]
    assert cli(["analyze", str(tmp_path / "mix"), "--out", str(tmp_path / "again"), "--steps", "4", *probes]) == 0
    assert set(read_observations(tmp_path / "again")["regime"]) == {"mix:0.25"}


def test_tasks_with_shuffled_answers_are_controls_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--set", 'training.checkpoints="0,4"', "--set", "training.stop=4", "--set", 'data.tasks=["ADD","COPY"]']
    assert train(tmp_path / "a", *few, "--set", 'data.shuffled=["COP"]') == 2
    assert "data.shuffled: 'COP' is not among the run's tasks (did you mean 'COPY'?)" in capsys.readouterr().err
    assert train(tmp_path / "b", *few, "--set", 'data.shuffled=["COPY"]') == 0
    assert trained_tasks(read_manifest(tmp_path / "b")) == ("ADD",)
    assert set(read_observations(tmp_path / "b")["task"].drop_nulls()) == {*STUDY_TASKS}


def test_measure_only_has_the_same_observations_and_can_be_resumed(tmp_path: Path) -> None:
    steps = ["--set", 'training.checkpoints="0-8:4"']
    assert train(tmp_path / "keep", *steps, "--set", "training.stop=8") == 0
    only = [*steps, "--weights", "measure-only"]
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
    manifest = read_manifest(tmp_path / "a").as_json()
    del manifest["config"]["training"]["weights"]
    manifest["provenance"]["git_commit"] = "an older one"
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest))
    assert train(tmp_path / "a", *settings, "--resume") == 0
    assert train(tmp_path / "a", *settings, "--resume") == 0
    # what the older code measured stays told, once
    [before] = read_manifest(tmp_path / "a")["earlier_provenance"]
    assert (before["git_commit"], before["last_step"]) == ("an older one", 6)
    assert read_manifest(tmp_path / "a")["provenance"]["git_commit"] != "an older one"


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


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()][1:]


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    settings = ["--set", 'training.checkpoints="0-12:1"', "--set", "training.stop=12"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines",
        "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_ip", "127.0.0.1",
        "--main_process_port", str(port),
    ]  # fmt: skip
    done = subprocess.run(
        [*launch, "-m", "pythiageo", "train", *TINY, *settings, "--out", str(tmp_path / "two")],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert train(tmp_path / "one", *settings) == 0
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    one, two = (load_file(tmp_path / name / "checkpoints/step12/model.safetensors") for name in ("one", "two"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5
    assert read_manifest(tmp_path / "two")["training"]["processes"] == 2
    tokens = [read_manifest(tmp_path / name)["training"]["tokens"] for name in ("one", "two")]
    assert tokens[0] == tokens[1]


def test_processes_that_cannot_share_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "9")
    assert train(tmp_path / "a", "--set", "training.stop=2") == 2
    assert "a batch of 8 examples cannot be shared by 9 processes" in capsys.readouterr().err
    assert cli(["train", "demo/tasks.toml", "demo/english.toml"]) == 2
    assert "give one config" in capsys.readouterr().err


def test_people_see_loss_speed_and_what_is_acquired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = [argument for argument in TINY if argument != "--quiet"]
    settings = ["--set", 'training.checkpoints="0-8:2"', "--set", "training.stop=8"]
    assert cli(["train", *told, *settings, "--out", str(tmp_path / "a")]) == 0
    shown = capsys.readouterr().err
    assert re.search(r"demo-tasks: \d/8 loss \d\.\d{3}, [\d.]+ steps/s, \d+ of 24 acquired", shown)
    log = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [0, 2, 4, 6, 8]
    assert all(line["seconds"]["measuring"] > 0 for line in log)
    table = read_observations(tmp_path / "a")
    wanted = events(table, "billa-v4").filter((pl.col("event") == "acquisition") & (pl.col("status") == "found"))
    assert log[-1]["acquired"] == wanted.height
    assert log[-1]["loss"] == read_manifest(tmp_path / "a")["training"]["last_batch_loss"]


def test_tensorboards_files_are_written_on_request(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore

    settings = ["--set", 'training.checkpoints="0,20"', "--set", "training.stop=20", "--tensorboard"]
    assert train(tmp_path / "a", *settings) == 0
    files = EventAccumulator(str(tmp_path / "a" / "tensorboard"))
    files.Reload()
    assert [event.step for event in files.Scalars("loss")] == [10, 20]
    assert files.Scalars("loss")[-1].value == pytest.approx(losses(tmp_path / "a")[-1], rel=1e-6)
    assert [event.step for event in files.Scalars("accuracy/MOD/L1")] == [0, 20]


def test_without_tensorboard_it_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert train(tmp_path / "a", "--set", "training.stop=2", "--tensorboard") == 2
    assert "pip install 'pythiageo[tensorboard]'" in capsys.readouterr().err


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
            task_batches(TaskMix(tuple(tasks), ("L1",)), 8, 0),
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


def test_the_price_counts_each_size_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def timed(sets: list[str], steps: int, sample: int, expensive: bool) -> Price:
        size = "nano" if 'model.size="nano"' in sets else "micro"
        threads = 2 if "compute.threads=2" in sets else 1
        return Price(
            size, "cpu", threads, 3600, 0, {("nano", 2): 1.0, ("micro", 1): 4.0}.get((size, threads), 9.0), 0.0, None
        )

    monkeypatch.setattr("pythiageo.estimate.study_cost.time_size", timed)
    assert cli(["price", "--size", "nano,micro", "--threads", "1,2"]) == 0
    shown = capsys.readouterr().out
    assert "2 sizes x 3 seeds: 15.0 hours of this machine, each with the threads that suit it best" in shown
    assert len([line for line in shown.splitlines() if line.split()[:1] in (["nano"], ["micro"])]) == 4


def test_the_price_is_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["price", "--size", "nano", "--steps", "1", "--sample", "10", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    [nano] = found["sizes"]
    assert (nano["size"], nano["steps"], nano["checkpoints"], nano["expensive"]) == ("nano", 100_000, 206, None)
    assert nano["step"] > 0
    assert nano["cheap"] > 0
    assert nano["hours"] == pytest.approx((100_000 * nano["step"] + 206 * nano["cheap"]) / 3600)
    assert found["total_hours"] == pytest.approx(3 * nano["hours"])
    assert cli(["price", "--size", "nano,nano"]) == 2
    assert cli(["price", "--size", "nano", "--threads", "1,x"]) == 2
    assert cli(["price", "--size", "huge"]) == 2
