"""Sizes that cannot be, refused before anything is built: a config costs its writer nothing, and us all memory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pythiageo.errors import CheckpointError
from pythiageo.series.files.tensor_files import StoredTensor
from pythiageo.untrusted_files import TOKENIZER_LIMIT, BadFileError, check_plain, is_plain, read_json

_LAYERS, _EXPERTS = "layers", "experts"
_MOST = (
    (_LAYERS, re.compile(r"(layers|n_layer|blocks|n_block|depth|codebooks)$"), 2_000),
    (_EXPERTS, re.compile(r"experts"), 2_000),
    ("labels", re.compile(r"labels$"), 100_000),
    ("", re.compile(r"\[\]$"), 10_000_000),
)
"""What is built one by one, the keys that say how many, and more of it than any model has. A number in a list may say
how often a kind of layer is repeated."""
_MODULES = 100_000
"""More experts than any model has in all its layers."""
_TWICE, _SPARE = 2, 10_000_000
"""A config may ask for twice the numbers that the files hold, and some: where it does not fit, the shapes say so."""
_SMALL = {
    "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "adapter_config.json", "training.json",
}  # fmt: skip
_LARGE = ("tokenizer.", "vocab.", "merges.", "spiece.", "chat_template.")


def check_folder(folder: Path, label: str) -> None:
    """Refuse a checkpoint folder in which a library would block, or drown, on a file of which it knows the name.

    Raises:
        CheckpointError: a FIFO, socket or device; a JSON file that is none, is too large or nests too deep.
    """
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        path = folder / name
        try:
            if name in _SMALL:
                read_json(path)
            elif name.startswith(_LARGE):
                check_plain(path, TOKENIZER_LIMIT)
            elif not path.is_dir() and not is_plain(path):
                check_plain(path)
        except FileNotFoundError:  # a link to nothing: no library finds it either
            continue
        except BadFileError as error:
            raise CheckpointError(f"{label}: {name} cannot be read: it {error}") from None


def check_counts(config: dict[str, Any], label: str) -> None:
    """Refuse a config that asks for so many layers or experts that building them would not end.

    Raises:
        CheckpointError: which key asks for how many.
    """
    asked = {_LAYERS: 1, _EXPERTS: 1}
    for key, value in _numbers(config):
        for word, pattern, most in _MOST:
            if pattern.search(key) is None:
                continue
            if value > most:
                raise CheckpointError(f"{label}: config.json says {key} = {_shown(value)}, more than any model has")
            asked[word] = max(asked.get(word, 1), value)
    if asked[_LAYERS] * asked[_EXPERTS] > _MODULES:
        raise CheckpointError(
            f"{label}: config.json says {asked[_LAYERS]:,} layers and {asked[_EXPERTS]:,} experts, more than any model "
            f"has"
        )


def check_room(build: Callable[[], nn.Module], stored: Mapping[str, StoredTensor], label: str) -> None:
    """Refuse a config that asks for far more numbers than the weight files hold; counted where nothing is allocated.

    ``build``: makes the model that it asks for.

    Raises:
        CheckpointError: both counts.
    """
    with torch.device("meta"):
        model = build()
    asked = sum(parameter.numel() for parameter in model.parameters())
    held = sum(tensor.count for tensor in stored.values())
    if asked > _TWICE * held + _SPARE:
        raise CheckpointError(
            f"{label}: config.json asks for a model of {asked:,} numbers, and the weight files hold {held:,}"
        )


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Yield every whole number of a config with its key; those of lists with ``[]``."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _numbers(one, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for one in value:
            yield from _numbers(one, f"{key.removesuffix('[]')}[]")
    elif isinstance(value, int) and not isinstance(value, bool):
        yield key, value


def _shown(value: int) -> str:
    return f"{value:,}" if value < 10**18 else "a number of more than 18 digits"
