"""A model that TransformerLens computes otherwise than transformers is not measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import families
import pytest
import torch
from families import FAMILIES
from inmemory import characters

from pythiageo.errors import CheckpointError
from pythiageo.lens import BridgeReader
from pythiageo.series.files.load import open_folder

STABLE = next(one for one in FAMILIES if one.config == "StableLmConfig")


def open_bridge(family: families.Family, folder: Path) -> None:
    families.write(family, folder)
    characters(folder.parent / "tokenizer").save_pretrained(folder)
    opened = open_folder(folder, folder.name)
    with BridgeReader(opened.model, folder) as reader:
        reader.read(torch.tensor([[1, 2, 3]]), [], torch.tensor([2]))


def test_a_rotary_dimension_of_one_is_refused(tmp_path: Path) -> None:
    """A quarter of heads 4 wide: TransformerLens 4.3 rotates otherwise, and logits are off by 2%."""
    odd = replace(STABLE, settings={**STABLE.settings, "num_attention_heads": 4})
    with pytest.raises(CheckpointError, match="does not compute this StableLmForCausalLM as transformers does"):
        open_bridge(odd, tmp_path / "odd")
    open_bridge(STABLE, tmp_path / "even")
