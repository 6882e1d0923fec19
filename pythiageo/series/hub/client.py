"""What is asked of the Hub, through its own client: listings without weights, and errors as one sentence."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import GitRefs, RepoFile
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from pythiageo.errors import MachineError, UserError, quote_error
from pythiageo.series.files.kept import KeptAnswers
from pythiageo.series.files.weight_files import (
    INDEX_LIMIT,
    Revision,
    WeightFile,
    index_format,
    pack_listing,
    unpack_listing,
    weight_map_of,
)
from pythiageo.series.hub.address import Address
from pythiageo.series.hub.retry import UNREACHED, again_if_busy, response_of
from pythiageo.series.layout import MAIN

Folders = Mapping[str, Sequence[WeightFile]]
"""The files of each folder of a revision, by the folder's path; the top is ``""``."""


class Listing:
    """Lists the weight files of checkpoints; safe to use from several threads.

    An index is fetched once for all that have the same one, and nothing else is downloaded. A commit that was listed
    before is not asked for again: it cannot change.
    """

    def __init__(self, kept: KeptAnswers) -> None:
        self._kept = kept
        self._indexes: dict[str | None, dict[str, str]] = {}
        self._lock = Lock()

    def revision(self, step: int | None, address: Address, files: Sequence[WeightFile] | None = None) -> Revision:
        """Return the weight files at an address; one that is not there says so. ``files``: all of them, if known.

        Raises:
            UserError: no access.
            MachineError: the Hub cannot be reached.
        """
        key = _key(address)
        if address.commit is not None and (answer := self._kept.get(key)) and (known := unpack_listing(answer)):
            return replace(known, step=step, revision=address.name)
        try:
            with translated(address.repo):
                entries = list_files(address) if files is None else files
                maps = {
                    kind: self._index(entry, address)
                    for entry in entries
                    if (kind := index_format(entry.name)) is not None
                }
        except (RevisionNotFoundError, EntryNotFoundError):
            # a branch without a commit has no tree either
            return Revision(
                step, address.name, address.commit, absent="the revision is listed, but the Hub has no files for it"
            )
        found = Revision.listed(step, address.name, address.commit, entries, maps)
        if address.commit is not None:
            self._kept.put(key, pack_listing(found))
        return found

    def has(self, address: Address) -> bool:
        """Return whether the weight files at an address are kept from before."""
        return address.commit is not None and self._kept.has(_key(address))

    def folders(self, address: Address) -> Folders:
        """Return the files of every folder of a revision; none where it has no files. Raises as ``revision``."""
        key = ("folders-1", constants.ENDPOINT, *address.key)
        if address.commit is not None and (answer := self._kept.get(key)) and (known := _unpack_folders(answer)):
            return known
        found: dict[str, list[WeightFile]] = defaultdict(list)
        try:
            with translated(address.repo):
                for entry in HfApi().list_repo_tree(address.repo, recursive=True, revision=address.at):
                    if isinstance(entry, RepoFile):
                        folder, _, name = entry.path.rpartition("/")
                        found[folder].append(_weight_file(entry, name))
        except (RevisionNotFoundError, EntryNotFoundError):
            return {}
        if address.commit is not None:
            self._kept.put(key, json.dumps(found).encode())
        return found

    def _index(self, entry: WeightFile, address: Address) -> dict[str, str]:
        if entry.size > INDEX_LIMIT:
            return {}
        with self._lock:
            if entry.git_oid not in self._indexes:
                with TemporaryDirectory(prefix="pythiageo-index-") as folder, without_bars(), without_xet():
                    name = address.path(entry.name)
                    path = hf_hub_download(address.repo, name, revision=address.at, local_dir=folder)
                    self._indexes[entry.git_oid] = weight_map_of(Path(path).read_bytes())
            return self._indexes[entry.git_oid]


def _key(address: Address) -> tuple[str, ...]:
    return ("listing-1", constants.ENDPOINT, *address.key)


def _unpack_folders(answer: bytes) -> Folders | None:
    """Return folders that were kept, ``None`` where it was something else."""
    try:
        return {folder: [WeightFile(*file) for file in files] for folder, files in json.loads(answer).items()}
    except (ValueError, TypeError, AttributeError):
        return None


def list_repositories(owner: str, search: str) -> dict[str, str | None]:
    """Return the commit of ``main`` of an owner's repositories with ``search`` in their names.

    Of an owner that it does not know the Hub says that there are none. Raises as ``translated``.
    """
    with translated(f"{owner}/{search}"):
        found = again_if_busy(lambda: list(HfApi().list_models(author=owner, search=search or None, expand=["sha"])))
    return {one.id: one.sha for one in found}


def list_refs(repo: str) -> GitRefs:
    """Return the branches and tags of a repository. Raises as ``translated``."""
    with translated(repo):
        return again_if_busy(lambda: HfApi().list_repo_refs(repo))


def list_commits(repo: str) -> dict[str, str]:
    """Return the commits of ``main`` by title; of two with one title the newer; none where there is no ``main``.

    Raises as ``translated``.
    """
    with translated(repo):
        try:
            found = again_if_busy(lambda: HfApi().list_repo_commits(repo))
        except (RevisionNotFoundError, EntryNotFoundError):
            return {}
    return {commit.title: commit.commit_id for commit in reversed(found)}


def proper_name(repo: str, revisions: Iterable[str]) -> str:
    """Return a repository's name as the Hub has it: names are found in any letter case, and under former ones too.

    ``revisions``: some that it has; the first that answers tells. Raises as ``translated``.
    """
    for revision in revisions:
        with translated(repo):
            try:
                return again_if_busy(lambda at=revision: HfApi().model_info(repo, revision=at).id)  # type: ignore[misc]
            except (RevisionNotFoundError, EntryNotFoundError):  # listed, and without a commit
                continue
    return repo


def find_main(repo: str) -> tuple[str, str | None]:
    """Return a repository's name as the Hub has it, and the commit of its ``main``. Raises as ``translated``."""
    with translated(repo):
        try:
            found = again_if_busy(lambda: HfApi().model_info(repo, revision=MAIN))
        except (RevisionNotFoundError, EntryNotFoundError):
            raise UserError(f"{repo}: it has no revision {MAIN}") from None
    return found.id, found.sha


def list_files(address: Address) -> list[WeightFile]:
    """Return the files at an address, those in folders below it left out; the large ones have a promised sha256.

    Raises the client's errors.
    """
    entries = HfApi().list_repo_tree(address.repo, address.folder or None, revision=address.at)
    files = ((entry, entry.path.rpartition("/")) for entry in entries if isinstance(entry, RepoFile))
    return [_weight_file(entry, name) for entry, (folder, _, name) in files if folder == address.folder]


@contextmanager
def translated(repo: str) -> Iterator[None]:
    """Turn errors of the client about a whole repository into one sentence; those about a revision pass through.

    Raises:
        UserError: no such repository, or no access to it.
        MachineError: the Hub cannot be reached.
    """
    try:
        yield
    except (RevisionNotFoundError, EntryNotFoundError):
        raise
    except HFValidationError as error:
        raise UserError(f"{repo!r} is not a Hub repository's name: {quote_error(error)}") from None
    except OfflineModeIsEnabled:
        raise MachineError(f"{repo}: the Hub client is set offline (HF_HUB_OFFLINE)") from None
    except UNREACHED as error:
        if refusal := access_problem(error):
            raise UserError(f"{repo}: {refusal}") from None
        raise MachineError(f"{repo}: the Hub cannot be reached: {quote_error(error)}") from None


def access_problem(error: BaseException) -> str | None:
    """Return what an error of the client asks of the person to be let in, ``None`` if it is about something else."""
    answer = response_of(error)
    status = getattr(answer, "status_code", None)
    if status == 401 and "authorization" in answer.request.headers:
        return (
            "the Hub does not know the token it is given (HF_TOKEN, or that of 'hf auth login'): it is wrong or expired"
        )
    if isinstance(error, GatedRepoError):
        return "access must be granted first: ask for it on its page, then set HF_TOKEN to a read token"
    if isinstance(error, RepositoryNotFoundError):
        return (
            "no such repository on the Hub, or a private one: then set HF_TOKEN to a read token of someone who may "
            "see it"
        )
    if status in (401, 403):
        return "the Hub refuses access: set HF_TOKEN to the read token of someone who may see it"
    return None


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep the client's bars off the terminal: the run has its own display."""
    disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            enable_progress_bars()


@contextmanager
def without_xet() -> Iterator[None]:
    """Fetch a small file in this process: over plain HTTP, which hears time-outs. Not for several threads at once."""
    disabled, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = disabled


def _weight_file(entry: RepoFile, name: str) -> WeightFile:
    return WeightFile(name, entry.lfs.sha256 if entry.lfs else None, entry.size, entry.blob_id)
