"""A series on the Hub: a repository with a revision a step, fetched by the real client."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub.constants import HF_HUB_CACHE

from pythiageo.errors import UserError
from pythiageo.series.files.weight_files import Revision
from pythiageo.series.hub.client import Listing, list_files, list_refs
from pythiageo.series.hub.download import HubCheckpoint, download, told
from pythiageo.series.hub.retry import be_patient
from pythiageo.series.steps import PYTHIA_STEPS, PYTHIA_TOKENS_PER_STEP, StepNames, unique_steps

_PYTHIA = re.compile(r"EleutherAI/pythia-(?!intervention)(?!.*-v0$)[\w.-]+")
_V0 = re.compile(r"EleutherAI/pythia-[\w.-]+-v0")
_HALVED = re.compile(r"EleutherAI/pythia-(160m|410m|1\.4b)(-deduped)?-v0")
"""First releases trained with batches of twice the tokens, whose revisions are named as if they were not: ``step1000``
is optimiser step 500."""
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_LISTERS = 8
"""Revisions listed at the same time."""


class HubSeries:
    """A repository whose branches or tags are named by step, such as ``EleutherAI/pythia-160m``.

    ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` act as for any client of the Hub; they are read when the client library
    is first imported, so set them before the process starts.
    """

    def __init__(self, repo: str, step_pattern: str | None = None) -> None:
        be_patient()
        self._repo = repo
        halved = step_pattern is None and _HALVED.fullmatch(repo) is not None
        self._names = StepNames(step_pattern, 2 if halved else 1)
        self._tokens_per_step = PYTHIA_TOKENS_PER_STEP * (2 if halved else 1)
        self.store: Path | None = None
        """Where checkpoints are fetched to, each dropped when done; ``None``: the client's cache, where they stay."""
        self._commits: dict[str, str | None] | None = None

    @property
    def name(self) -> str:
        """The repository."""
        return self._repo

    @property
    def size(self) -> str:
        """The repository's name without its owner."""
        return self._repo.rpartition("/")[2]

    @property
    def expected(self) -> tuple[int, ...]:
        """The steps it is known to have: Pythia's own for a Pythia repository, else none."""
        return PYTHIA_STEPS if self._is_pythia() else ()

    def steps(self) -> list[int]:
        """Return the steps that have a revision, ascending.

        Raises:
            UserError: no such repository, no access to it, no revision named by step, or two of one step.
            MachineError: the Hub cannot be reached.
        """
        return sorted(self._by_step())

    def checkpoints(self, steps: list[int]) -> Iterator[HubCheckpoint]:
        """Yield the checkpoints of ``steps``; nothing is fetched before they are opened."""
        revisions = self._by_step()
        known = self._is_pythia() or _V0.fullmatch(self._repo) is not None
        for step in steps:
            named = self._names.parse(revisions[step])
            tokens = step * self._tokens_per_step if known else named.tokens if named else None
            commit = self._known_commits()[revisions[step]]
            yield HubCheckpoint(self._repo, step, revisions[step], commit, tokens, self.store)

    @contextmanager
    def all_weights(self, step: int) -> Iterator[Path]:
        """Fetch the weight files of a step in every format into a folder that is removed at the end."""
        revision = self._by_step()[step]
        commit = self._known_commits()[revision] or revision
        Path(HF_HUB_CACHE).mkdir(parents=True, exist_ok=True)
        # on the disk where the client keeps its files: the one for temporary files may be small
        with TemporaryDirectory(prefix=".pythiageo-", dir=HF_HUB_CACHE) as folder:
            with told(self._repo, revision):
                kinds = (".safetensors", ".bin", ".index.json")
                promised = [file for file in list_files(self._repo, commit) if file.name.endswith(kinds)]
                patterns = [f"*{kind}" for kind in kinds]
                fetched = download(self._repo, revision, commit, patterns, promised, Path(folder))
            yield fetched

    def inventory(self, report: Callable[[int, int], None]) -> list[Revision]:
        """Return the weight files of every step and of ``main``, from the Hub's listings alone.

        Revisions of one commit are listed once. ``report`` is told how many of how many listings are done.

        Raises:
            UserError: no access.
            MachineError: the Hub cannot be reached; the client has retried by itself.
        """
        wanted: list[tuple[int | None, str]] = list(self._by_step().items())
        commits = self._known_commits()
        if "main" in commits:
            wanted.append((None, "main"))
        at = {commits[name] or name: (step, name) for step, name in wanted}
        listing, listed = Listing(self._repo), {}
        with ThreadPoolExecutor(_LISTERS) as pool:
            futures = {
                pool.submit(listing.revision, step, name, commits[name]): key for key, (step, name) in at.items()
            }
            try:
                for done, (future, key) in enumerate(futures.items(), start=1):
                    listed[key] = future.result()
                    report(done, len(futures))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [_renamed(listed[commits[name] or name], step, name) for step, name in wanted]

    def _is_pythia(self) -> bool:
        return _PYTHIA.fullmatch(self._repo) is not None and set(self._by_step()) <= set(PYTHIA_STEPS)

    def _by_step(self) -> dict[int, str]:
        names = sorted(self._known_commits())
        found = unique_steps(names, self._names, self._repo)
        if not found:
            raise UserError(f"{self._repo}: none of its {len(names)} revisions is named by step, such as step1000")
        return found

    def _known_commits(self) -> dict[str, str | None]:
        """Return the commit of every branch and tag, asked for once."""
        if self._commits is None:
            refs = list_refs(self._repo)
            self._commits = {ref.name: ref.target_commit for ref in [*refs.tags, *refs.branches]}
        return self._commits


def open_target(target: str, step_pattern: str | None = None) -> HubSeries | None:
    """Return the series of the repository ``target``; ``None`` if that is no repository's name."""
    return HubSeries(target, step_pattern) if _REPOSITORY.fullmatch(target) else None


def _renamed(revision: Revision, step: int | None, name: str) -> Revision:
    return Revision(step, name, revision.commit, revision.files, revision.indexes, revision.absent)
