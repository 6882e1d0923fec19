"""The sha256 of files on disk and the fingerprints of weights, remembered from one look at a folder to the next."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock

from pythiageo.durable_files import KEPT, replace_file
from pythiageo.series.files.fingerprint import combine
from pythiageo.series.files.tensor_files import stored_tensors, weight_files
from pythiageo.untrusted_files import MIB, BadFileError, read_json

_LIMIT = 256 * MIB
_SETTLED = 2_000_000_000
"""Nanoseconds since a file's last change before its hash is remembered: a file that is still being written may change
again within one tick of the disk's clock."""


class HashMemory:
    """Hashes of files and fingerprints of weights, kept in a JSON file; safe to use from several threads.

    A remembered hash stands while path, size, inode and both times of change (of the content and of the entry, which
    copying tools cannot set back) are what they were. Without a file nothing is remembered.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._known: dict[str, list[object]] = {}
        self._lock = Lock()
        if file is not None:
            with suppress(OSError, BadFileError):
                known = read_json(file, _LIMIT)
                self._known = known if isinstance(known, dict) else {}

    def sha256(self, path: Path) -> str:
        """Return the sha256 of a file's content, read only where it is not remembered."""
        name, state = str(path.resolve()), _state(path)
        with self._lock:
            known = self._known.get(name)
        if isinstance(known, list) and known[:-1] == state and isinstance(known[-1], str):
            return known[-1]
        with path.open("rb") as file:
            sha = hashlib.file_digest(file, "sha256").hexdigest()
        if _state(path) == state and time.time_ns() - max(state[2:]) > _SETTLED:
            with self._lock:
                self._known[name] = [*state, sha]
        return sha

    def fingerprint(self, folder: Path) -> str:
        """Return the fingerprint of the tensors in a checkpoint folder, read only where it is not remembered.

        Raises:
            CheckpointError: they cannot be read.
        """
        state = weights_state(folder)
        with self._lock:
            known = self._known.get(str(folder.resolve()))
        if isinstance(known, list) and known[:-1] == state and isinstance(known[-1], str):
            return known[-1]
        sha = combine(tensor.facts for tensor in stored_tensors(folder, folder.name).values())
        self.remember(folder, state, sha)
        return sha

    def remember(self, folder: Path, state: list[object], sha: str) -> None:
        """Note the fingerprint of weights that were read after their files had this state, unless it has changed."""
        changed = max(int(str(each)) for place, each in enumerate(state) if place % 5 > 2)
        if weights_state(folder) == state and time.time_ns() - changed > _SETTLED:
            with self._lock:
                self._known[str(folder.resolve())] = [*state, sha]

    def keep(self) -> None:
        """Write what is remembered. Raises ``MachineError`` where it cannot be written."""
        if self._file is not None:
            replace_file(self._file, json.dumps(self._known).encode(), KEPT)


def weights_state(folder: Path) -> list[object]:
    """Return what changes with any change of a checkpoint folder's weight files: of each, name, size, inode and times.

    Raises:
        CheckpointError: there are none.
    """
    return [part for path in weight_files(folder, folder.name) for part in (path.name, *_state(path))]


def _state(path: Path) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
