"""A tokenizer that a person names, for checkpoints that have none: a folder's, a file's, or a repository's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError

from pythiageo.errors import UserError
from pythiageo.series.hub.client import translated, without_bars, without_xet
from pythiageo.series.hub.retry import again_if_busy, be_patient
from pythiageo.series.origin import TOKENIZER as TOKENIZER_FILES

_FILES = ("config.json", *TOKENIZER_FILES)
"""What transformers makes a tokenizer of; the config says of which kind its model is."""
_LIMIT = 128 * 2**20


@dataclass(frozen=True)
class NamedTokenizer:
    """The files of a tokenizer, by name. Plain data: it is the same in another process, or on another machine.

    ``name``: as the person gave it. ``commit``: of a repository.
    """

    name: str
    commit: str | None
    files: Mapping[str, bytes]

    @property
    def sha(self) -> str:
        """sha256 over names and contents."""
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return what a manifest says of it."""
        return {"name": self.name, "commit": self.commit, "sha256": self.sha}

    def write(self, folder: Path) -> Path:
        """Write its files into ``folder``, and return that."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder


def read_tokenizer(target: str) -> NamedTokenizer:
    """Return the tokenizer of a folder, a ``tokenizer.json``, or a repository (``owner/name`` or ``owner/name@main``).

    Raises:
        UserError: there is none, or no access to it.
        MachineError: the Hub cannot be reached.
    """
    path = Path(target).expanduser()
    if path.is_file():
        return NamedTokenizer(path.name, None, {"tokenizer.json": _read(path)})
    if path.is_dir():
        return NamedTokenizer(path.resolve().name, None, _whole(path, target))
    if target.startswith((".", "/", "~")) or target.count("/") != 1:
        raise UserError(f"--tokenizer {target}: no such file or folder, and not a Hub repository's name (owner/name)")
    repo, _, revision = target.partition("@")
    be_patient()
    try:
        with translated(repo), without_bars(), without_xet():
            folder = Path(
                again_if_busy(lambda: snapshot_download(repo, revision=revision or None, allow_patterns=list(_FILES)))
            )
    except (RevisionNotFoundError, EntryNotFoundError):
        raise UserError(f"--tokenizer {target}: {repo} has no revision {revision or 'main'}") from None
    return NamedTokenizer(target, folder.name, _whole(folder, target))


def _whole(folder: Path, target: str) -> dict[str, bytes]:
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"--tokenizer {target}: expected a tokenizer.json there")
    return {name: _read(folder / name) for name in _FILES if (folder / name).is_file()}


def _read(file: Path) -> bytes:
    if file.stat().st_size > _LIMIT:
        raise UserError(f"--tokenizer: {file} is too large to be part of a tokenizer")
    return file.read_bytes()
