"""One revision of a Hub repository: what it takes, bringing it here, holding it against what the Hub promises."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError

from pythiageo.errors import (
    MEMORY,
    CheckpointError,
    MachineError,
    PythiageoError,
    machine_trouble,
    quote_error,
    raise_if_memory,
)
from pythiageo.series.checkpoint import OpenCheckpoint
from pythiageo.series.files.load import open_folder
from pythiageo.series.files.tensor_files import BIN, SAFETENSORS
from pythiageo.series.files.weight_files import WeightFile, index_format, is_weight_file
from pythiageo.series.hub.cached import is_offline, kept_files, kept_folder, name_kept
from pythiageo.series.hub.client import access_problem, list_files, list_refs, without_bars
from pythiageo.series.hub.retry import UNREACHED, again_if_busy
from pythiageo.series.kinds import KindError, describe_layout
from pythiageo.series.origin import BESIDE, Source
from pythiageo.series.sources.folder import read_tokens

_TRIES = 2
"""How often a file whose content is not what the Hub promises is fetched."""


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
        return 0 if is_offline() or self._cached() else sum(file.size for file in self._files())

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
            if self._own is None:
                name_kept(self._folder, self._revision, self._commit)
        if self._tokens is None:
            self._tokens = read_tokens(self._folder)

    def source(self) -> Source:
        """Return its commit, and the files that opening it reads as the Hub lists them, if they were listed."""
        return Source(self._commit, None if self._wanted is None else _contents(self._wanted))

    def listed(self) -> Source:
        """Return the same, listed now if they were not. Raises ``CheckpointError`` where that cannot be done."""
        self._files()
        return self.source()

    def describe(self, into: Path) -> Path:
        """Fetch config and tokenizer ``into`` a folder.

        Raises:
            CheckpointError: this revision cannot be had.
        """
        if is_offline() and (folder := kept_folder(self._repo, self._at)):
            return folder
        names = [file.name for file in self._files() if file.name in BESIDE]
        with told(self._repo, self._revision):
            return download(self._repo, self._revision, self._at, names, [], into)

    def mapped(self) -> int:
        """Return the bytes of its ``.bin`` files, if its weights are read from them.

        Raises:
            CheckpointError: it cannot be listed.
        """
        return sum(file.size for file in self._files() if file.name.endswith(".bin"))

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
            kept = kept_folder(self._repo, self._at) if is_offline() else None
            with told(self._repo, self._revision):
                files = list_files(self._repo, self._at) if kept is None else kept_files(kept)
            foreign = describe_layout([file.name for file in files])
            if foreign and "config.json" not in {file.name for file in files}:
                raise KindError(f"{self._repo} {self.label}: {foreign}")
            kind = ".safetensors" if any(file.name.endswith(".safetensors") for file in files) else ".bin"
            self._wanted = [
                file for file in files if file.name in BESIDE or file.name.endswith((kind, f"{kind}.index.json"))
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


def _contents(files: list[WeightFile]) -> dict[str, str]:
    """Return what tells the contents of the files that opening reads: whole weights where there are any."""
    whole = {SAFETENSORS, BIN} & {file.name for file in files}
    return {
        file.name: file.content
        for file in files
        if file.name in BESIDE
        or (file.name in whole if whole else is_weight_file(file.name, {}) or index_format(file.name))
    }


@contextmanager
def told(repo: str, revision: str) -> Iterator[None]:
    """Turn the client's errors about one revision into one sentence; the rest of the series goes on.

    Raises:
        CheckpointError: this revision is not there, may not be seen, or did not arrive.
        MachineError: the disk is full or may not be written, memory runs out, or the Hub cannot be reached any more.
    """
    try:
        yield
    except PythiageoError:
        raise
    except RevisionNotFoundError:
        raise CheckpointError(f"{repo}: there is no revision {revision}") from None
    except Exception as error:  # the client's own, and whatever its transfer by Xet raises
        trouble = machine_trouble(error)
        if trouble == MEMORY:
            raise_if_memory(error, f"{repo} {revision} was fetched")
        elif trouble or isinstance(error, PermissionError):
            raise MachineError(f"{repo} {revision}: could not be kept on the disk: {quote_error(error)}") from None
        if refusal := access_problem(error):
            raise CheckpointError(f"{repo} {revision}: {refusal}") from None
        raise_if_gone(repo, revision)
        raise CheckpointError(f"{repo} {revision}: could not be fetched: {quote_error(error)}") from None


def raise_if_gone(repo: str, revision: str) -> None:
    """Ask the Hub for something small, and raise where it does not answer: then no other revision can be had either.

    A client that is set offline has nothing to ask; others may lie in its cache.

    Raises:
        MachineError: the Hub cannot be reached.
    """
    if constants.HF_HUB_OFFLINE:
        return
    try:
        list_refs(repo)
    except MachineError as error:
        raise MachineError(f"{error}; fetching {revision} was given up, what was measured is kept: --resume") from None
    except PythiageoError:
        return  # it answers, and refuses


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
    """Remove a file, and every link and content of the client's cache that its name leads to.

    Content that came by Xet lies in a store of the whole cache, ``blobs/xx/HASH``, which a repository's own blob links
    to. What is no blob, such as a file that somebody linked to, is left.
    """
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        if "blobs" not in target.parent.parts[-2:]:
            return
        path = target
    path.unlink(missing_ok=True)
