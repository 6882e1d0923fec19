"""Opening checkpoints: weights that are not exactly the config's model are refused, old files' constants are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sharded import shard

from pythiageo.errors import CheckpointError
from pythiageo.series.files.load import open_folder
from pythiageo.series.sources.folder import read_tokens
from pythiageo.synthetic.model import Shape
from pythiageo.synthetic.trainable import ARCHITECTURES, write_checkpoint


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("opening")
    for name, architecture in ARCHITECTURES.items():
        write_checkpoint(root / name, architecture(Shape(2, 32, 2, 64, 48, 41, True), seed=1), 7, tokens=70)
    return root


def copied(written: Path, name: str, folder: Path) -> Path:
    return Path(shutil.copytree(written / name, folder))


def add(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path) | tensors, path, metadata={"format": "pt"})


def causal(n: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.tril(torch.ones(n, n)).to(dtype)[None, None].contiguous()


def test_a_mask_that_transformers_does_not_know_is_told_by_its_shape(written: Path, tmp_path: Path) -> None:
    name = "transformer.h.0.attn.attention.bias"  # as GPT-Neo's
    mask, bias = copied(written, "gpt2", tmp_path / "mask"), copied(written, "gpt2", tmp_path / "bias")
    add(mask, {name: causal(8, torch.uint8)})
    assert open_folder(mask, "step7").nonfinite is None
    add(bias, {name: torch.ones(32)})
    with pytest.raises(CheckpointError, match=r"no place for transformer\.h\.0\.attn\.attention\.bias \(1 in all\)"):
        open_folder(bias, "step7")


def test_a_tensor_in_two_shards_is_refused(written: Path, tmp_path: Path) -> None:
    folder = copied(written, "gpt_neox", tmp_path / "step7")
    shard(folder)
    first, second = sorted(folder.glob("model-*.safetensors"))
    tensors = load_file(first)
    name = sorted(tensors)[0]
    save_file(load_file(second) | {name: tensors[name] + 1}, second, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"step7: {name} is in more than one file, {second.name} among them"):
        open_folder(folder, "step7")


@pytest.mark.parametrize(("value", "counted"), [(1e300, True), (1e38, False)])
def test_a_float64_beyond_float32_is_not_finite(value: float, counted: bool, written: Path, tmp_path: Path) -> None:
    folder = copied(written, "gpt_neox", tmp_path / "step7")
    name = "gpt_neox.final_layer_norm.weight"
    weight = load_file(folder / "model.safetensors")[name].double()
    weight[3] = value
    add(folder, {name: weight})
    opened = open_folder(folder, "step7")
    assert opened.nonfinite == (f"weights hold NaN or infinity: 1 values in {name}" if counted else None)
    assert bool(torch.isfinite(dict(opened.model.named_parameters())[name]).all()) is not counted


def test_dtypes_that_cannot_be_read_are_named(written: Path, tmp_path: Path) -> None:
    folder = copied(written, "gpt_neox", tmp_path / "step7")
    name = "gpt_neox.final_layer_norm.weight"
    add(folder, {name: load_file(folder / "model.safetensors")[name].to(torch.float8_e4m3fn)})
    with pytest.raises(CheckpointError, match=r"step7: model\.safetensors holds F8_E4M3 tensors; expected one of F64"):
        open_folder(folder, "step7")


@pytest.mark.parametrize(("told", "tokens"), [(70, 70), (0, 0), (True, None), (-1, None), (7.0, None), ("7", None)])
def test_tokens_are_a_count_or_unknown(told: object, tokens: int | None, tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps({"tokens": told}))
    assert read_tokens(tmp_path) == tokens
