"""A few rows of a checkpoint, read by ranges of bytes from a folder or the Hub, and nothing else of it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file
from sharded import shard
from torch import Tensor

from pythiageo.errors import CheckpointError
from pythiageo.series.audit.samples import LIMIT, choose_budget, most_bytes, read_samples
from pythiageo.series.files.kept import KeptAnswers
from pythiageo.series.files.slices import EMBEDDING, MIDDLE, Placed, choose_matrices, read_header, read_rows
from pythiageo.series.sources.folder import FolderSeries

WIDE = 1 << 20


def reader(content: bytes) -> Callable[[str, int, int], bytes]:
    return lambda name, start, count: content[start : start + count]


@pytest.mark.parametrize(
    ("names", "embedding", "middle"),
    [
        ("gpt_neox.embed_in.weight 90x8 gpt_neox.layers.{}.attention.query_key_value.weight 24x8 "
         "gpt_neox.layers.{}.mlp.dense_4h_to_h.weight 8x32 gpt_neox.layers.{}.mlp.dense_h_to_4h.weight 32x8 "
         "embed_out.weight 90x8", "embed_out.weight", "gpt_neox.layers.{}.mlp.dense_h_to_4h.weight"),
        ("model.embed_tokens.weight 90x8 model.layers.{}.mlp.down_proj.weight 8x24 model.layers.{}.mlp.up_proj.weight "
         "24x8 lm_head.weight 90x8", "model.embed_tokens.weight", "model.layers.{}.mlp.up_proj.weight"),
        ("transformer.wte.weight 90x8 transformer.wpe.weight 200x8 transformer.h.{}.mlp.c_proj.weight 32x8 "
         "transformer.h.{}.mlp.c_fc.weight 8x32", "transformer.wte.weight", "transformer.h.{}.mlp.c_proj.weight"),
        ("transformer.word_embeddings.weight 90x8 transformer.word_embeddings_layernorm.weight 8x8 "
         "h.{}.mlp.dense_h_to_4h.weight 32x8", "transformer.word_embeddings.weight", "h.{}.mlp.dense_h_to_4h.weight"),
        ("backbone.embeddings.weight 90x8 backbone.layers.{}.mixer.in_proj.weight 40x8", "backbone.embeddings.weight",
         "backbone.layers.{}.mixer.in_proj.weight"),
        ("model.embed_tokens.weight 90x8 model.layers.{}.mlp.experts.7.up_proj.weight 6x8 "
         "model.layers.{}.self_attn.q_proj.weight 8x8", "model.embed_tokens.weight",
         "model.layers.{}.self_attn.q_proj.weight"),
    ],
)  # fmt: skip
def test_the_matrices_of_many_architectures_are_found_by_name_and_shape(
    names: str, embedding: str, middle: str
) -> None:
    words = names.split()
    tensors = [
        Placed(name.format(layer), "m", 0, "F16", tuple(map(int, shape.split("x"))))
        for name, shape in zip(words[::2], words[1::2], strict=True)
        for layer in (range(5) if "{}" in name else (0,))
    ]
    found = choose_matrices(tensors)
    assert found[EMBEDDING].name == ("gpt_neox.embed_in.weight" if embedding.startswith("embed_out") else embedding)
    assert found[MIDDLE].name == middle.format(2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("cut", [False, True])
def test_rows_are_those_of_the_file_and_little_else_is_read(dtype: torch.dtype, cut: bool, tmp_path: Path) -> None:
    folder = tmp_path / "step7"
    folder.mkdir()
    tensors: dict[str, Tensor] = {
        "model.embed_tokens.weight": torch.randn(5000, 64).to(dtype),
        **{f"model.layers.{layer}.mlp.up_proj.weight": torch.randn(900, 64).to(dtype) for layer in range(4)},
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text("{}")
    if cut:
        shard(folder)
    series = FolderSeries(tmp_path)
    [revision] = series.inventory(lambda done, of: None)
    asked: list[int] = []

    def read(name: str, start: int, count: int) -> bytes:
        asked.append(count)
        return series.read_bytes(revision, name, start, count)

    rows = read_rows(revision, read, 100 * 64 * 4)
    assert torch.equal(rows[EMBEDDING].values, tensors["model.embed_tokens.weight"][300:400])
    assert torch.equal(rows[MIDDLE].values, tensors["model.layers.2.mlp.up_proj.weight"][400:500])
    assert (rows[MIDDLE].first, rows[EMBEDDING].shape) == (400, (5000, 64))
    assert sum(asked) < 2 * 100 * 64 * dtype.itemsize + 2 * 2**14 + 1


def test_a_header_that_cannot_be_is_refused() -> None:
    good = save({"model.embed_tokens.weight": torch.ones(4, 4)})
    assert read_header("m", len(good), reader(good))[0].shape == (4, 4)

    def changed(**entry: object) -> bytes:
        base = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}
        text = json.dumps({"a": base | entry}).encode()
        return struct.pack("<Q", len(text)) + text + bytes(64)

    bad = [
        b"", b"short", struct.pack("<Q", 2**60) + bytes(64), struct.pack("<Q", 8) + b"nonsense" + bytes(64),
        struct.pack("<Q", 2) + b"[]" + bytes(64), changed(data_offsets=[0, 6400]), changed(data_offsets=[64, 0]),
        changed(shape=[4, 5]), changed(shape=[-4, -4]), changed(shape="44"), changed(shape=[2**40, 2**40]),
        changed(data_offsets=[0.0, 64.0]),
    ]  # fmt: skip
    for content in bad:
        with pytest.raises(CheckpointError, match=r"header"):
            read_header("m", len(content), reader(content))


def test_a_series_of_any_length_stays_within_the_bound() -> None:
    for count in (1, 10, 154, 400, 1446, 100_000):
        assert most_bytes(count) <= LIMIT
    assert choose_budget(154) == 2**19


class Counting:
    """A series that counts what is read of it."""

    def __init__(self, series: FolderSeries) -> None:
        self.series = series
        self.reads = 0

    def read_bytes(self, *asked: object) -> bytes:
        self.reads += 1
        return self.series.read_bytes(*asked)  # type: ignore[arg-type]


def test_what_cannot_be_read_by_value_says_so_and_equal_files_are_read_once(tmp_path: Path) -> None:
    content = {"model.embed_tokens.weight": torch.randn(40, 8), "model.layers.0.up.weight": torch.randn(16, 8)}
    for step in (0, 1, 2, 3, 4):
        (tmp_path / "s" / f"step{step}").mkdir(parents=True)
    for step in (0, 1):
        save_file(content, tmp_path / "s" / f"step{step}" / "model.safetensors")
    torch.save(content, tmp_path / "s" / "step2" / "pytorch_model.bin")
    (tmp_path / "s" / "step3" / "model.safetensors").write_bytes(b"none")
    save_file({"bias": torch.ones(3)}, tmp_path / "s" / "step4" / "model.safetensors")
    series = FolderSeries(tmp_path / "s")
    counting = Counting(series)
    found = read_samples(counting, series.inventory(lambda *_: None), KeptAnswers(tmp_path / "kept"), lambda *_: None)
    assert sorted(found.by_step) == [0, 1]
    assert counting.reads == 3 + 1 + 1
    assert found.unread == {
        2: "it has .bin weights alone, of which no range can be read",
        3: "model.safetensors has no header of safetensors",
        4: "it has neither an embedding nor a matrix in a block that could be found by name",
    }


def test_kept_answers_are_checked_bounded_and_never_trusted(tmp_path: Path) -> None:
    kept = KeptAnswers(tmp_path / "kept", limit=3000)
    kept.put(("a", "b"), b"answer")
    assert (kept.get(("a", "b")), kept.get(("ab",)), kept.notes) == (b"answer", None, [])
    [file] = (tmp_path / "kept").iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert kept.get(("a", "b")) is None
    assert len(kept.notes) == 1
    assert "is damaged: it is not used" in kept.notes[0]
    assert not file.exists()
    for number in range(10):
        kept.put((str(number),), bytes(900))
    kept.prune()
    assert sum(file.stat().st_size for file in (tmp_path / "kept").iterdir()) <= 3000
    (tmp_path / "file").write_text("")
    unwritable = KeptAnswers(tmp_path / "file" / "kept")
    unwritable.put(("a",), b"answer")
    assert unwritable.get(("a",)) is None
    assert "is not kept" in unwritable.notes[0]
