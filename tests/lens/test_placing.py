"""A model too large for one GPU, divided: the same numbers, and whole blocks in their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from polars.testing import assert_frame_equal

from pythiageo.cli.app import run as cli
from pythiageo.errors import MachineError
from pythiageo.lens import BridgeReader, placing
from pythiageo.observations import read_observations
from pythiageo.series.files.load import open_folder
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint

BLOCKS = 3


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "step1"
    write_checkpoint(folder, ARCHITECTURES[request.param](Shape(BLOCKS, 64, 4, 256, 48, 41, True), 1), 1, 1)
    return folder


def halves(model: torch.nn.Module) -> dict[str, str]:
    """The first block and all around the blocks in memory, the other blocks on the disk."""
    body, blocks = next(
        (name, part) for name, part in model.named_modules() if isinstance(part, torch.nn.ModuleList) and len(part) > 1
    )
    where = {f"{body}.{index}": "disk" if index else "cpu" for index in range(len(blocks))}
    parent = body.rpartition(".")[0]
    where |= {
        f"{parent}.{name}": "cpu" for name, part in model.get_submodule(parent).named_children() if part is not blocks
    }
    return where | {name: "cpu" for name, _ in model.named_children() if name != parent}


@pytest.fixture
def disk_for_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[torch.nn.Module]:
    """The disk in the place of a second GPU; returns the models that were divided so."""
    divided: list[torch.nn.Module] = []
    divide = placing.divide

    def over_disk(model: torch.nn.Module, where: dict[str, str]) -> torch.nn.Module:
        divided.append(divide(model, where, tmp_path / "offloaded"))
        assert sum(parameter.is_meta for parameter in divided[-1].parameters()) > 10  # they are not in memory
        return divided[-1]

    monkeypatch.setattr(placing, "gpu_map", lambda model, dtype: halves(model))
    monkeypatch.setattr(placing, "divide", over_disk)
    return divided


def test_states_and_logits_are_those_of_the_undivided_model(
    checkpoint: Path, disk_for_gpus: list[torch.nn.Module]
) -> None:
    ids = torch.randint(3, 40, (4, 9), generator=torch.Generator().manual_seed(0))
    whole = BridgeReader(open_folder(checkpoint, "whole").model, checkpoint)
    reader = BridgeReader(open_folder(checkpoint, "divided").model, checkpoint, "split")
    assert len(disk_for_gpus) == 1
    assert reader.sites() == whole.sites()
    for wanted in (None, torch.tensor([2, 7])):
        states, logits = reader.read(ids, list(reader.sites()), wanted)
        expected, of_whole = whole.read(ids, list(reader.sites()), wanted)
        assert all(torch.equal(states[site], expected[site]) for site in expected)
        assert (logits is None) == (of_whole is None) == (wanted is None)
        if logits is not None:
            assert torch.equal(logits, of_whole)


def test_a_divided_analysis_has_the_table_of_an_undivided_one(
    checkpoint: Path, tmp_path: Path, disk_for_gpus: list[torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way, the disk in the place of a second GPU."""
    few = ["--tasks", "ADD", "--set", "probes.score_examples=4", "--set", "probes.geometry_examples=9", "--quiet"]

    def analyze(name: str, *more: str) -> Any:
        out = tmp_path / name
        assert cli(["analyze", str(checkpoint.parent), "--name", "same", "--out", str(out), *few, *more]) == 0
        return read_observations(out)

    undivided = analyze("whole")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert_frame_equal(analyze("divided", "--device", "split"), undivided, check_exact=True)
    assert len(disk_for_gpus) == 1


def test_gpus_take_whole_blocks_in_their_order(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_folder(checkpoint, "x").model
    total = sum(parameter.numel() for parameter in model.parameters()) * 4

    def room(share: float) -> None:
        each = int(total * share)
        memory = {0: each, 1: each, "cpu": 10**12}
        monkeypatch.setattr("accelerate.utils.get_balanced_memory", lambda *_, **__: memory)

    room(0.75)
    found = placing.gpu_map(model, torch.float32)
    assert set(found.values()) == {0, 1}
    places = [where for name, where in found.items() if name.rpartition(".")[2].isdecimal()]
    assert len(places) == BLOCKS  # none is cut
    assert places == sorted(places)
    room(0.3)
    with pytest.raises(MachineError, match=r"does not fit the GPUs that are here, cpu would have to hold the rest"):
        placing.gpu_map(model, torch.float32)


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="there are GPUs to divide a model over")
def test_dividing_over_gpus_that_are_not_there_is_one_sentence(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["analyze", str(checkpoint.parent), "--device", "split", "--out", str(tmp_path / "run")]) == 2
    assert "device 'split' divides a model over the GPUs, two or more of them" in capsys.readouterr().err
    assert cli(["train", "demo/tasks.toml", "--device", "split", "--dry-run"]) == 2
    assert "a model trains on one device" in capsys.readouterr().err
