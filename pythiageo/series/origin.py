"""What a checkpoint was read from, so that a later look can tell whether it is still what was measured."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
BESIDE = ("config.json", "training.json", *TOKENIZER)
"""Files beside the weights that rows depend on."""
OTHER_WEIGHTS = "other weights"


class Source(NamedTuple):
    """``commit``: of a repository. ``files``: by name what tells each file from others, as far as that is known.

    The weights of a folder are not among its files: their fingerprint tells them.
    """

    commit: str | None
    files: dict[str, str] | None


@runtime_checkable
class Lasting(Protocol):
    """A series that can say whether the checkpoint of a step is still the one that was measured."""

    def moved(self, step: int, weight_sha: str, source: Source | None) -> list[str]:
        """Return in words what is not what it was, such as ``other weights``; nothing where all is.

        ``weight_sha`` and ``source``: what was noted when the step was measured. Weights are read only where nothing
        cheaper tells.
        """


def hash_beside(folder: Path) -> dict[str, str]:
    """Return the sha256 of the files beside the weights of a checkpoint folder."""
    there = [folder / name for name in BESIDE if (folder / name).is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in there}


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return in words which files are not what they were."""
    names = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    beside = [f"another {name}" for name in names if name in BESIDE]
    return [OTHER_WEIGHTS, *beside] if len(beside) < len(names) else beside
