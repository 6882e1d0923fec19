"""A series on the Hub, fetched by the real client: a repository with a revision or a folder a step, or several."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from huggingface_hub import constants

from pythiageo.errors import CheckpointError, MachineError, UserError
from pythiageo.interrupts import map_in_threads
from pythiageo.series.files.kept import KeptAnswers
from pythiageo.series.files.weight_files import Revision
from pythiageo.series.hub.address import REPOSITORY, Address, is_pattern, main_of, shorten_target, split_names
from pythiageo.series.hub.cached import is_offline, kept_revisions, kept_weights
from pythiageo.series.hub.client import Listing, list_files, list_refs, proper_name
from pythiageo.series.hub.download import HubCheckpoint
from pythiageo.series.hub.failures import told
from pythiageo.series.hub.fetch import download
from pythiageo.series.hub.layouts import Found, find_in_repository, find_repositories, is_of_several
from pythiageo.series.hub.ranges import read_range
from pythiageo.series.hub.retry import be_patient
from pythiageo.series.layout import MAIN, Layout, Naming
from pythiageo.series.origin import Source, differences
from pythiageo.series.registry import REPOSITORIES, Entry
from pythiageo.series.steps import left_out, parse_grid, shortened

_LISTERS = 8
"""Checkpoints listed at the same time."""


class HubSeries:
    """A repository whose branches, tags, folders or commits are named by step, such as ``EleutherAI/pythia-160m``.

    Several, a repository a step, are one too: of a pattern (``me/walk-step*``), a list (``me/walk-1,me/walk-2``), or as
    the registry knows them.

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
        self._listing = Listing(self.kept)

    @property
    def name(self) -> str:
        """The repository, as the Hub spells it; of several what their names have in common. Raises as ``steps``."""
        return shorten_target(self._asked) if self._several else self._known.repo

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
        if not self._several and self.name.lower() != self._asked.lower():
            said.append(f"{self._asked} is called {self.name} now")
        if is_offline():
            said.append(
                f"the Hub client is offline: of {self.name} only the {self._count_kept()} that its cache names are "
                f"known"
            )
        if self._entry is not None and self._entry.tokenizer:
            said.append(f"its tokenizer is that of {self._entry.tokenizer}: --tokenizer {self._entry.tokenizer}")
        found, kind = self.layout, self._found.kind
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
        for step in steps:
            place = self.layout.places[step]
            yield HubCheckpoint(step, self._found.addresses[place.name], place.tokens)

    def describe(self, into: Path) -> Path:
        """Fetch config and tokenizer of ``main``; of several repositories, of the last step."""
        known = self._by_step()[self.steps()[-1]] if self._several else main_of(self._asked, None)
        return HubCheckpoint(0, known, None).describe(into)

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
        address = self._by_step()[step]
        Path(constants.HF_HUB_CACHE).mkdir(parents=True, exist_ok=True)
        # on the disk where the client keeps its files: the one for temporary files may be small
        with TemporaryDirectory(prefix=".pythiageo-", dir=constants.HF_HUB_CACHE) as folder:
            with told(address.repo, address.name):
                kinds = (".safetensors", ".bin", ".index.json")
                promised = [file for file in list_files(address) if file.name.endswith(kinds)]
            names = [file.name for file in promised]
            yield address.inside(download(address, names, promised, Path(folder) / "files"))

    def read_bytes(self, revision: Revision, name: str, start: int, count: int) -> bytes:
        """Return some bytes of a weight file of a revision, and nothing else of it; see ``read_range``."""
        return read_range(self._found.addresses[revision.revision], name, start, count)

    def inventory(self, report: Callable[[int, int], None]) -> list[Revision]:
        """Return the weight files of every step and of ``main``; see ``inventory_of``."""
        return self.inventory_of(self.steps(), report)

    def inventory_of(self, steps: Collection[int], report: Callable[[int, int], None]) -> list[Revision]:
        """Return the weight files of these steps and of ``main``, from the Hub's listings alone.

        Revisions of one commit are listed once. ``report`` is told how many of how many listings are done.

        Raises:
            UserError: no access.
            MachineError: the Hub cannot be reached; the client has retried by itself.
        """
        there = self._by_step()
        wanted: list[tuple[int | None, Address]] = [(step, there[step]) for step in sorted(steps)]
        if MAIN in self._found.addresses:
            wanted.append((None, self._found.addresses[MAIN]))
        at = {address.key: (step, address) for step, address in wanted}
        listed = dict[tuple[str, ...], Revision]()
        found = map_in_threads(lambda key: self._list(*at[key]), at, _LISTERS)
        for done, (key, revision) in enumerate(zip(at, found, strict=True), start=1):
            listed[key] = revision
            report(done, len(at))
        self.kept.prune()
        return [replace(listed[address.key], step=step, revision=address.name) for step, address in wanted]

    def count_unlisted(self) -> int:
        """Return how many steps the Hub must be asked for to list all: not those that are kept from before."""
        known = self._found.files
        there = () if is_offline() else self._by_step().values()
        return sum(one.name not in known and not self._listing.has(one) for one in there)

    def _list(self, step: int | None, address: Address) -> Revision:
        if is_offline():
            return kept_weights(step, address)
        return self._listing.revision(step, address, self._found.files.get(address.name))

    @cached_property
    def _entry(self) -> Entry | None:
        """What is known of its series by name."""
        return self._naming.entry_of(self._asked if self._several else self._known.repo)

    @cached_property
    def _several(self) -> bool:
        """Whether it has a repository a step."""
        return is_of_several(self._asked, self._naming.entry_of(self._asked))

    @property
    def _grid(self) -> tuple[int, ...]:
        return parse_grid(self._entry.expected) if self._entry and self._entry.expected else ()

    @property
    def layout(self) -> Layout:
        """Where its checkpoints lie, and what is not read. Raises as ``steps``."""
        return self._found.layout

    @cached_property
    def _found(self) -> Found:
        """Its checkpoints, however they are laid out."""
        if self._entry is not None:
            self._entry.check_readable(self.name)
        if self._several:
            return find_repositories(self._asked, self._naming, self._entry)
        return find_in_repository(*self._known, self._naming, self._entry, self._listing)

    def _by_step(self) -> dict[int, Address]:
        found = {step: self._found.addresses[place.name] for step, place in self.layout.places.items()}
        if not found:
            unread, kind = self.layout.unread, self._found.kind
            if self._several:
                many, also, names = f"{len(unread)} repositories", "", sorted(unread)
            else:
                names = sorted(self._known.commits)
                many = f"{len(names)} revisions"
                also = f", nor any of its {len(unread)} {kind}" if unread and kind != "revisions" else ""
            raise UserError(
                f"{self.name}: none of its {many} is named by step, such as step1000{also}"
                + (f" ({shortened(names)}): --step-pattern says how they are named" if names != [MAIN] else "")
            )
        return found

    def _count_kept(self) -> str:
        many = len(self._found.addresses) if self._several else len(self._known.commits)
        return f"{many} {REPOSITORIES if self._several else 'revisions'}"

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
        return _Known(repo if REPOSITORY.fullmatch(repo) else self._asked, commits)


class _Known(NamedTuple):
    """A repository's proper name, and the commit of each of its revisions."""

    repo: str
    commits: Mapping[str, str | None]


def open_target(target: str, naming: Naming | None = None) -> HubSeries | None:
    """Return the series of the repository ``target``, or of several; ``None`` if that is no repository's name."""
    known = REPOSITORY.fullmatch(target) or is_pattern(target) or split_names(target)
    return HubSeries(target, naming) if known else None
