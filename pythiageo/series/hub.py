"""A series on the Hub: a repository with a revision a step, fetched by the real client."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from pythiageo.errors import CheckpointError, MachineError, UserError
from pythiageo.series.checkpoint import OpenCheckpoint
from pythiageo.series.folder import read_tokens
from pythiageo.series.opening import open_folder
from pythiageo.series.steps import PYTHIA_STEPS, PYTHIA_TOKENS_PER_STEP, parse_step

_TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
_OTHER = ["config.json", "training.json", *_TOKENIZER]
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_PYTHIA = re.compile(r"EleutherAI/pythia-(?!.*-v0$)[\w.-]+")
_NETWORK = (HTTPError, OSError)


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
        """Fetch and load it; see ``open_folder``.

        Raises:
            CheckpointError: this revision cannot be had; others may.
        """
        folder = self._fetch()
        if self._tokens is None:
            self._tokens = read_tokens(folder)
        return open_folder(folder, f"{self._repo} {self.label}")

    def _fetch(self) -> Path:
        try:
            info = HfApi().model_info(self._repo, revision=self._revision)
            if not info.sha:
                raise CheckpointError(f"{self._repo} {self._revision}: the Hub names no commit for it")
            self._commit = info.sha
            names = {file.rfilename for file in info.siblings or []}
            weights = "*.safetensors" if any(name.endswith(".safetensors") for name in names) else "*.bin"
            patterns = [*_OTHER, weights, f"{weights}.index.json"]
            with _no_bars():
                # by commit: a branch that moves while we read must not mix two checkpoints
                return Path(snapshot_download(self._repo, revision=info.sha, allow_patterns=patterns))
        except RevisionNotFoundError:
            raise CheckpointError(f"{self._repo}: there is no revision {self._revision}") from None
        except (HfHubHTTPError, LocalEntryNotFoundError, *_NETWORK) as error:
            reason = _first_line(error)
            raise CheckpointError(f"{self._repo} {self._revision}: could not be fetched: {reason}") from None


class HubSeries:
    """A repository whose branches or tags are named by step, such as ``EleutherAI/pythia-160m``.

    ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` act as for any client of the Hub; they are read when the client library
    is first imported, so set them before the process starts.
    """

    def __init__(self, repo: str) -> None:
        self._repo = repo
        self._revisions: dict[int, str] | None = None

    @property
    def name(self) -> str:
        """The repository."""
        return self._repo

    @property
    def size(self) -> str:
        """The repository's name without its owner."""
        return self._repo.rpartition("/")[2]

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
        known = _PYTHIA.fullmatch(self._repo) is not None and set(revisions) <= set(PYTHIA_STEPS)
        for step in steps:
            tokens = step * PYTHIA_TOKENS_PER_STEP if known else None
            yield HubCheckpoint(self._repo, step, revisions[step], tokens)

    def _by_step(self) -> dict[int, str]:
        if self._revisions is None:
            refs = self._refs()
            names = sorted(ref.name for ref in [*refs.tags, *refs.branches])
            found = {step: name for name in names if (step := parse_step(name)) is not None}
            if not found:
                raise UserError(f"{self._repo}: none of its {len(names)} revisions is named by step, such as step1000")
            self._revisions = found
        return self._revisions

    def _refs(self) -> Any:
        try:
            return HfApi().list_repo_refs(self._repo)
        except HFValidationError as error:
            raise UserError(f"{self._repo!r} is not a Hub repository's name: {_first_line(error)}") from None
        except GatedRepoError:
            raise UserError(
                f"{self._repo}: access must be granted first: ask for it on its page, then set HF_TOKEN to a read token"
            ) from None
        except RepositoryNotFoundError:
            raise UserError(
                f"{self._repo}: no such repository on the Hub, or a private one: then set HF_TOKEN to a read token of "
                f"someone who may see it"
            ) from None
        except OfflineModeIsEnabled:
            raise MachineError(f"{self._repo}: the Hub client is set offline (HF_HUB_OFFLINE)") from None
        except (HfHubHTTPError, *_NETWORK) as error:
            if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
                raise UserError(
                    f"{self._repo}: the Hub refuses access: set HF_TOKEN to the read token of someone who may see it"
                ) from None
            raise MachineError(f"{self._repo}: the Hub cannot be reached: {_first_line(error)}") from None


def open_target(target: str) -> HubSeries | None:
    """Return the series of the repository ``target``; ``None`` if that is no repository's name."""
    return HubSeries(target) if _REPOSITORY.fullmatch(target) else None


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep the client's bars off the terminal: the run has its own display."""
    disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            enable_progress_bars()


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
