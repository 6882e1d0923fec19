"""Checkpoint folders cut into shards, as large ones are on the Hub."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file


def shard(folder: Path) -> None:
    """Cut a folder's ``model.safetensors`` into two shards with an index, tensors in turn."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    weight_map = {name: files[i % 2] for i, name in enumerate(names)}
    for file in files:
        save_file({n: tensors[n] for n in names if weight_map[n] == file}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
