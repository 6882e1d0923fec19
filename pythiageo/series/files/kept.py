"""What was asked of the Hub once and cannot change, kept in the user's cache folder: bounded, checked when read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pythiageo.durable_files import replace_file
from pythiageo.errors import PythiageoError, quote_error
from pythiageo.untrusted_files import MIB, BadFileError, read_bytes

CACHE = "PYTHIAGEO_CACHE"
LIMIT = 1024 * MIB
"""Bytes of all answers that are kept; those not asked for longest go first."""
_ANSWER_LIMIT = 64 * MIB
_DIGEST = 64


class KeptAnswers:
    """Answers by a key of what was asked, a file each, with its own sha256 before it; safe to use from several threads.

    A file that is not what was written is removed and named in ``notes``; one that cannot be written is not kept.
    """

    def __init__(self, folder: Path | None = None, limit: int = LIMIT) -> None:
        self._folder = cache_folder() if folder is None else folder
        self._limit = limit
        self.notes: list[str] = []

    def get(self, key: Iterable[str]) -> bytes | None:
        """Return what is kept of ``key``, ``None`` where nothing is."""
        if self._folder is None:
            return None
        path = self._path(self._folder, key)
        try:
            content = read_bytes(path, _ANSWER_LIMIT)
        except FileNotFoundError:
            return None
        except BadFileError as error:
            self._note(f"{path} {error}: it is not used")
            return None
        digest, answer = content[:_DIGEST], content[_DIGEST:]
        if hashlib.sha256(answer).hexdigest().encode() != digest:
            self._note(f"{path} is damaged: it is not used, and the Hub is asked again")
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)
        return answer

    def has(self, key: Iterable[str]) -> bool:
        """Return whether there is a file of ``key``; what is in it is looked at by ``get``."""
        return self._folder is not None and self._path(self._folder, key).is_file()

    def put(self, key: Iterable[str], answer: bytes) -> None:
        """Keep an answer."""
        if self._folder is None:
            return
        path = self._path(self._folder, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, hashlib.sha256(answer).hexdigest().encode() + answer)
        except (OSError, PythiageoError) as error:
            self._note(f"what the Hub answered is not kept in {self._folder}: {quote_error(error)}")

    def prune(self) -> None:
        """Remove what was not asked for longest, until the rest is within the limit."""
        if self._folder is None or not self._folder.is_dir():
            return
        with suppress(OSError):
            found = [(entry.stat(), entry) for entry in os.scandir(self._folder)]
            total = sum(state.st_size for state, _ in found)
            for state, entry in sorted(found, key=lambda one: one[0].st_mtime):
                if total <= self._limit:
                    return
                os.unlink(entry)
                total -= state.st_size

    @staticmethod
    def _path(folder: Path, key: Iterable[str]) -> Path:
        return folder / hashlib.sha256("\0".join(key).encode()).hexdigest()

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def cache_folder() -> Path | None:
    """Return where answers are kept: in ``PYTHIAGEO_CACHE``, or in ``pythiageo`` where the system has its caches.

    ``None`` for a user without a home: then nothing is kept.
    """
    named, above = os.environ.get(CACHE), os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        root = Path(named) if named else Path(above) / "pythiageo" if above else Path.home() / ".cache" / "pythiageo"
        return root.expanduser() / "audits"
    except RuntimeError:
        return None
