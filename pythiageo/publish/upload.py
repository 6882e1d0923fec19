"""Getting a bundle to the Hub: one data set, one commit, and nothing of somebody else's overwritten."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from pythiageo.errors import MachineError, UserError, quote_error
from pythiageo.publish.bundle import CARD, Bundle
from pythiageo.series.hub.client import without_bars
from pythiageo.series.hub.retry import UNREACHED, be_patient, response_of
from pythiageo.untrusted_files import MIB, BadFileError, read_json

KIND = "dataset"
_MANIFEST = "manifest.json"
_TABLES = "tables/"
_OWN = {".gitattributes"}
"""What the Hub itself puts into every data set."""


@dataclass(frozen=True)
class Pushed:
    """Where a run was published. ``changed`` is ``False`` where the Hub had all of it already."""

    url: str
    commit: str
    changed: bool
    private: bool


def push(bundle: Bundle, repo: str, private: bool | None, message: str, overwrite: bool = False) -> Pushed:
    """Publish a bundle as a data set on the Hub, in one commit.

    Args:
        bundle: what to publish.
        repo: ``owner/name``.
        private: whether a new data set is private (``None``: it is); one that is there stays as it is.
        message: of the commit.
        overwrite: replace what another run, or somebody by hand, put there.

    Raises:
        UserError: a malformed name, no token or one that may not write there, or other content without ``overwrite``.
        MachineError: the Hub cannot be reached.
    """
    be_patient()
    api = HfApi()
    with _translated(repo), without_bars():
        there = _files(api, repo)
        if there is None:
            api.create_repo(repo, repo_type=KIND, private=True if private is None else private, exist_ok=True)
        elif not overwrite:
            _check(api, repo, set(there) - _OWN, bundle)
        before = api.dataset_info(repo)
        gone = [name for name in there or () if name.startswith(_TABLES) and name not in bundle.files]
        operations: list[Any] = [CommitOperationAdd(name, bundle.folder / name) for name in bundle.files]
        operations += [CommitOperationDelete(name) for name in gone]
        # the client makes no commit where all files are there already
        done = api.create_commit(repo, operations, commit_message=message, repo_type=KIND)
    return Pushed(f"{api.endpoint}/datasets/{repo}", done.oid, done.oid != before.sha, bool(before.private))


def _files(api: HfApi, repo: str) -> list[str] | None:
    """Return the files of a data set, ``None`` where there is none that this token may see."""
    try:
        return api.list_repo_files(repo, repo_type=KIND)
    except RepositoryNotFoundError:
        return None


def _check(api: HfApi, repo: str, there: set[str], bundle: Bundle) -> None:
    """Raise ``UserError`` where the data set holds what no push of this run wrote."""
    if _MANIFEST in there:
        with TemporaryDirectory(prefix="pythiageo-push-") as folder:
            path = api.hf_hub_download(repo, _MANIFEST, repo_type=KIND, local_dir=folder)
            name = _name(Path(path))
        if name != bundle.name:
            raise UserError(
                f"{repo} holds the run {name!r}, not {bundle.name!r}: choose another --repo, or --overwrite"
            )
    elif there & {CARD, *bundle.files}:
        raise UserError(
            f"{repo} holds {', '.join(sorted(there & {CARD, *bundle.files}))} and is no published run: choose another "
            "--repo, or --overwrite"
        )


def _name(manifest: Path) -> object:
    try:
        found = read_json(manifest, 64 * MIB)
    except BadFileError:
        return None
    return found.get("name") if isinstance(found, dict) else None


@contextmanager
def _translated(repo: str) -> Iterator[None]:
    """Turn the client's errors into one sentence."""
    try:
        yield
    except HFValidationError as error:
        raise UserError(f"--repo: {repo!r} is not a data set's name: {quote_error(error)}") from None
    except OfflineModeIsEnabled:
        raise MachineError(f"{repo}: the Hub client is set offline (HF_HUB_OFFLINE)") from None
    except (LocalTokenNotFoundError, HfHubHTTPError, *UNREACHED) as error:
        status = getattr(response_of(error), "status_code", None)
        if isinstance(error, LocalTokenNotFoundError) or status == 401:
            raise UserError(
                f"{repo}: the Hub asks who you are: set HF_TOKEN to a write token (or hf auth login)"
            ) from None
        if status in (403, 404):
            raise UserError(
                f"{repo}: this token may not write there: set HF_TOKEN to a write token of its owner"
            ) from None
        if status is not None and 400 <= status < 500:
            raise UserError(f"{repo}: the Hub refuses it: {quote_error(error)}") from None
        raise MachineError(f"{repo}: the Hub cannot be reached, nothing was published: {quote_error(error)}") from None
