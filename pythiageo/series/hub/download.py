"""One checkpoint on the Hub: what it takes, what it is made of, bringing it here."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from pythiageo.series.checkpoint import OpenCheckpoint
from pythiageo.series.files.load import open_folder
from pythiageo.series.files.tensor_files import BIN, SAFETENSORS
from pythiageo.series.files.weight_files import WeightFile, index_format, is_weight_file
from pythiageo.series.hub.address import Address
from pythiageo.series.hub.cached import is_offline, kept_files, kept_folder, name_kept
from pythiageo.series.hub.client import list_files
from pythiageo.series.hub.failures import told
from pythiageo.series.hub.fetch import Fetch, download, holds
from pythiageo.series.kinds import KindError, describe_layout
from pythiageo.series.origin import BESIDE, Source
from pythiageo.series.sources.folder import read_tokens


class HubCheckpoint:
    """The files at one address: a revision of a repository, or a folder of one.

    With a ``store`` it is fetched into a folder there, which ``drop`` removes; files that the client's own cache
    already has whole are used from there, and left. Without one it is fetched into the client's cache, and stays.
    """

    def __init__(self, step: int, address: Address, tokens: int | None, store: Path | None = None) -> None:
        self.step = step
        self._address = address
        self._tokens = tokens
        self._own = store / f"step{step}" if store is not None else None
        self._fetch = Fetch()
        self._folder: Path | None = None
        self._wanted: list[WeightFile] | None = None

    def stored_in(self, store: Path) -> HubCheckpoint:
        """Return the same checkpoint, to be fetched into a folder of ``store``."""
        return HubCheckpoint(self.step, self._address, self._tokens, store)

    @property
    def label(self) -> str:
        """Its name, with its commit."""
        commit = self._address.commit
        return f"{self._address.name}@{commit[:7]}" if commit else self._address.name

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
        """Return the bytes that have come so far, files under way included."""
        if self._own is None:
            return self._fetch.bytes
        total = 0
        for folder, _, names in os.walk(self._own):
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
            root = download(self._address, names, self._files(), self._own, self._fetch)
            if self._own is None:
                name_kept(root, self._address.revision, self._address.commit)
            self._folder = self._address.inside(root)
        if self._tokens is None:
            self._tokens = read_tokens(self._folder)

    def stop(self) -> None:
        """End a fetch that is under way in another thread."""
        self._fetch.stop()

    def source(self) -> Source:
        """Return its commit, and the files that opening it reads as the Hub lists them, if they were listed."""
        return Source(self._address.commit, None if self._wanted is None else _contents(self._wanted))

    def listed(self) -> Source:
        """Return the same, listed now if they were not. Raises ``CheckpointError`` where that cannot be done."""
        self._files()
        return self.source()

    def describe(self, into: Path) -> Path:
        """Fetch config and tokenizer ``into`` a folder.

        Raises:
            CheckpointError: this revision cannot be had.
        """
        if is_offline() and (folder := kept_folder(self._address)):
            return folder
        names = [file.name for file in self._files() if file.name in BESIDE]
        return self._address.inside(download(self._address, names, [], into))

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
        return self.open_on("cpu")

    def open_on(self, device: str) -> OpenCheckpoint:
        """Load it onto a device, after fetching it if that was not done; see ``fetch`` and ``open_folder``."""
        if self._folder is None:
            self.fetch()
        assert self._folder is not None
        return open_folder(self._folder, f"{self._address.repo} {self.label}", device)

    def _files(self) -> list[WeightFile]:
        """Return the files to fetch: weights of one format, config and tokenizer; listed once."""
        if self._wanted is None:
            kept = kept_folder(self._address) if is_offline() else None
            with told(self._address.repo, self._address.name):
                files = list_files(self._address) if kept is None else kept_files(kept)
            foreign = describe_layout([file.name for file in files])
            if foreign and "config.json" not in {file.name for file in files}:
                raise KindError(f"{self._address.repo} {self.label}: {foreign}")
            kind = ".safetensors" if any(file.name.endswith(".safetensors") for file in files) else ".bin"
            self._wanted = [
                file for file in files if file.name in BESIDE or file.name.endswith((kind, f"{kind}.index.json"))
            ]
        return self._wanted

    def _cached(self) -> Path | None:
        """Return the client's own copy of this commit, if it has every file whole; it is read and never removed."""
        if self._own is None:
            return None
        folder = kept_folder(self._address)
        if folder is None:
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
