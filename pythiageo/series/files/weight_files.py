"""The weight files of a revision, as a listing tells them: names, sha256, sizes, and what is missing among them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

SAFETENSORS, BIN = "safetensors", "bin"
FORMATS = (SAFETENSORS, BIN)
"""Formats of weight files, the one that is read first where both are there."""
INDEX_LIMIT = 16 * 2**20
"""An index of more bytes than this is not one."""

_WHOLE = {SAFETENSORS: "model.safetensors", BIN: "pytorch_model.bin"}
_SHARD = {
    SAFETENSORS: re.compile(r"model-(\d+)-of-(\d+)\.safetensors"),
    BIN: re.compile(r"pytorch_model-(\d+)-of-(\d+)\.bin"),
}
_INDEX = {f"{name}.index.json": kind for kind, name in _WHOLE.items()}
_SHARDS_LIMIT = 10_000


class WeightFile(NamedTuple):
    """One weight file as a listing tells it; ``sha256`` is ``None`` for a small file kept in git itself."""

    name: str
    sha256: str | None
    size: int
    git_oid: str | None = None

    @property
    def content(self) -> str:
        """What tells its content from another's."""
        return self.sha256 or f"git:{self.git_oid}"


@dataclass(frozen=True)
class Revision:
    """One revision of a series: ``step`` is ``None`` for ``main``.

    ``indexes`` holds, for each format that has an index, the shards it names, ``weight_maps`` the shard of each tensor.
    ``absent`` says why the revision cannot be listed at all.
    """

    step: int | None
    revision: str
    commit: str | None = None
    files: tuple[WeightFile, ...] = ()
    indexes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    absent: str | None = None
    weight_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def listed(
        cls,
        step: int | None,
        revision: str,
        commit: str | None,
        files: Iterable[WeightFile],
        weight_maps: Mapping[str, Mapping[str, str]],
    ) -> Revision:
        """Return a revision of which all files are listed, by what its indexes say; others than weights are left."""
        indexes = {kind: shards_of(weight_map) for kind, weight_map in weight_maps.items()}
        weights = tuple(file for file in files if is_weight_file(file.name, indexes))
        return cls(step, revision, commit, weights, indexes, weight_maps=weight_maps)

    def of_format(self, kind: str) -> tuple[WeightFile, ...]:
        """Return the weight files of a format, by name."""
        return tuple(sorted(file for file in self.files if file.name.endswith(f".{kind}")))

    def read_files(self, kind: str) -> tuple[WeightFile, ...]:
        """Return the files of a format that make the model: the whole file where there is one, else the shards."""
        whole = [file for file in self.of_format(kind) if file.name == _WHOLE[kind]]
        named = set(self.indexes.get(kind, ()))
        return tuple(whole) or tuple(file for file in self.of_format(kind) if file.name in named)

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats of which there is at least a file or an index."""
        return tuple(kind for kind in FORMATS if self.of_format(kind) or kind in self.indexes)

    def problem(self, kind: str) -> str | None:
        """Return why the files of a format cannot be the whole model, or ``None``."""
        files = {file.name: file for file in self.of_format(kind)}
        wanted = [_WHOLE[kind]] if _WHOLE[kind] in files else self._shards(kind, files)
        if lost := [name for name in wanted if name not in files]:
            return f"{_listed(lost)} {'is' if len(lost) == 1 else 'are'} missing"
        if empty := [name for name in wanted if files[name].size == 0]:
            return f"{_listed(empty)} {'is' if len(empty) == 1 else 'are'} empty (0 bytes)"
        if _WHOLE[kind] in files:
            return None
        if kind not in self.indexes:
            return f"{_WHOLE[kind]}.index.json is missing, without which shards cannot be put together"
        return None if self.indexes[kind] else f"{_WHOLE[kind]}.index.json names no shard"

    def _shards(self, kind: str, files: Iterable[str]) -> list[str]:
        """Return every shard that the index names, or that the name of another shard tells of."""
        wanted = set(self.indexes.get(kind, ()))
        for name in [*files, *wanted]:
            if (match := _SHARD[kind].fullmatch(name)) and 0 < int(match[2]) <= _SHARDS_LIMIT:
                head, tail = name[: match.start(1)], name[match.end(1) :]
                wanted |= {f"{head}{i:0{len(match[1])}d}{tail}" for i in range(1, int(match[2]) + 1)}
        return sorted(wanted)


def pack_listing(revision: Revision) -> bytes:
    """Return what a commit holds, as bytes; see ``unpack_listing``."""
    return json.dumps([revision.revision, revision.commit, revision.files, revision.weight_maps]).encode()


def unpack_listing(content: bytes) -> Revision | None:
    """Return the revision (of no step) that ``pack_listing`` made these bytes of, ``None`` if it was something else."""
    try:
        name, commit, files, maps = json.loads(content)
        return Revision.listed(None, name, commit, [WeightFile(*file) for file in files], maps)
    except (ValueError, TypeError, AttributeError):
        return None


def index_format(name: str) -> str | None:
    """Return the format whose index has this name, or ``None``."""
    return _INDEX.get(name)


def is_weight_file(name: str, indexes: Mapping[str, tuple[str, ...]]) -> bool:
    """Return whether a file of this name is read as weights: by its own name, or because an index names it."""
    known = any(name == _WHOLE[kind] or _SHARD[kind].fullmatch(name) for kind in FORMATS)
    return known or any(name in shards for shards in indexes.values())


def weight_map_of(index: bytes) -> dict[str, str]:
    """Return the shard of each tensor that the content of an index names; none where it is not readable as one."""
    try:
        return {str(name): str(shard) for name, shard in json.loads(index)["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def shards_of(weight_map: Mapping[str, str]) -> tuple[str, ...]:
    """Return the shards that an index names."""
    return tuple(sorted(set(weight_map.values())))


def _listed(names: list[str]) -> str:
    others = f" and {len(names) - 1} other{'s' if len(names) > 2 else ''}" if len(names) > 1 else ""
    return names[0] + others
