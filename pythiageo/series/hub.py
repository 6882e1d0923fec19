"""A series on the Hub: a repository with a revision a step, fetched by the real client."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import RevisionNotFoundError

from pythiageo.errors import CheckpointError, UserError, first_line
from pythiageo.series.checkpoint import OpenCheckpoint
from pythiageo.series.client import UNREACHED, Listing, list_refs, promised_files, without_bars
from pythiageo.series.folder import read_tokens
from pythiageo.series.opening import open_folder
from pythiageo.series.steps import PYTHIA_STEPS, PYTHIA_TOKENS_PER_STEP, parse_step
from pythiageo.series.weightfiles import Revision, WeightFile

_TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
_OTHER = ["config.json", "training.json", *_TOKENIZER]
_PYTHIA = re.compile(r"EleutherAI/pythia-(?!intervention)(?!.*-v0$)[\w.-]+")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_LISTERS = 8
"""Revisions listed at the same time."""
_TRIES = 2
"""How often a file whose content is not what the Hub promises is fetched."""


class HubCheckpoint:
    """One revision of a repository. It is fetched when opened, into the client's own cache."""

    def __init__(self, repo: str, step: int, revision: str, tokens: int | None) -> None:
        self.step = step
        self._repo = repo
        self._revision = revision
        self._tokens = tokens
        self._commit: str | None = None

    @property
    def label(self) -> str:
        """The revision, with its commit once that is known."""
        return f"{self._revision}@{self._commit[:7]}" if self._commit else self._revision

    @property
    def tokens(self) -> int | None:
        """Training tokens seen; for a repository with ``training.json`` known once opened."""
        return self._tokens

    def open(self) -> OpenCheckpoint:
        """Fetch and load it; see ``open_folder``. Weight files are checked against the sha256 that the Hub promises.

        Raises:
            CheckpointError: this revision cannot be had; others may. Status ``corrupt``: a file is not what the Hub
                promises, even when fetched again; it is removed, so that a later try does not meet it.
        """
        folder = self._fetch()
        if self._tokens is None:
            self._tokens = read_tokens(folder)
        return open_folder(folder, f"{self._repo} {self.label}")

    def _fetch(self) -> Path:
        with _told(self._repo, self._revision):
            info = HfApi().model_info(self._repo, revision=self._revision)
            if not info.sha:
                raise CheckpointError(f"{self._repo} {self._revision}: the Hub names no commit for it")
            self._commit = info.sha
            names = {file.rfilename for file in info.siblings or []}
            weights = "*.safetensors" if any(name.endswith(".safetensors") for name in names) else "*.bin"
            # by commit: a branch that moves while we read must not mix two checkpoints
            return _download(self._repo, self.label, info.sha, [*_OTHER, weights, f"{weights}.index.json"])


class HubSeries:
    """A repository whose branches or tags are named by step, such as ``EleutherAI/pythia-160m``.

    ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` act as for any client of the Hub; they are read when the client library
    is first imported, so set them before the process starts.
    """

    def __init__(self, repo: str) -> None:
        self._repo = repo
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
            UserError: no such repository, no access to it, or no revision named by step.
            MachineError: the Hub cannot be reached.
        """
        return sorted(self._by_step())

    def checkpoints(self, steps: list[int]) -> Iterator[HubCheckpoint]:
        """Yield the checkpoints of ``steps``; nothing is fetched before they are opened."""
        revisions = self._by_step()
        known = self._is_pythia()
        for step in steps:
            tokens = step * PYTHIA_TOKENS_PER_STEP if known else None
            yield HubCheckpoint(self._repo, step, revisions[step], tokens)

    @contextmanager
    def all_weights(self, step: int) -> Iterator[Path]:
        """Fetch the weight files of a step in every format into a folder that is removed at the end."""
        revision = self._by_step()[step]
        commit = self._known_commits()[revision] or revision
        Path(HF_HUB_CACHE).mkdir(parents=True, exist_ok=True)
        # on the disk where the client keeps its files: the one for temporary files may be small
        with TemporaryDirectory(prefix=".pythiageo-", dir=HF_HUB_CACHE) as folder:
            with _told(self._repo, revision):
                patterns = ["*.safetensors", "*.bin", "*.index.json"]
                fetched = _download(self._repo, revision, commit, patterns, Path(folder))
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
        found = {step: name for name in names if (step := parse_step(name)) is not None}
        if not found:
            raise UserError(f"{self._repo}: none of its {len(names)} revisions is named by step, such as step1000")
        return found

    def _known_commits(self) -> dict[str, str | None]:
        """Return the commit of every branch and tag, asked for once."""
        if self._commits is None:
            refs = list_refs(self._repo)
            self._commits = {ref.name: ref.target_commit for ref in [*refs.tags, *refs.branches]}
        return self._commits


def open_target(target: str) -> HubSeries | None:
    """Return the series of the repository ``target``; ``None`` if that is no repository's name."""
    return HubSeries(target) if _REPOSITORY.fullmatch(target) else None


@contextmanager
def _told(repo: str, revision: str) -> Iterator[None]:
    """Turn the client's errors about one revision into one sentence; the rest of the series goes on."""
    try:
        yield
    except RevisionNotFoundError:
        raise CheckpointError(f"{repo}: there is no revision {revision}") from None
    except UNREACHED as error:
        raise CheckpointError(f"{repo} {revision}: could not be fetched: {first_line(error)}") from None


def _download(repo: str, label: str, commit: str, patterns: list[str], into: Path | None = None) -> Path:
    """Fetch files into the client's cache, or ``into`` a folder, and hold each against what the Hub promises."""
    promised = promised_files(repo, commit)
    for _ in range(_TRIES):
        with without_bars():
            folder = Path(snapshot_download(repo, revision=commit, allow_patterns=patterns, local_dir=into))
        wrong = [file for file in promised if not _holds(folder / file.name, file)]
        if not wrong:
            return folder
        for file in wrong:
            _remove(folder / file.name)
    raise CheckpointError(
        f"{repo} {label}: {wrong[0].name} is not the file that the Hub promises (sha256 "
        f"{str(wrong[0].sha256)[:12]}...), though it was fetched {_TRIES} times; it was removed",
        "corrupt",
    )


def _renamed(revision: Revision, step: int | None, name: str) -> Revision:
    return Revision(step, name, revision.commit, revision.files, revision.indexes, revision.absent)


def _holds(path: Path, promised: WeightFile) -> bool:
    """Return whether ``path`` holds what the listing promises; a file that was not fetched promises nothing."""
    if promised.sha256 is None or not path.is_file():
        return True
    if path.stat().st_size != promised.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == promised.sha256


def _remove(path: Path) -> None:
    """Remove a file of the client's cache: the name in the snapshot, and the content it leads to."""
    content = path.resolve()
    path.unlink(missing_ok=True)
    if content.parent.name == "blobs":
        content.unlink(missing_ok=True)
