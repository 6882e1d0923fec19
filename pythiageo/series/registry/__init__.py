"""Series that are known by name: a file each of how their revisions are named, in which stages, of how many tokens."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pythiageo.errors import UserError
from pythiageo.extensions import SERIES, named_folders
from pythiageo.series.names import StepNames
from pythiageo.validation import check_table, read_table

BRANCHES, COMMITS, FOLDERS, REPOSITORIES = "branches", "commits", "folders", "repositories"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(_Table):
    """A stage of training: how its checkpoints are named, and where on the series' axis it lies.

    ``pattern``: as for ``StepNames``; ``names``: a list in place of it, in order, for names without a number.
    ``follows``: the stage whose end this one begins at; its own numbers count from there unless they ``go_on``.
    ``steps``, ``tokens``: its length; default: up to its last checkpoint. ``optional``: not on the main line (one of
    several parallel runs, fine-tuning), read only where it is asked for.
    """

    name: str
    pattern: str | None = None
    names: tuple[str, ...] = ()
    follows: str | None = None
    go_on: bool = False
    steps: int | None = Field(None, gt=0)
    tokens: int | None = Field(None, gt=0)
    tokens_per_step: int | None = Field(None, gt=0)
    optional: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Stage:
        if (self.pattern is None) == (not self.names):
            raise ValueError("expected a pattern, or a list of names")
        return self


class Entry(_Table):
    """A public series: which repositories it is, and how their checkpoints are laid out.

    ``repositories``: regular expressions that a repository's whole name matches, whatever its letter case. ``layout``:
    where a checkpoint lies: ``branches`` (or tags) of one repository, ``commits`` of ``main``, ``folders`` of one
    ``revision``, whose paths are their names, or ``repositories`` of their own, of one owner. ``unit``: what names
    count. ``names_per_step``: how much a name advances in one optimiser step. ``tokenizer``: the repository that has
    it, where the series' own has none. ``causal``: whether its models are causal language models.
    """

    name: str
    title: str
    source: str
    """Where these facts are from."""
    repositories: tuple[str, ...]
    layout: Literal["branches", "commits", "folders", "repositories"] = "branches"
    revision: str = "main"
    unit: Literal["steps", "tokens", "words", "phases", "checkpoints"] = "steps"
    names_per_step: int = Field(1, gt=0)
    tokens_per_step: int | None = Field(None, gt=0)
    expected: str | None = None
    """The steps it is known to have, as ``parse_grid`` reads them."""
    tokenizer: str | None = None
    causal: bool = True
    stages: tuple[Stage, ...] = Field((), alias="stage")

    @model_validator(mode="after")
    def _known_stages(self) -> Entry:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError("two stages of one name")
        for number, stage in enumerate(self.stages):
            if stage.follows is not None and stage.follows not in names[:number]:
                raise ValueError(f"stage {stage.name!r} follows {stage.follows!r}, which is none of those before it")
            try:
                StepNames(stage.pattern, unit=self.unit, what=f"stage {stage.name!r}: pattern")
            except UserError as error:
                raise ValueError(str(error)) from None
        for pattern in self.repositories:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"repositories: {pattern!r} is not a regular expression: {error}") from None
        return self

    def check_readable(self, repository: str) -> None:
        """Check that a repository of this series can be read.

        Raises:
            UserError: its models are no causal language models.
        """
        if not self.causal:
            raise UserError(
                f"{repository}: {self.title} see later tokens: they are no causal language models, and are not measured"
            )

    def is_of(self, repository: str) -> bool:
        """Return whether a repository is of this series."""
        return any(re.fullmatch(pattern, repository, re.IGNORECASE) for pattern in self.repositories)


def read_entry(path: Path) -> Entry:
    """Read and check one file.

    Raises:
        UserError: not TOML, an unknown or missing key, a wrong value; the sentence names file, key and expectation.
    """
    return check_table(read_table(path, "file of a series"), Entry, path)


@cache
def load_entries(folder: Path | None = None) -> dict[str, Entry]:
    """Return every known series by name: those here, of installed packages, and of ``folder``, where the later counts.

    Raises:
        UserError: a file that cannot be read, or two of one name in one place.
    """
    found: dict[str, Entry] = {}
    if folder is not None and not folder.is_dir():
        raise UserError(f"{folder}: no such folder of series (--series-folder)")
    own = [] if folder is None else [folder]
    for place in (Path(__file__).parent, *named_folders(SERIES), *own):
        here: dict[str, Path] = {}
        for path in sorted(place.glob("*.toml")):
            entry = read_entry(path)
            if entry.name in here:
                raise UserError(f"{path} and {here[entry.name]} are both of the series {entry.name!r}")
            here[entry.name] = path
            found[entry.name] = entry
    return found


def find_entry(repository: str, folder: Path | None = None) -> Entry | None:
    """Return the series that a repository is of, or ``None``; where several say so, the last one read."""
    return next((entry for entry in reversed(load_entries(folder).values()) if entry.is_of(repository)), None)
