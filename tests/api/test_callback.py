"""A training that is somebody else's: measured on the way, undisturbed to the last bit, and gone on with."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from inmemory import FEW, characters, neox
from transformers import PreTrainedTokenizerFast, Trainer, TrainerCallback, TrainingArguments

import pythiageo
from pythiageo.cli.app import run as cli
from pythiageo.errors import CheckpointError, MachineError, UserError
from pythiageo.observations import read_observations
from pythiageo.runs import follow as following
from pythiageo.series.files.load import open_folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    return characters(tmp_path_factory.mktemp("tokenizer"))


def examples() -> list[dict[str, Any]]:
    ids = torch.randint(3, 41, (32, 8), generator=torch.Generator().manual_seed(5)).tolist()
    return [{"input_ids": row, "labels": row} for row in ids]


def trainer(folder: Path, *callbacks: TrainerCallback, seed: int = 0, **changed: Any) -> Trainer:
    settings: dict[str, Any] = {
        "max_steps": 6, "save_strategy": "no", "logging_steps": 1, "learning_rate": 1e-2, "report_to": "none",
        "per_device_train_batch_size": 4, "disable_tqdm": True, "use_cpu": True, "seed": 7,
    }  # fmt: skip
    arguments = TrainingArguments(output_dir=str(folder), **{**settings, **changed})
    return Trainer(neox(seed, dropout=0.1), arguments, train_dataset=examples(), callbacks=list(callbacks))


def measuring(tokenizer: Any, out: Path, **changed: Any) -> pythiageo.MeasureCallback:
    asked: dict[str, Any] = {"name": "followed", "steps": "every:2", "measures": "rankme", "out": out,
                             "readouts": "answer/centred", "settings": FEW, "tokenizer": tokenizer}  # fmt: skip
    return pythiageo.MeasureCallback("ADD", **{**asked, **changed})


def losses(finished: Trainer) -> list[float]:
    return [line["loss"] for line in finished.state.log_history if "loss" in line]


def test_training_is_as_it_would_be_without(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    callback = measuring(tokenizer, tmp_path / "run", measures=["rankme", "gradient_rank", "linear_probe"])
    alone = trainer(tmp_path / "a")
    alone.train()
    watched = trainer(tmp_path / "b", callback)  # only now: it sets the seed
    watched.train()
    assert len(losses(alone)) == 6
    assert losses(alone) == losses(watched)
    for one, other in zip(alone.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert watched.model.training == alone.model.training
    run = pythiageo.open_run(tmp_path / "run")
    assert sorted(set(run.observations["step"])) == [0, 2, 4, 6]
    assert set(run.observations["status"]) == {"ok"}
    assert run.manifest["status"] == "complete"
    assert run.manifest["kind"] == "follow"
    assert run.manifest["training"]["step"] == 6
    assert run.manifest["training"]["schedule"] == "linear"
    assert run.config["seed"] == 7


def test_the_run_is_one_that_every_command_reads(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    callback = measuring(tokenizer, out, weights="keep")
    trainer(tmp_path / "t", callback, include_num_input_tokens_seen=True, disable_tqdm=False).train()
    assert f"4 checkpoints measured into {out}" in capsys.readouterr().out
    assert cli(["report", str(out), "--out", str(tmp_path / "r.html")]) == 0
    assert cli(["export", str(out), "--wide", "--format", "csv"]) == 0
    assert cli(["runs", "show", str(out)]) == 0
    capsys.readouterr()
    # kept weights, analyzed as any folder of checkpoints, give the very same table
    few = [part for key, value in FEW.items() for part in ("--set", f"{key}={value}")]
    assert cli(["analyze", str(out), "--tasks", "ADD", "--measures", "rankme", "--readouts", "answer/centred",
                "--name", "again", "--out", str(tmp_path / "again"), "--quiet", *few]) == 0  # fmt: skip
    assert cli(["compare", str(out), str(tmp_path / "again")]) == 0
    found, again = read_observations(out), read_observations(tmp_path / "again")
    identity = ["run", "series", "size"]
    assert found.drop(identity).equals(again.drop(identity))
    assert found["tokens"].unique().sort().to_list() == [0, 64, 128, 192]


def test_saves_are_measured(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    callback = measuring(tokenizer, tmp_path / "run", steps="saves")
    trainer(tmp_path / "t", callback, save_strategy="steps", save_steps=3, max_steps=7).train()
    assert sorted(set(read_observations(tmp_path / "run")["step"])) == [0, 3, 6, 7]
    saved = json.loads((tmp_path / "run" / "manifest.json").read_text())["checkpoints"][1]
    # the weights are those of the trainer's own checkpoint
    assert open_folder(tmp_path / "t" / "checkpoint-3", "t").weight_sha == saved["weight_sha"]


def test_a_training_that_is_gone_on_with_goes_on_with_its_run(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 5:
                raise KeyboardInterrupt

    callback = measuring(tokenizer, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "b", callback, Stop(), save_strategy="steps", save_steps=3).train()
    first = read_observations(tmp_path / "run")
    assert set(first["step"]) == {0, 2, 4}
    with pytest.raises(UserError, match="holds a run already: overwrite=True"):
        trainer(tmp_path / "c", measuring(tokenizer, tmp_path / "run")).train()
    saved = str(tmp_path / "b" / "checkpoint-3")
    with caplog.at_level(logging.WARNING, "pythiageo"):
        again = trainer(tmp_path / "b", measuring(tokenizer, tmp_path / "run"), max_steps=8)
        again.train(resume_from_checkpoint=saved)
    assert "from step 3: 4 measured before are measured again" in caplog.text
    alone = trainer(tmp_path / "c", max_steps=8)
    alone.train(resume_from_checkpoint=saved)
    assert losses(again) == losses(alone)
    table = read_observations(tmp_path / "run")
    assert sorted(set(table["step"])) == [0, 2, 4, 6, 8]
    assert table.filter(pl.col("step") < 3).equals(first.filter(pl.col("step") < 3))
    last = pythiageo.measure(again.model, tokenizer, "ADD", measures="rankme", readouts="answer/centred",
                             settings=FEW, step=8)  # fmt: skip
    identity = ["run", "series", "size", "seed"]
    assert table.filter(pl.col("step") == 8).drop(identity).equals(last.drop(identity))


def test_another_training_is_not_taken_for_the_one_that_the_run_followed(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    for seed, name in ((0, "mine"), (1, "theirs")):
        callback = measuring(tokenizer, tmp_path / f"{name}-run")
        trainer(tmp_path / name, callback, seed=seed, **saving).train()
    stranger = trainer(tmp_path / "theirs", measuring(tokenizer, tmp_path / "mine-run"), max_steps=4)
    with pytest.raises(UserError, match="other weights were measured at step 2"):
        stranger.train(resume_from_checkpoint=str(tmp_path / "theirs" / "checkpoint-2"))
    assert set(read_observations(tmp_path / "mine-run")["step"]) == {0, 2}


def test_a_mistake_is_said_before_anything_is_trained(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match="L9"):
        trainer(tmp_path / "a", measuring(tokenizer, tmp_path / "run", settings={"probes.levels": ["L9"]})).train()
    with pytest.raises(UserError, match="steps 'now and then'"):
        trainer(tmp_path / "a", measuring(tokenizer, tmp_path / "run", steps="now and then")).train()
    wrong = trainer(tmp_path / "a", measuring(tokenizer, tmp_path / "run", layers="9"))
    with pytest.raises(UserError, match="not within the model's layers"):
        wrong.train()
    assert wrong.state.global_step == 0
    with pytest.raises(UserError, match="expected a tokenizer, here or as"):
        trainer(tmp_path / "a", measuring(None, tmp_path / "run")).train()
    with pytest.raises(UserError, match="which steps are saved is not known before"):
        measuring(tokenizer, tmp_path / "run", steps="saves", measures=["llc"])
    # what a mistake left behind is no run to be kept
    trainer(tmp_path / "a", measuring(tokenizer, tmp_path / "run"), max_steps=1).train()
    assert set(read_observations(tmp_path / "run")["step"]) == {0, 1}


def test_a_step_that_cannot_be_measured_stops_no_training(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    write = following.write_snapshot

    def failing(model: Any, tokenizer: Any, folder: Path) -> None:
        if folder.name == "step2":
            raise MachineError("the disk is full")
        if folder.name == "step4":
            raise CheckpointError("no copy")
        write(model, tokenizer, folder)

    monkeypatch.setattr(following, "write_snapshot", failing)
    with caplog.at_level(logging.WARNING, "pythiageo"):
        finished = trainer(tmp_path / "t", measuring(tokenizer, tmp_path / "run"))
        finished.train()
    assert finished.state.global_step == 6
    assert "step 2 is not measured, training goes on: the disk is full" in caplog.text
    table = read_observations(tmp_path / "run")
    assert table.filter(pl.col("status") != "ok").select("step", "status", "reason").rows() == [
        (4, "unreadable", "no copy")
    ]
    assert set(table["step"]) == {0, 4, 6}


def test_numbers_reach_the_trainers_own_logs(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    class Tracker(TrainerCallback):  # as W&B's, TensorBoard's and trackio's are
        def __init__(self) -> None:
            self.seen: list[tuple[int, dict[str, float]]] = []

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            self.seen.append((state.global_step, dict(logs)))

    alone = trainer(tmp_path / "a")
    alone.train()
    tracker = Tracker()
    watched = trainer(tmp_path / "b", tracker)
    watched.add_callback(measuring(tokenizer, tmp_path / "run", log=watched.log))
    watched.train()
    assert losses(watched) == losses(alone)
    table = read_observations(tmp_path / "run")
    kept = table.filter(measure="rankme", site="blocks.1.hook_resid_post").select("step", "value").rows()
    history = watched.state.log_history
    name = "pythiageo/rankme/ADD"
    assert [(line["step"], line[name]) for line in history if name in line] == kept
    assert [(step, logs[name]) for step, logs in tracker.seen if name in logs] == kept
    assert all(isinstance(value, float | int) for line in history for value in line.values())
