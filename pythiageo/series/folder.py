"""A series on disk: a folder of checkpoint folders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pythiageo.errors import UserError
from pythiageo.series.checkpoint import OpenCheckpoint
from pythiageo.series.opening import is_checkpoint, open_folder
from pythiageo.series.steps import parse_step


@dataclass(frozen=True)
class FolderCheckpoint:
    """A checkpoint folder."""

    step: int
    path: Path

    @property
    def label(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def tokens(self) -> int | None:
        """Training tokens seen, from ``training.json``."""
        return read_tokens(self.path)

    def open(self) -> OpenCheckpoint:
        """Load it; see ``open_folder``."""
        return open_folder(self.path, self.label)


class FolderSeries:
    """Folders named by step inside ``path``, or inside its ``checkpoints`` (a run folder); or one checkpoint alone.

    A single checkpoint folder counts as the step its name says, as step 0 if it says none.

    Raises:
        UserError: no such folder, no checkpoint in it, or two folders of one step.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise UserError(f"{path}: no such folder of checkpoints")
        self._path = path
        root = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        self._folders: dict[int, Path] = {}
        if is_checkpoint(root):
            self._folders[parse_step(root.resolve().name) or 0] = root
        else:
            for folder in sorted(entry for entry in root.iterdir() if entry.is_dir()):
                step = parse_step(folder.name)
                if step is None:
                    continue
                if step in self._folders:
                    raise UserError(f"{root}: {self._folders[step].name} and {folder.name} are both step {step}")
                self._folders[step] = folder
        if not self._folders:
            raise UserError(
                f"{path}: no checkpoint: expected folders named by step (step1000, checkpoint-1000), or a config.json "
                f"with weights"
            )

    @property
    def name(self) -> str:
        """The folder's name."""
        return self._path.resolve().name

    @property
    def size(self) -> str:
        """The folder's name: the folder does not say the size's."""
        return self.name

    def steps(self) -> list[int]:
        """Return the steps that are there, ascending."""
        return sorted(self._folders)

    def folder(self, step: int) -> Path:
        """Return the folder of ``step``."""
        return self._folders[step]

    def checkpoints(self, steps: list[int]) -> Iterator[FolderCheckpoint]:
        """Yield the checkpoints of ``steps``."""
        for step in steps:
            yield FolderCheckpoint(step, self._folders[step])


def open_target(target: str) -> FolderSeries | None:
    """Return the folder series at the path ``target``; ``None`` if it is no path. Raises as ``FolderSeries``."""
    if Path(target).exists() or target.startswith((".", "/", "~")):
        return FolderSeries(Path(target).expanduser())
    return None


def read_tokens(folder: Path) -> int | None:
    """Return the training tokens that a checkpoint folder's ``training.json`` says, ``None`` where it says none."""
    try:
        tokens = json.loads((folder / "training.json").read_text(encoding="utf-8"))["tokens"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return tokens if isinstance(tokens, int) and tokens >= 0 else None
