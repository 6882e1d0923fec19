"""One revision of a Hub repository: what it takes, bringing it here, holding it against what the Hub promises."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError

from pythiageo.errors import CheckpointError, MachineError, first_line
from pythiageo.series.checkpoint import OpenCheckpoint
from pythiageo.series.files.load import open_folder
from pythiageo.series.files.weight_files import WeightFile
from pythiageo.series.hub.client import access_problem, list_files, without_bars
from pythiageo.series.hub.retry import UNREACHED, again_if_busy
from pythiageo.series.sources.folder import read_tokens

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_BESIDE = ("config.json", "training.json", *_TOKENIZER)
_TRIES = 2
"""How often a file whose content is not what the Hub promises is fetched."""
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}
"""The disk's own errors: the next checkpoint would meet them too."""


class HubCheckpoint:
    """One revision of a repository.

    With a ``store`` it is fetched into a folder there, which ``drop`` removes; files that the client's own cache
    already has whole are used from there, and left. Without one it is fetched into the client's cache, and stays.
    """

    def __init__(
        self, repo: str, step: int, revision: str, commit: str | None, tokens: int | None, store: Path | None = None
    ) -> None:
        self.step = step
        self._repo = repo
        self._revision = revision
        self._commit = commit
        self._tokens = tokens
        self._own = store / f"step{step}" if store is not None else None
        self._folder: Path | None = None
        self._wanted: list[WeightFile] | None = None

    def stored_in(self, store: Path) -> HubCheckpoint:
        """Return the same revision, to be fetched into a folder of ``store``."""
        return HubCheckpoint(self._repo, self.step, self._revision, self._commit, self._tokens, store)

    @property
    def label(self) -> str:
        """The revision, with its commit."""
        return f"{self._revision}@{self._commit[:7]}" if self._commit else self._revision

    @property
    def tokens(self) -> int | None:
        """Training tokens seen; for a repository with ``training.json`` known once fetched."""
        return self._tokens

    def size(self) -> int:
        """Return the bytes that fetching it will add to the disk.

        Raises:
            CheckpointError: the revision is not there, or cannot be listed.
        """
        return 0 if self._cached() else sum(file.size for file in self._files())

    def arrived(self) -> int:
        """Return the bytes that lie in its folder of the store so far, files under way included."""
        total = 0
        for folder, _, names in os.walk(self._own or ""):
            for name in names:
                with suppress(OSError):  # the client renames its files meanwhile
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def fetch(self) -> None:
        """Bring its files here, and hold each against its size and the sha256 that the Hub promises.

        Raises:
            CheckpointError: this revision cannot be had; others may. Status ``corrupt``: a file is not what the Hub
                promises, even when fetched again; it is removed, so that a later try does not meet it.
        """
        self._folder = self._cached()
        if self._folder is None:
            names = [file.name for file in self._files()]
            with told(self._repo, self._revision):
                self._folder = download(self._repo, self._revision, self._at, names, self._files(), self._own)
        if self._tokens is None:
            self._tokens = read_tokens(self._folder)

    def describe(self, into: Path) -> Path:
        """Fetch config and tokenizer ``into`` a folder.

        Raises:
            CheckpointError: this revision cannot be had.
        """
        names = [file.name for file in self._files() if file.name in _BESIDE]
        with told(self._repo, self._revision):
            return download(self._repo, self._revision, self._at, names, [], into)

    def drop(self) -> None:
        """Remove what was fetched into the store."""
        self._folder = None
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)

    def open(self) -> OpenCheckpoint:
        """Load it, after fetching it if that was not done; see ``fetch`` and ``open_folder``."""
        if self._folder is None:
            self.fetch()
        assert self._folder is not None
        return open_folder(self._folder, f"{self._repo} {self.label}")

    @property
    def _at(self) -> str:
        # by commit: a branch that moves while we read must not mix two checkpoints
        return self._commit or self._revision

    def _files(self) -> list[WeightFile]:
        """Return the files to fetch: weights of one format, config and tokenizer; listed once."""
        if self._wanted is None:
            with told(self._repo, self._revision):
                files = list_files(self._repo, self._at)
            kind = ".safetensors" if any(file.name.endswith(".safetensors") for file in files) else ".bin"
            self._wanted = [
                file for file in files if file.name in _BESIDE or file.name.endswith((kind, f"{kind}.index.json"))
            ]
        return self._wanted

    def _cached(self) -> Path | None:
        """Return the client's own copy of this commit, if it has every file whole; it is read and never removed."""
        if self._own is None:
            return None
        try:
            with without_bars():
                folder = Path(snapshot_download(self._repo, revision=self._at, local_files_only=True))
        except (LocalEntryNotFoundError, *UNREACHED):
            return None
        whole = all((folder / file.name).is_file() and holds(folder / file.name, file) for file in self._files())
        return folder if whole else None


@contextmanager
def told(repo: str, revision: str) -> Iterator[None]:
    """Turn the client's errors about one revision into one sentence; the rest of the series goes on.

    Raises:
        CheckpointError: this revision is not there, may not be seen, or did not arrive.
        MachineError: the disk is full or may not be written.
    """
    try:
        yield
    except RevisionNotFoundError:
        raise CheckpointError(f"{repo}: there is no revision {revision}") from None
    except UNREACHED as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            raise MachineError(f"{repo} {revision}: could not be kept on the disk: {first_line(error)}") from None
        if refusal := access_problem(error):
            raise CheckpointError(f"{repo} {revision}: {refusal}") from None
        raise CheckpointError(f"{repo} {revision}: could not be fetched: {first_line(error)}") from None


def download(
    repo: str, label: str, commit: str, patterns: list[str], promised: list[WeightFile], into: Path | None
) -> Path:
    """Fetch files into the client's cache, or ``into`` a folder, and hold each against what the Hub promises."""
    for _ in range(_TRIES):
        with without_bars():
            folder = Path(
                again_if_busy(lambda: snapshot_download(repo, revision=commit, allow_patterns=patterns, local_dir=into))
            )
        if lost := [file.name for file in promised if not (folder / file.name).is_file()]:
            raise CheckpointError(f"{repo} {label}: could not be fetched: {lost[0]} did not come")
        wrong = [file for file in promised if not holds(folder / file.name, file)]
        if not wrong:
            return folder
        for file in wrong:
            _remove(folder / file.name)
    raise CheckpointError(
        f"{repo} {label}: {wrong[0].name} is not the file that the Hub promises (sha256 "
        f"{str(wrong[0].sha256)[:12]}...), though it was fetched {_TRIES} times; it was removed",
        "corrupt",
    )


def holds(path: Path, promised: WeightFile) -> bool:
    """Return whether a file has the size and, where one is promised, the sha256 of the listing."""
    if path.stat().st_size != promised.size:
        return False
    if promised.sha256 is None:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == promised.sha256


def _remove(path: Path) -> None:
    """Remove a file, and the content of the client's cache that its name leads to."""
    content = path.resolve()
    path.unlink(missing_ok=True)
    if content.parent.name == "blobs":
        content.unlink(missing_ok=True)
