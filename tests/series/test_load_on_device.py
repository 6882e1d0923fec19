"""Weights on their way to a GPU: they are copied as stored, and widened there. ``cpu:0`` stands in for one.

torch takes it for the CPU, and pythiageo for another device than ``cpu``; what a copy to it does is recorded.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tinyseries import write_series
from torch import Tensor

from pythiageo.compute.device import copy_to
from pythiageo.config.runs import AnalyzeConfig
from pythiageo.config.tables import ComputeConfig, ProbeConfig
from pythiageo.errors import MachineError
from pythiageo.measurement.checkpoint import MeasurementSpec
from pythiageo.measurement.probe_sets import choose_probes
from pythiageo.measurement.saved_model import SavedModels
from pythiageo.series.checkpoint import OpenCheckpoint
from pythiageo.series.files import tensor_files
from pythiageo.series.files.load import open_folder
from pythiageo.series.sources.folder import FolderCheckpoint

THERE = "cpu:0"


@dataclass
class Doubling:
    """Copies to a device: what they were given; to tell what came by them, values are doubled."""

    given: list[tuple[torch.dtype, int, str]]

    def __call__(self, tensor: Tensor, device: str) -> Tensor:
        self.given.append((tensor.dtype, tensor.numel(), device))
        return 2 * tensor


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Doubling:
    found = Doubling([])
    monkeypatch.setattr(tensor_files, "copy_to", found)
    return found


def stored_in(folder: Path, dtype: torch.dtype, suffix: str) -> Path:
    """A small checkpoint, its weights in another type and format."""
    path = write_series(folder, [0]) / "step0"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path / "model.safetensors").items()}
    if suffix == "bin":
        (path / "model.safetensors").unlink()
        torch.save(tensors, path / "pytorch_model.bin")
    else:
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def weights(opened: OpenCheckpoint) -> dict[str, Tensor]:
    return dict(opened.model.state_dict())


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_copied_as_stored_and_widened_there(
    dtype: torch.dtype, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: Doubling
) -> None:
    folder = stored_in(tmp_path, dtype, suffix)
    there = open_folder(folder, "t", THERE)
    numbers = sum(count for _, count, _ in copies.given)
    assert {(kind, device) for kind, _, device in copies.given} == {(dtype, THERE)}
    monkeypatch.undo()
    here = open_folder(folder, "t")
    assert there.weight_sha == here.weight_sha  # of the bytes in the file, wherever the weights are
    expected = weights(here)
    assert numbers == sum(parameter.numel() for parameter in here.model.parameters())  # each once, so half the bytes
    for name, found in weights(there).items():
        assert found.dtype == torch.float32
        assert torch.equal(found, 2 * expected[name]), name


def test_pieces_of_a_large_tensor_come_one_by_one(tmp_path: Path, copies: Doubling) -> None:
    values = torch.arange(2 * tensor_files.PIECE + 5).remainder(1000).half()
    save_file({"w": values}, tmp_path / "model.safetensors")
    stored = tensor_files.stored_tensors(tmp_path, "t")["w"]
    found = stored.widen(THERE)
    assert [given[1] for given in copies.given] == [tensor_files.PIECE, tensor_files.PIECE, 5]
    assert torch.equal(found, 2 * values.float())


def test_a_copy_to_a_gpu_is_of_pinned_memory_and_waits_for_nothing() -> None:
    done: list[Any] = []

    class Recorded:
        def pin_memory(self) -> Recorded:
            done.append("pinned")
            return self

        def to(self, device: str, *, non_blocking: bool) -> Recorded:
            done.append((device, non_blocking))
            return self

    one: Any = Recorded()
    assert copy_to(one, "cpu") is one
    assert done == []
    copy_to(one, "cuda:1")
    assert done == ["pinned", ("cuda:1", True)]


def test_a_full_gpu_is_the_machines_fault_and_not_the_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensor: Tensor, device: str) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")

    monkeypatch.setattr(tensor_files, "copy_to", full)
    before = set(threading.enumerate())
    with pytest.raises(MachineError, match="memory ran out while t was opened"):
        open_folder(stored_in(tmp_path, torch.float16, "safetensors"), "t", THERE)
    for thread in set(threading.enumerate()) - before:  # transformers' may still be at a tensor
        thread.join(10)


def test_weights_of_another_type_are_those_of_the_file(tmp_path: Path, copies: Doubling) -> None:
    folder = stored_in(tmp_path, torch.float64, "safetensors")
    found, expected = open_folder(folder, "t", THERE), open_folder(folder, "t")
    assert copies.given == []
    assert found.weight_sha == expected.weight_sha
    assert all(torch.equal(weight, weights(expected)[name]) for name, weight in weights(found).items())


@pytest.mark.parametrize(
    ("device", "dtype", "where"),
    [(THERE, "float32", THERE), (THERE, "bfloat16", "cpu"), ("split", "float32", "cpu"), ("cpu", "float32", "cpu")],
)
def test_a_run_loads_where_it_measures(
    device: str, dtype: Any, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A divided model, or one in half precision, may fit no GPU in float32: it comes over the CPU."""
    monkeypatch.setattr("pythiageo.measurement.saved_model.make_repeatable", lambda *_, **__: None)
    config = AnalyzeConfig(name="t", target="t", compute=ComputeConfig(dtype=dtype), probes=ProbeConfig(tasks=("ADD",)))
    models = SavedModels(MeasurementSpec(config, {}, choose_probes(config.probes), device, [0]))
    asked: list[str] = []
    folder = write_series(tmp_path, [0]) / "step0"

    def open_on(self: FolderCheckpoint, device: str) -> OpenCheckpoint:
        asked.append(device)
        return open_folder(folder, "t")

    monkeypatch.setattr(FolderCheckpoint, "open_on", open_on)
    assert models.open(FolderCheckpoint(0, folder)).nonfinite is None
    assert asked == [where]

    class Elsewhere:
        """A checkpoint of another package, which knows the CPU alone."""

        label, step, tokens = "t", 0, None
        source = partial(FolderCheckpoint.source, FolderCheckpoint(0, folder))
        open = partial(open_folder, folder, "t")

    assert models.open(Elsewhere()).weight_sha  # type: ignore[arg-type]
    assert asked == [where]
