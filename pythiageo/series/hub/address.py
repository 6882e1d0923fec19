"""Where the files of a checkpoint lie on the Hub, and what a person may name as a series there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from pythiageo.series.layout import MAIN

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_PATTERN = re.compile(r"[\w.-]+/[\w.*?-]+")


@dataclass(frozen=True)
class Address:
    """A folder of a revision of a repository, most often its top: ``folder`` is then empty.

    ``name``: what the checkpoint is called in its series: a branch, a tag, a commit's title, a folder, a repository.
    ``revision``: by what name the Hub knows it, where that is another. Plain data: it goes to other processes.
    """

    repo: str
    name: str
    commit: str | None
    folder: str = ""
    branch: str | None = None

    @property
    def revision(self) -> str:
        """The branch, tag or title that the files are found under."""
        return self.branch or self.name

    @property
    def at(self) -> str:
        """What the Hub is asked for: the commit, as a branch that moves meanwhile must not mix two checkpoints."""
        return self.commit or self.revision

    def path(self, name: str) -> str:
        """Return where a file of the checkpoint lies in its repository."""
        return f"{self.folder}/{name}" if self.folder else name

    def inside(self, root: Path) -> Path:
        """Return the checkpoint's folder where the repository's files lie in ``root``."""
        return root / self.folder

    @property
    def key(self) -> tuple[str, ...]:
        """What tells its contents from others'."""
        return (self.repo, self.at, *([self.folder] if self.folder else []))


def split_names(target: str) -> list[str] | None:
    """Return the repositories of a series that a person named one by one, with commas; ``None`` for anything else."""
    names = [name.strip() for name in target.split(",")]
    return names if len(names) > 1 and all(REPOSITORY.fullmatch(name) for name in names) else None


def is_pattern(target: str) -> bool:
    """Return whether a target stands for all repositories of an owner whose names are like it: ``me/walk-step*``."""
    return bool({"*", "?"} & set(target)) and _PATTERN.fullmatch(target) is not None


def shorten_target(target: str) -> str:
    """Return a short name of what a person named: of several repositories what their names have in common."""
    names = split_names(target)
    if names is None:
        return target
    common = "".join(letters[0] for letters in takewhile(lambda one: len(set(one)) == 1, zip(*names, strict=False)))
    return f"{common}*" if "/" in common else f"{names[0]} and {len(names) - 1} more"


def main_of(repo: str, commit: str | None) -> Address:
    """Return the top of a repository's ``main``."""
    return Address(repo, MAIN, commit)
