"""A series on the Hub: a repository with a revision a step, fetched by the real client."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from huggingface_hub.constants import HF_HUB_CACHE

from pythiageo.errors import CheckpointError, MachineError, UserError
from pythiageo.interrupts import map_in_threads
from pythiageo.series.files.kept import KeptAnswers
from pythiageo.series.files.weight_files import Revision
from pythiageo.series.hub.cached import is_offline, kept_revisions, kept_weights
from pythiageo.series.hub.client import Listing, list_commits, list_files, list_refs, proper_name
from pythiageo.series.hub.download import HubCheckpoint
from pythiageo.series.hub.failures import told
from pythiageo.series.hub.fetch import download
from pythiageo.series.hub.ranges import read_range
from pythiageo.series.hub.retry import be_patient
from pythiageo.series.layout import Layout, Naming
from pythiageo.series.origin import Source, differences
from pythiageo.series.registry import BRANCHES, Entry
from pythiageo.series.steps import left_out, parse_grid, shortened

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_LISTERS = 8
"""Revisions listed at the same time."""


class HubSeries:
    """A repository whose branches or tags are named by step, such as ``EleutherAI/pythia-160m``.

    It is who the Hub says it is: another letter case, or a name that it had once, leads to the same series. Where the
    client is offline, it is what the client's cache holds of it.

    ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` act as for any client of the Hub; they are read when the client library
    is first imported, so set them before the process starts.
    """

    def __init__(self, repo: str, naming: Naming | None = None) -> None:
        be_patient()
        self._asked = repo
        self._naming = naming or Naming()
        self.kept = KeptAnswers()
        """What commits hold, from one audit to the next."""

    @property
    def name(self) -> str:
        """The repository, as the Hub spells it. Raises as ``steps``."""
        return self._known.repo

    @property
    def size(self) -> str:
        """The repository's name without its owner."""
        return self.name.rpartition("/")[2]

    @property
    def expected(self) -> tuple[int, ...]:
        """The steps it is known to have, such as Pythia's own; none of a cache alone, nor where it has others."""
        grid = self._grid
        return grid if not is_offline() and set(self._by_step()) <= set(grid) else ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be said of the series: another name, revisions that are not read. Raises as ``steps``."""
        said = []
        if self.name.lower() != self._asked.lower():
            said.append(f"{self._asked} is called {self.name} now")
        if is_offline():
            said.append(
                f"the Hub client is offline: of {self.name} only the {len(self._known.commits)} revisions that its "
                f"cache names are known"
            )
        if self._entry is not None and self._entry.tokenizer:
            said.append(f"its tokenizer is that of {self._entry.tokenizer}: --tokenizer {self._entry.tokenizer}")
        found = self.layout
        kind = self._read.kind
        unread = left_out(found.unread, len(found.places) + len(found.unread), kind)
        return (*said, *found.remarks, *(f"of its {kind}, {one}" for one in found.left_out), *unread)

    def steps(self) -> list[int]:
        """Return the steps that have a revision, ascending.

        Raises:
            UserError: no such repository, no access to it, no revision named by step, or two of one step.
            MachineError: the Hub cannot be reached.
        """
        return sorted(self._by_step())

    def checkpoints(self, steps: list[int]) -> Iterator[HubCheckpoint]:
        """Yield the checkpoints of ``steps``; nothing is fetched before they are opened."""
        self._by_step()
        repo, commits = self._known.repo, self._read.commits
        for step in steps:
            place = self.layout.places[step]
            yield HubCheckpoint(repo, step, place.name, commits[place.name], place.tokens)

    def describe(self, into: Path) -> Path:
        """Fetch config and tokenizer of ``main``; see ``HubCheckpoint.describe``."""
        return HubCheckpoint(self._asked, 0, "main", None, None).describe(into)

    def moved(self, step: int, weight_sha: str, source: Source | None) -> list[str]:
        """See ``Lasting``: by the commit of the revision and, where that is another one, by the Hub's listing."""
        if source is None:
            return ["files that were not noted when they were measured"]
        checkpoint = next(self.checkpoints([step]))
        if source.commit is not None and checkpoint.source().commit == source.commit:
            return []
        try:
            now = checkpoint.listed()
        except CheckpointError:
            return ["files that cannot be listed any more"]
        if source.files is None:
            return ["another commit"]
        return differences(source.files, now.files or {})

    @contextmanager
    def all_weights(self, step: int) -> Iterator[Path]:
        """Fetch the weight files of a step in every format into a folder that is removed at the end."""
        revision = self._by_step()[step]
        repo, commits = self._known.repo, self._read.commits
        commit = commits[revision] or revision
        Path(HF_HUB_CACHE).mkdir(parents=True, exist_ok=True)
        # on the disk where the client keeps its files: the one for temporary files may be small
        with TemporaryDirectory(prefix=".pythiageo-", dir=HF_HUB_CACHE) as folder:
            with told(repo, revision):
                kinds = (".safetensors", ".bin", ".index.json")
                promised = [file for file in list_files(repo, commit) if file.name.endswith(kinds)]
            patterns = [f"*{kind}" for kind in kinds]
            yield download(repo, revision, commit, patterns, promised, Path(folder) / "files")

    def read_bytes(self, revision: Revision, name: str, start: int, count: int) -> bytes:
        """Return some bytes of a weight file of a revision, and nothing else of it; see ``read_range``."""
        return read_range(self._known.repo, revision.revision, revision.commit, name, start, count)

    def inventory(self, report: Callable[[int, int], None]) -> list[Revision]:
        """Return the weight files of every step and of ``main``, from the Hub's listings alone.

        Revisions of one commit are listed once. ``report`` is told how many of how many listings are done.

        Raises:
            UserError: no access.
            MachineError: the Hub cannot be reached; the client has retried by itself.
        """
        wanted: list[tuple[int | None, str]] = list(self._by_step().items())
        repo, commits = self._known.repo, self._read.commits
        if "main" in commits:
            wanted.append((None, "main"))
        at = {commits[name] or name: (step, name) for step, name in wanted}
        listing, listed = Listing(repo, self.kept), dict[str, Revision]()
        look = partial(kept_weights, repo) if is_offline() else listing.revision
        found = map_in_threads(lambda key: look(*at[key], commits[at[key][1]]), at, _LISTERS)
        for done, (key, revision) in enumerate(zip(at, found, strict=True), start=1):
            listed[key] = revision
            report(done, len(at))
        self.kept.prune()
        return [_renamed(listed[commits[name] or name], step, name) for step, name in wanted]

    @cached_property
    def _entry(self) -> Entry | None:
        """What is known of its series by name."""
        return self._naming.entry_of(self._known.repo)

    @property
    def _grid(self) -> tuple[int, ...]:
        return parse_grid(self._entry.expected) if self._entry and self._entry.expected else ()

    @property
    def layout(self) -> Layout:
        """Where its checkpoints lie, and what is not read. Raises as ``steps``."""
        return self._read.layout

    @cached_property
    def _read(self) -> _Read:
        """Its checkpoints: of branches and tags, or else of the commits of ``main``."""
        repo, commits = self._known
        entry = self._entry
        if entry is not None:
            entry.check_readable(repo)
        if entry is None or entry.layout == BRANCHES:
            found = self._naming.arrange(commits, repo, entry)
            if self._grid and not set(found.places) <= set(self._grid):  # another series of that name
                found = self._naming.arrange(commits, repo)
            if found.places or is_offline():
                return _Read(commits, found, "revisions")
        titles = list_commits(repo)
        return _Read({**commits, **titles}, self._naming.arrange(titles, repo, entry), "commits")

    def _by_step(self) -> dict[int, str]:
        found = {step: place.name for step, place in self.layout.places.items()}
        names = sorted(self._known.commits)
        if not found:
            commits = len(self.layout.unread) if self._read.kind == "commits" else 0
            also = f", nor any of its {commits} commits" if commits else ""
            raise UserError(
                f"{self._known.repo}: none of its {len(names)} revisions is named by step, such as step1000{also}"
                + (f" ({shortened(names)}): --step-pattern says how they are named" if names != ["main"] else "")
            )
        return found

    @cached_property
    def _known(self) -> _Known:
        """Who the series is, and the commit of every branch and tag; asked for once."""
        if is_offline():
            repo, kept = kept_revisions(self._asked)
            if not kept:
                raise MachineError(
                    f"{self._asked}: the Hub client is set offline (HF_HUB_OFFLINE), and its cache names no revision "
                    f"of it: analyze it once with --keep while the Hub can be reached"
                )
            return _Known(repo, kept)
        refs = list_refs(self._asked)
        commits = {ref.name: ref.target_commit for ref in [*refs.tags, *refs.branches]}
        names = sorted(commits, key=lambda name: (name != "main", name))
        repo = proper_name(self._asked, names)
        return _Known(repo if _REPOSITORY.fullmatch(repo) else self._asked, commits)


class _Known(NamedTuple):
    """A repository's proper name, and the commit of each of its revisions."""

    repo: str
    commits: Mapping[str, str | None]


class _Read(NamedTuple):
    """The commit of each checkpoint by its name, where they lie, and what they are."""

    commits: Mapping[str, str | None]
    layout: Layout
    kind: str


def open_target(target: str, naming: Naming | None = None) -> HubSeries | None:
    """Return the series of the repository ``target``; ``None`` if that is no repository's name."""
    return HubSeries(target, naming) if _REPOSITORY.fullmatch(target) else None


def _renamed(revision: Revision, step: int | None, name: str) -> Revision:
    return replace(revision, step=step, revision=name)
