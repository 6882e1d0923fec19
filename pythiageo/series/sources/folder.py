"""A series on disk: a folder of checkpoint folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pythiageo.errors import CheckpointError, UserError, quote_error
from pythiageo.interrupts import map_in_threads
from pythiageo.series.checkpoint import OpenCheckpoint
from pythiageo.series.files.hash_cache import HashMemory, weights_state
from pythiageo.series.files.load import is_checkpoint, open_folder
from pythiageo.series.files.slices import read_part
from pythiageo.series.files.tensor_files import weight_files
from pythiageo.series.files.weight_files import (
    INDEX_LIMIT,
    Revision,
    WeightFile,
    index_format,
    is_weight_file,
    shards_of,
    weight_map_of,
)
from pythiageo.series.kinds import describe_layout, names_in
from pythiageo.series.layout import Naming
from pythiageo.series.names import MOST, parse_step
from pythiageo.series.origin import OTHER_WEIGHTS, Source, differences, hash_beside
from pythiageo.series.steps import left_out
from pythiageo.untrusted_files import read_json

_HASHERS = 4
"""Files hashed at the same time."""


@dataclass(frozen=True)
class FolderCheckpoint:
    """A checkpoint folder."""

    step: int
    path: Path
    named_tokens: int | None = None

    @property
    def label(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def tokens(self) -> int | None:
        """Training tokens seen, from ``training.json``, else from the folder's name."""
        told = read_tokens(self.path)
        return self.named_tokens if told is None else told

    def describe(self, into: Path) -> Path:
        """Return the folder itself."""
        return self.path

    def source(self) -> Source:
        """Return the files beside the weights."""
        return Source(None, hash_beside(self.path))

    def mapped(self) -> int:
        """Return the bytes of its ``.bin`` files, if its weights are read from them.

        Raises:
            CheckpointError: it has no weights.
        """
        return sum(file.stat().st_size for file in weight_files(self.path, self.label) if file.suffix == ".bin")

    def open(self) -> OpenCheckpoint:
        """Load it; see ``open_folder``."""
        return self.open_on("cpu")

    def open_on(self, device: str) -> OpenCheckpoint:
        """Load it onto a device; see ``open_folder``."""
        return open_folder(self.path, self.label, device)


class FolderSeries:
    """Folders named by step inside ``path``, or inside its ``checkpoints`` (a run folder); or one checkpoint alone.

    Folders named by step come first: weights beside them, as a trainer leaves them at the end, are not a step of the
    series. A single checkpoint folder counts as the step that its name says, else its ``training.json``, else as 0.

    Raises:
        UserError: no such folder, no checkpoint in it, or two folders of one step.
    """

    def __init__(self, path: Path, naming: Naming | None = None) -> None:
        if not path.is_dir():
            raise UserError(f"{path}: no such folder of checkpoints")
        self._path = path
        self._memory = HashMemory()
        root = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        self._root = root
        folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
        self.layout = (naming or Naming()).arrange(folders, str(root))
        """Where its checkpoints lie, and what is not read."""
        self._folders = {step: root / place.name for step, place in self.layout.places.items()}
        if not self._folders and is_checkpoint(root):
            self._folders[_step_of(root)] = root
        if not self._folders:
            foreign = describe_layout(names_in(root))
            raise UserError(
                f"{path}: {foreign}"
                if foreign
                else f"{path}: no checkpoint: expected folders named by step (step1000, checkpoint-1000), or a "
                f"config.json with weights"
            )

    @property
    def name(self) -> str:
        """The folder's name."""
        return self._path.resolve().name

    @property
    def size(self) -> str:
        """The folder's name: the folder does not say the size's."""
        return self.name

    @property
    def expected(self) -> tuple[int, ...]:
        """No steps: a folder says nothing of those it does not have."""
        return ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be said of the series: folders that hold a checkpoint, and are not read."""
        found = self.layout
        read = {self._root.resolve(), *(folder.resolve() for folder in self._folders.values())}
        others = [
            name
            for name in found.unread
            if is_checkpoint(self._root / name) and (self._root / name).resolve() not in read
        ]
        unread = left_out(others, len(others) + len(self._folders), "folders")
        return (*found.remarks, *(f"of its folders, {one}" for one in found.left_out), *unread)

    def steps(self) -> list[int]:
        """Return the steps that are there, ascending."""
        return sorted(self._folders)

    def folder(self, step: int) -> Path:
        """Return the folder of ``step``."""
        return self._folders[step]

    def checkpoints(self, steps: list[int]) -> Iterator[FolderCheckpoint]:
        """Yield the checkpoints of ``steps``."""
        for step in steps:
            place = self.layout.places.get(step)
            yield FolderCheckpoint(step, self._folders[step], place.tokens if place else None)

    def remember_in(self, file: Path) -> None:
        """See ``Remembering``: the hashes of its files and the fingerprints of its weights."""
        self._memory = HashMemory(file)

    @contextmanager
    def remembering(self, steps: Sequence[int]) -> Iterator[Callable[[int, str], None]]:
        """See ``Remembering``: noted where no weight file of the step has changed since the beginning."""
        before = {}
        for step in steps:
            with suppress(CheckpointError, OSError):
                before[step] = weights_state(self._folders[step])

        def note(step: int, weight_sha: str) -> None:
            if step in before:
                with suppress(CheckpointError, OSError):
                    self._memory.remember(self._folders[step], before[step], weight_sha)

        try:
            yield note
        finally:
            self._memory.keep()

    def moved(self, step: int, weight_sha: str, source: Source | None) -> list[str]:
        """See ``Lasting``: the weights by their fingerprint, read where nothing of their files is as it was noted."""
        folder = self._folders[step]
        try:
            other = [] if self._memory.fingerprint(folder) == weight_sha else [OTHER_WEIGHTS]
        except (CheckpointError, OSError):
            other = ["weights that cannot be read any more"]
        known = source.files if source else None
        return other if known is None else [*other, *differences(known, hash_beside(folder))]

    @contextmanager
    def all_weights(self, step: int) -> Iterator[Path]:
        """Give the folder of a step."""
        yield self._folders[step]

    def read_bytes(self, revision: Revision, name: str, start: int, count: int) -> bytes:
        """Return some bytes of a weight file of a step, or of ``main``. Raises ``CheckpointError``."""
        folder = self._root / "main" if revision.step is None else self._folders[revision.step]
        return read_part(folder / name, start, count)

    def inventory(self, report: Callable[[int, int], None]) -> list[Revision]:
        """Return the weight files of every step, and of a folder ``main`` beside them, each hashed;
        see ``HashMemory``.

        ``report`` is told how many of how many folders are done.
        """
        wanted: list[tuple[int | None, Path]] = list(self._folders.items())
        if is_checkpoint(self._root / "main"):
            wanted.append((None, self._root / "main"))
        revisions, hashes = list[Revision](), self._memory
        for revision in map_in_threads(lambda one: _list_folder(*one, hashes), wanted, _HASHERS):
            revisions.append(revision)
            report(len(revisions), len(wanted))
        hashes.keep()
        return revisions


def _list_folder(step: int | None, folder: Path, hashes: HashMemory) -> Revision:
    try:
        return _read_folder(step, folder, hashes)
    except OSError as error:  # of this checkpoint; others can be read
        return Revision(step, folder.name, absent=f"its files cannot be read: {quote_error(error)}")


def _read_folder(step: int | None, folder: Path, hashes: HashMemory) -> Revision:
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    maps = {
        kind: weight_map_of(path.read_bytes()) if path.stat().st_size <= INDEX_LIMIT else {}
        for path in paths
        if (kind := index_format(path.name)) is not None
    }
    indexes = {kind: shards_of(weight_map) for kind, weight_map in maps.items()}
    files = []
    for path in paths:
        if is_weight_file(path.name, indexes):
            files.append(WeightFile(path.name, hashes.sha256(path), path.stat().st_size))
    return Revision.listed(step, folder.name, None, files, maps)


def open_target(target: str, naming: Naming | None = None) -> FolderSeries | None:
    """Return the folder series at the path ``target``; ``None`` if it is no path. Raises as ``FolderSeries``."""
    if Path(target).exists() or target.startswith((".", "/", "~")):
        return FolderSeries(Path(target).expanduser(), naming)
    return None


def read_tokens(folder: Path) -> int | None:
    """Return the training tokens that a checkpoint folder's ``training.json`` says, ``None`` where it says none."""
    return _told(folder, "tokens")


def _step_of(folder: Path) -> int:
    """Return the step of a checkpoint that stands alone."""
    named = parse_step(folder.resolve().name)
    return named if named is not None else _told(folder, "step") or 0


def _told(folder: Path, key: str) -> int | None:
    """Return a count of ``training.json``, ``None`` where it has none that a table could hold."""
    try:
        count = read_json(folder / "training.json")[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return count if type(count) is int and 0 <= count < MOST else None
