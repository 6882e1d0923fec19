"""Memory: a checkpoint leaves nothing behind, no second copy of its weights is made, and plan says what a run takes."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from inmemory import FEW, characters, neox
from onhub import using
from safetensors.torch import save_file
from tinyseries import write_series
from transformers import TrainerControl, TrainerState, TrainingArguments

import pythiageo
from pythiageo.cli.app import run as cli
from pythiageo.errors import CheckpointError
from pythiageo.lens import BridgeReader
from pythiageo.observations import read_manifest
from pythiageo.series.files.fingerprint import PIECE, examine
from pythiageo.series.files.load import open_folder
from pythiageo.series.files.tensor_files import stored_tensors
from pythiageo.series.hub.loopback import LoopbackHub, serve_folder
from pythiageo.series.sources.folder import FolderCheckpoint
from pythiageo.series.sources.hub import HubSeries
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint

PROBES = ["--tasks", "ADD", "--set", "probes.score_examples=4", "--set", "probes.geometry_examples=9", "--quiet"]
LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is told by Linux alone")


class Opened:
    """Every model that was opened through TransformerLens, and what is left of them."""

    def __init__(self) -> None:
        self.models: list[weakref.ref[Any]] = []
        self.tensors: list[weakref.ref[Any]] = []
        self.left: list[int] = []
        """How many models were there, each time that one was opened."""

    def note(self, model: torch.nn.Module) -> None:
        self.models.append(weakref.ref(model))
        self.left.append(sum(one() is not None for one in self.models))

    @property
    def alive(self) -> int:
        return sum(one() is not None for one in [*self.models, *self.tensors])


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Notes what is opened, with the garbage collector off."""
    known, opening = Opened(), BridgeReader.__init__

    def noting(self: BridgeReader, model: torch.nn.Module, *arguments: Any, **named: Any) -> None:
        known.note(model)
        known.tensors += [weakref.ref(parameter) for parameter in model.parameters()]
        opening(self, model, *arguments, **named)
        known.tensors += [weakref.ref(parameter) for parameter in self._bridge.parameters()]

    monkeypatch.setattr(BridgeReader, "__init__", noting)
    gc.collect()
    gc.disable()
    yield known
    gc.enable()


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def test_checkpoints_leave_nothing_behind(tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    size = Shape(2, 256, 4, 1024, 48, 41, True)
    for step in range(9):
        write_checkpoint(tmp_path / "s" / f"step{step}", ARCHITECTURES["gpt_neox"](size, seed=step), step, tokens=step)
    weights, sizes, noting = 4 * size.parameters, [], opened.note

    def weighing(model: torch.nn.Module) -> None:
        noting(model)
        sizes.append(resident())

    monkeypatch.setattr(opened, "note", weighing)
    every = "rankme,gradient_rank,hessian_trace"
    few = ["--set", 'measures.landscape.steps="5"', "--set", "measures.landscape.examples=4"]
    more = ["--measures", every, *few, "--set", "measures.linear_probe=true", "--set", "measures.bootstrap=2"]
    assert cli(["analyze", str(tmp_path / "s"), "--out", str(tmp_path / "run"), *PROBES, *more]) == 0
    assert opened.left == [1] * 9
    assert opened.alive == 0
    # half a megabyte each of small objects waits for the collector; the weights of six are 38 MB
    assert sizes[-1] - sizes[2] < 2.5 * weights


def test_a_checkpoint_that_cannot_be_opened_is_let_go(
    tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    booting, booted = TransformerBridge.boot_transformers, []

    def failing(*arguments: Any, **named: Any) -> Any:
        booted.append(weakref.ref(booting(*arguments, **named)))  # a bridge that is there, in its cycles
        raise ValueError("no adapter")

    monkeypatch.setattr(TransformerBridge, "boot_transformers", failing)
    series = write_series(tmp_path / "s", (0, 1))
    assert cli(["analyze", str(series), "--out", str(tmp_path / "run"), *PROBES]) == 1
    assert [entry["status"] for entry in read_manifest(tmp_path / "run")["checkpoints"]] == ["unreadable"] * 2
    assert len(booted) == 2
    assert not [one for one in opened.tensors if one() is not None]


def test_an_error_amid_measuring_lets_go_too(tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any, **named: Any) -> Any:
        raise CheckpointError("it breaks here")

    monkeypatch.setattr("pythiageo.measurement.checkpoint.observe", failing)
    series = write_series(tmp_path / "s", (0, 1))
    assert cli(["analyze", str(series), "--out", str(tmp_path / "run"), *PROBES]) == 1
    assert opened.alive == 0


def test_models_of_somebody_else_stay_and_their_copies_go(tmp_path: Path, opened: Opened) -> None:
    model, tokenizer = neox(), characters(tmp_path / "tokenizer")
    options: dict[str, Any] = {"measures": "rankme", "readouts": "answer/centred", "settings": FEW}
    pythiageo.measure(model, tokenizer, "ADD", **options)
    assert opened.alive == 0
    callback = pythiageo.MeasureCallback(
        "ADD", name="t", steps="all", tokenizer=tokenizer, out=tmp_path / "r", **options
    )
    arguments = TrainingArguments(output_dir=str(tmp_path / "t"), use_cpu=True, report_to="none")
    state, control = TrainerState(max_steps=2), TrainerControl()
    callback.on_train_begin(arguments, state, control, model=model)
    for state.global_step in (1, 2):
        callback.on_step_end(arguments, state, control)
    assert len(opened.models) == 4
    assert opened.left == [1] * 4
    assert opened.alive == 0
    assert model(torch.zeros(1, 3, dtype=torch.long)).logits.shape == (1, 3, 41)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeReader]:
    folder = write_series(tmp_path_factory.mktemp("r"), [0]) / "step0"
    with BridgeReader(open_folder(folder, "t").model, folder) as reader:
        yield reader


def test_a_pass_leaves_no_states_behind(reader: BridgeReader) -> None:
    def tensors() -> set[int]:
        return {id(one) for one in gc.get_objects() if type(one) is torch.Tensor and one.numel() >= 7 * 31}

    before = tensors()
    states, _ = reader.read(torch.zeros(7, 31, dtype=torch.long), list(reader.sites()), None)
    assert all(one.numel() == 7 * 31 * 64 for one in states.values())
    _, logits = reader.read(torch.zeros(7, 31, dtype=torch.long), [], torch.tensor([0, 3]))
    del states, logits
    assert tensors() <= before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_weights_read_in_pieces_are_the_same_weights(dtype: torch.dtype, suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {
        "long": torch.randn(3, PIECE // 2 + 5).to(dtype),
        "exact": torch.randn(2, PIECE // 2).to(dtype),
        "scalar": torch.tensor(3).to(dtype),
        "none": torch.zeros(0, 4, dtype=dtype),
    }
    if dtype.is_floating_point:
        tensors["long"][0, 1], tensors["long"][2, -1] = float("nan"), float("-inf")
    if suffix == "bin":
        tensors["turned"] = torch.randn(700, 1700).to(dtype).T  # as an older GPT-2 may hold its matrices
        torch.save(tensors, tmp_path / "pytorch_model.bin")
    else:
        save_file(tensors, tmp_path / "model.safetensors")
    for name, stored in stored_tensors(tmp_path, "t").items():
        read = stored.widen()
        wide = torch.float32 if dtype in {torch.float16, torch.bfloat16} and tensors[name].numel() else dtype
        assert read.dtype == wide
        torch.testing.assert_close(read, tensors[name].to(wide), rtol=0, atol=0, equal_nan=True)
        assert stored.facts == examine(name, tensors[name])
        assert stored.facts.nonfinite == (2 if name == "long" and dtype.is_floating_point else 0)
        assert torch.equal(stored[...].nan_to_num(), tensors[name].nan_to_num())


def peak(reset: bool = False) -> int:
    """Return the most that was resident since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@LINUX
def test_half_precision_weights_are_never_here_twice(tmp_path: Path) -> None:
    save_file({"w": torch.ones(64, 2**20, dtype=torch.float16)}, tmp_path / "model.safetensors")
    stored = stored_tensors(tmp_path, "t")["w"]
    before = peak(reset=True)
    whole = stored.widen()
    assert whole.nbytes == 2**28
    assert peak() - before < 1.1 * whole.nbytes


def test_bin_files_are_counted_beside_the_weights(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s", [0]) / "step0"
    checkpoint = FolderCheckpoint(0, folder)
    assert checkpoint.mapped() == 0
    torch.save({"w": torch.ones(1000)}, folder / "pytorch_model.bin")
    assert checkpoint.mapped() == 0  # safetensors come first
    (folder / "model.safetensors").unlink()
    assert checkpoint.mapped() == (folder / "pytorch_model.bin").stat().st_size
    with LoopbackHub(serve_folder(tmp_path / "s", "test/a")) as hub, using(hub, tmp_path / "c"):
        assert next(HubSeries("test/a").checkpoints([0])).mapped() == checkpoint.mapped()


RUN = """
import sys
from pathlib import Path
from pythiageo.cli.app import run
assert run(sys.argv[1:]) == 0
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])
"""


@LINUX
def test_plan_says_what_a_run_takes(tmp_path: Path) -> None:
    for step in (0, 1):
        trainable = ARCHITECTURES["gpt_neox"](Shape(4, 768, 12, 3072, 48, 41, True), seed=step)
        write_checkpoint(tmp_path / "s" / f"step{step}", trainable, step, tokens=step)

    def told(*command: str) -> str:
        whole = [sys.executable, *command, str(tmp_path / "s"), "--out", str(tmp_path / "run"), *PROBES]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(whole, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout

    plan = json.loads(told("-m", "pythiageo", "plan", "--json"))
    taken = 1024 * int(told("-c", RUN, "analyze").split()[-1])
    assert plan["memory_peak_bytes"] == pytest.approx(taken, rel=0.15)
    assert taken > 4 * plan["parameters"] + 4e8  # or it was another process that was measured
