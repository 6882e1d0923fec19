"""What a series is asked for: checkpoints that can be opened one at a time. What it need not have stands below that."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeGuard, runtime_checkable

from pythiageo.errors import UserError
from pythiageo.series.origin import Source

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class OpenCheckpoint:
    """A checkpoint in memory: raw weights, as saved, in float32, in evaluation mode.

    ``model`` is a plain ``torch`` module (for ``folder`` and ``hub`` a transformers causal language model).
    ``tokenizer_folder`` holds ``tokenizer.json``; ``None`` for a live model, whose tokenizer the caller knows.
    """

    model: nn.Module
    weight_sha: str
    architecture: str
    tokenizer_folder: Path | None
    nonfinite: str | None = None
    """Why the weights cannot be measured (which tensor holds NaN or infinity), or ``None``."""
    note: str | None = None
    """What whoever reads its numbers must know of the model, such as code of its own that was not run."""


class Step(Protocol):
    """A place in training, as rows and messages call it."""

    @property
    def step(self) -> int:
        """Optimiser steps taken."""

    @property
    def tokens(self) -> int | None:
        """Training tokens seen, or ``None`` where the series does not say."""

    @property
    def label(self) -> str:
        """Where it is, for people: a revision or a folder name."""


class Checkpoint(Step, Protocol):
    """One training step of a series."""

    def describe(self, into: Path) -> Path:
        """Return a folder with its config and tokenizer; what must be fetched, but no weights, comes ``into`` one."""

    def source(self) -> Source:
        """Return what it is read from; for one on the Hub known once it was fetched."""

    def open(self) -> OpenCheckpoint:
        """Load it. Raises ``CheckpointError`` when it cannot be read; NaN weights are told by ``nonfinite``."""


class Series(Protocol):
    """Ordered checkpoints of one model."""

    @property
    def name(self) -> str:
        """The run, folder or repository the checkpoints come from."""

    @property
    def size(self) -> str:
        """Size name, for people and tables."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences that whoever reads its numbers must know: what of it is not read, another name it has."""

    def steps(self) -> list[int]:
        """Steps the series has, ascending. Raises ``UserError`` if it has none or cannot be reached."""

    def checkpoints(self, steps: list[int]) -> Iterator[Checkpoint]:
        """Yield the checkpoints of these steps, in ascending order."""


FETCHING = 256 * 10**6
"""Bytes of memory that fetching takes at most beside a run, files of any size: 170 MB by Xet, 90 by plain HTTP."""


class Fetchable(Checkpoint, Protocol):
    """A checkpoint whose files are not here: they are brought here while an earlier one is measured, and dropped again.

    Without ``store`` files stay wherever fetching puts them.
    """

    def stored_in(self, store: Path) -> Fetchable:
        """Return the same checkpoint, to be fetched into a folder of its own inside ``store``."""

    def size(self) -> int:
        """Return the bytes that fetching will add to the disk; 0 where they are here already."""

    def arrived(self) -> int:
        """Return the bytes of it that are here so far."""

    def fetch(self) -> None:
        """Bring its files here. Raises ``CheckpointError`` when they cannot be had."""

    def drop(self) -> None:
        """Remove what ``fetch`` brought into the store, and only that."""


@runtime_checkable
class Stoppable(Protocol):
    """A checkpoint of which a fetch that is under way can be ended from another thread."""

    def stop(self) -> None:
        """End it at once: ``fetch`` raises ``CheckpointError`` where it was called."""


@runtime_checkable
class Described(Protocol):
    """A series with a config and a tokenizer of its own, whatever its steps: those of a repository's ``main``."""

    def describe(self, into: Path) -> Path:
        """Return a folder with them; what must be fetched comes ``into`` one."""


@runtime_checkable
class Mapped(Protocol):
    """A checkpoint of which files are mapped whole beside the weights while it is opened: ``.bin`` ones."""

    def mapped(self) -> int:
        """Return their bytes. Raises ``CheckpointError`` when it has no weights."""


@runtime_checkable
class OnDevice(Protocol):
    """A checkpoint of which the weights can be loaded onto a device; another one's come there from the CPU."""

    def open_on(self, device: str) -> OpenCheckpoint:
        """Load it as ``open`` does, with its weights on a resolved device."""


@runtime_checkable
class InFolder(Protocol):
    """A checkpoint that lies in a folder, which every worker that opens it must see."""

    path: Path


@runtime_checkable
class Remembering(Protocol):
    """A series that remembers in a file what was read of its own files, so that a later look need not read them."""

    def remember_in(self, file: Path) -> None:
        """Take the file where that is kept."""

    def remembering(self, steps: Sequence[int]) -> AbstractContextManager[Callable[[int, str], None]]:
        """Give a function that notes the fingerprint of a step's weights, read meanwhile; at the end all is kept."""


def is_fetchable(checkpoint: Checkpoint) -> TypeGuard[Fetchable]:
    """Return whether a checkpoint has all that fetching ahead takes; one that has not fetches when it is opened."""
    return not _missing(checkpoint, Fetchable)


def checkpoints_of(series: Series, steps: list[int], store: Path | None = None) -> Iterator[Checkpoint]:
    """Yield the checkpoints of these steps; those that are fetched come into ``store``.

    Raises:
        UserError: a checkpoint is not what one has to be.
    """
    for checkpoint in series.checkpoints(steps):
        check_parts(checkpoint, Checkpoint, f"a checkpoint of {series.name}")
        yield checkpoint.stored_in(store) if store is not None and is_fetchable(checkpoint) else checkpoint


def check_parts(thing: object, protocol: type, what: str) -> None:
    """Look whether something from another package has what a protocol asks for; ``what`` begins the sentence.

    Raises:
        UserError: it lacks something.
    """
    if missing := _missing(thing, protocol):
        raise UserError(f"{what} ({type(thing).__module__}.{type(thing).__name__}) has no {', '.join(missing)}")


def _missing(thing: object, protocol: type) -> list[str]:
    """Return the names that a protocol has and ``thing`` has not; nothing of it is called."""
    names = [name for base in reversed(protocol.__mro__) for name in vars(base) if not name.startswith("_")]
    absent = object()
    return [name for name in dict.fromkeys(names) if inspect.getattr_static(thing, name, absent) is absent]
