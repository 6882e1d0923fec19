"""Hashes of files are remembered while nothing about a file has changed, and only then."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import weakref
from pathlib import Path

import pytest
import torch

from pythiageo.series.audit.contents import compare_tensors
from pythiageo.series.files import hash_cache as hashes
from pythiageo.series.files.hash_cache import HashMemory
from pythiageo.series.files.tensor_files import StoredTensor


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lists every file that is read to be hashed; files count as settled at once."""
    found: list[str] = []
    digest = hashlib.file_digest

    def counted(file: object, kind: str) -> object:
        found.append(Path(file.name).name)  # type: ignore[attr-defined]
        return digest(file, kind)  # type: ignore[arg-type,type-var]

    monkeypatch.setattr(hashlib, "file_digest", counted)
    monkeypatch.setattr(hashes, "_SETTLED", -1)
    return found


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, reads: list[str]) -> None:
    weights, kept = tmp_path / "w", tmp_path / "kept.json"
    weights.write_text("one")
    first = HashMemory(kept)
    assert [first.sha256(weights), first.sha256(weights)] == [sha("one")] * 2
    first.keep()
    assert HashMemory(kept).sha256(weights) == sha("one")
    assert len(reads) == 1
    # other content of the same size, its time of change set back, as `cp -p` does
    before = os.stat(weights)
    weights.write_text("two")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert HashMemory(kept).sha256(weights) == sha("two")
    assert len(reads) == 2


def test_a_file_just_written_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "_SETTLED", 10**12)
    (tmp_path / "w").write_text("one")
    memory = HashMemory(tmp_path / "kept.json")
    assert memory.sha256(tmp_path / "w") == sha("one")
    memory.keep()
    assert json.loads((tmp_path / "kept.json").read_text()) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 3}'])
def test_what_cannot_be_read_is_forgotten(text: str, tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "kept.json").write_text(text)
    (tmp_path / "w").write_text("one")
    assert HashMemory(tmp_path / "kept.json").sha256(tmp_path / "w") == sha("one")
    assert reads == ["w"]


def test_formats_are_compared_tensor_by_tensor() -> None:
    """At most one pair of tensors is in memory at a time, however many there are."""
    alive: set[int] = set()
    most = [0]

    def read(number: int) -> torch.Tensor:
        tensor = torch.full((4,), float(number))
        alive.add(id(tensor))
        weakref.finalize(tensor, alive.discard, id(tensor))
        most[0] = max(most[0], len(alive))
        return tensor

    def side() -> dict[str, StoredTensor]:
        return {f"t{number}": StoredTensor(f"t{number}", lambda number=number: read(number)) for number in range(20)}

    found = compare_tensors(0, side(), side())
    gc.collect()
    assert (found.status, found.common) == ("agree", 20)
    assert most[0] <= 2
