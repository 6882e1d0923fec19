"""The sha256 of files on disk, remembered from one audit of a folder to the next."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock

_SETTLED = 2_000_000_000
"""Nanoseconds since a file's last change before its hash is remembered: a file that is still being written may change
again within one tick of the disk's clock."""


class HashMemory:
    """Hashes of files, kept in a JSON file; safe to use from several threads.

    A remembered hash stands while path, size, inode and both times of change (of the content and of the entry, which
    copying tools cannot set back) are what they were. Without a file nothing is remembered.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._known: dict[str, list[object]] = {}
        self._lock = Lock()
        if file is not None:
            with suppress(OSError, ValueError):
                known = json.loads(file.read_text(encoding="utf-8"))
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

    def keep(self) -> None:
        """Write what is remembered."""
        if self._file is not None:
            self._file.write_text(json.dumps(self._known), encoding="utf-8")


def _state(path: Path) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
