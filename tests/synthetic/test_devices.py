"""A step on another device, in bfloat16, and as a recorded graph: what can be known of it without a GPU."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pythiageo.cli.app import run as cli
from pythiageo.config.runs import TrainConfig, load_config
from pythiageo.errors import UserError
from pythiageo.measurement.probe_loss import live_logits, problem_of, shared_problem_of
from pythiageo.observations import read_manifest
from pythiageo.probes.encoding import CharacterTokenizer, encode_probe_set
from pythiageo.probes.probeset import make_probe_set
from pythiageo.probes.task import GeneratorTask, load_tasks
from pythiageo.runs.build_training import build_model, make_trainer, resolve
from pythiageo.synthetic.batches import Batches, TaskMix, task_batches
from pythiageo.synthetic.losses import lower_to_bfloat16
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.recorded import Recording, State, Step, padded_loss, take_back
from pythiageo.synthetic.trainable import ARCHITECTURES, Trainable
from pythiageo.synthetic.trainer import Freeze, LossOf, Optimiser, Schedule, Trainer, batch_loss

SHAPE = Shape(2, 32, 4, 64, 48, 41, False)
TASKS = [task for name in ("ADD", "COPY", "CMP") if isinstance(task := load_tasks()[name], GeneratorTask)]
ARCHITECTURE = pytest.mark.parametrize("architecture", ARCHITECTURES)


def batches(size: int = 16) -> Batches:
    return task_batches(TaskMix(tuple(TASKS), ("L1", "L3")), size, seed=3)


def losses(trainable: Trainable, loss_of: LossOf | None, steps: int, recording: Recording | None = None) -> list[float]:
    settings = Schedule(3e-3, 5, 100), Optimiser((0.9, 0.95), 0.1, 1.0)
    trainer = Trainer(trainable, batches(), *settings, loss_of=loss_of, recording=recording)
    found = []
    for _ in range(steps):
        trainer.advance()
        found.append(trainer.loss)
    return found


@pytest.fixture
def no_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPTNeoX of transformers reads one number back to see whether texts were packed: they never are here."""
    monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", lambda _: None)


@ARCHITECTURE
@pytest.mark.usefixtures("no_packing")
def test_a_step_leaves_no_tensor_behind_and_never_waits(architecture: str) -> None:
    """The meta device has no values: it refuses tensors of the CPU, and anything that would be read back."""
    trainable = ARCHITECTURES[architecture](SHAPE, 1)
    trainable.module.to("meta")
    loss = batch_loss(trainable, batches()(0))
    loss.backward()
    assert loss.device.type == "meta"
    gradients = [parameter.grad for parameter in trainable.module.parameters()]
    assert all(gradient is not None and gradient.device.type == "meta" for gradient in gradients)


@ARCHITECTURE
@pytest.mark.usefixtures("no_packing")
def test_the_losses_of_a_landscape_are_where_the_model_is(architecture: str) -> None:
    trainable = ARCHITECTURES[architecture](SHAPE, 1)
    encoded = encode_probe_set(make_probe_set(TASKS[0], "L1", 6, 0), CharacterTokenizer())
    trainable.module.to("meta")
    for problem in (
        problem_of(trainable.module, live_logits(trainable), encoded),
        shared_problem_of(trainable.module, trainable.scored_logits, encoded),
    ):
        for piece in problem.pieces:
            each = problem.piece_losses(piece)
            torch.autograd.grad(each.sum(), list(problem.parameters.values()))
            assert each.device.type == "meta"


class Plainly:
    """What a recorded graph does, done anew each time, after steps that are taken back as before a recording."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, step: Step, state: State) -> Step:
        self.recorded += 1
        before = {name: tensor.clone() for name, tensor in state().items()}
        for _ in range(2):
            step()
        take_back(before, state())
        return step


@ARCHITECTURE
def test_a_recorded_step_has_the_same_losses(architecture: str) -> None:
    make, record = ARCHITECTURES[architecture], Plainly()
    usual = losses(make(SHAPE, 1), None, 40)
    padded = losses(make(SHAPE, 1), None, 40, Recording(16, SHAPE.context, padded_loss, record))
    assert padded == pytest.approx(usual, abs=1e-5)
    assert usual[-1] < usual[0] - 0.5
    assert record.recorded == 1


def test_a_recorded_step_is_recorded_anew_when_a_block_thaws_and_after_loading(tmp_path: Path) -> None:
    def trainer(record: Plainly | None) -> Trainer:
        return Trainer(
            ARCHITECTURES["gpt2"](SHAPE, 1), batches(), Schedule(3e-3, 5, 100), Optimiser((0.9, 0.95), 0.1, 1.0),
            freeze=Freeze(block=1, until=4), recording=record and Recording(16, SHAPE.context, padded_loss, record),
        )  # fmt: skip

    record = Plainly()
    usual, recorded = trainer(None), trainer(record)
    for step in range(8):
        usual.advance()
        recorded.advance()
        assert recorded.loss == pytest.approx(usual.loss, abs=1e-5)
        if step == 5:
            recorded.save(tmp_path / "state")
            recorded.load(tmp_path / "state")
    assert record.recorded == 3


def test_a_step_in_bfloat16_keeps_float32_state_and_learns_alike() -> None:
    trainable = ARCHITECTURES["gpt2"](SHAPE, 1)
    seen: list[torch.dtype] = []
    lowered = lower_to_bfloat16(batch_loss)

    def watched(model: Trainable, batch: object) -> Tensor:
        loss = lowered(model, batch)  # type: ignore[arg-type]
        seen.append(loss.dtype)
        return loss

    usual = losses(ARCHITECTURES["gpt2"](SHAPE, 1), None, 60)
    found = losses(trainable, watched, 60)
    assert {*seen} == {torch.float32} == {parameter.dtype for parameter in trainable.module.parameters()}
    assert found != usual
    # 8 bits of mantissa: 0.4% a product; the loss falls by half meanwhile
    assert found == pytest.approx(usual, rel=0.03)


def config(*sets: str) -> TrainConfig:
    found = load_config(Path("billa-v4.toml"), ["model.size=nano", *sets], "train")
    assert isinstance(found, TrainConfig)
    return resolve(found)


def test_dtype_is_a_setting_of_training_and_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lowered = config("training.dtype=bfloat16")
    steps = [make_trainer(each, *build_model(each), None) for each in (lowered, config())]
    for trainer in steps:
        trainer.advance()
    assert steps[0].loss != steps[1].loss
    assert math.isclose(steps[0].loss, steps[1].loss, rel_tol=0.01)
    tiny = ["demo/tasks.toml", "--set", "model.layers=1", "--set", "model.d_model=16", "--set", "training.stop=2"]
    few = ["--set", "probes.score_examples=4", "--set", "probes.geometry_examples=6", "--quiet"]
    assert cli(["train", *tiny, *few, "--out", str(tmp_path / "low"), "--dtype", "bfloat16"]) == 0
    assert read_manifest(tmp_path / "low")["config"]["training"]["dtype"] == "bfloat16"
    capsys.readouterr()
    assert cli(["train", *tiny, "--set", "compute.dtype=bfloat16", "--dry-run"]) == 2
    assert "training.dtype is that of its steps" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["train", "nano.toml", "--device", "cuda", "--dry-run"]) == 2
    assert "device 'cuda': there is no GPU that torch can use" in capsys.readouterr().err
    assert cli(["train", "nano.toml", "--device", "cuda", "--dry-run", "--engine", "ray"]) == 0  # on its nodes
    graphs = config("training.cuda_graphs=true")
    with pytest.raises(UserError, match="cuda_graphs needs a GPU"):
        make_trainer(graphs, *build_model(graphs), None)
