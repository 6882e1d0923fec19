"""What the Hub client's errors about one revision mean for a run: a row of the table, or its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import RevisionNotFoundError

from pythiageo.errors import (
    MEMORY,
    CheckpointError,
    MachineError,
    PythiageoError,
    machine_trouble,
    quote_error,
    raise_if_memory,
)
from pythiageo.series.hub.client import access_problem, list_refs


@contextmanager
def told(repo: str, revision: str) -> Iterator[None]:
    """Turn the client's errors about one revision into one sentence; the rest of the series goes on.

    Raises:
        CheckpointError: this revision is not there, may not be seen, or did not arrive.
        MachineError: the disk is full or may not be written, memory runs out, or the Hub cannot be reached any more.
    """
    try:
        yield
    except PythiageoError:
        raise
    except RevisionNotFoundError:
        raise CheckpointError(f"{repo}: there is no revision {revision}") from None
    except Exception as error:  # the client's own, and whatever its transfer by Xet raises
        trouble = machine_trouble(error)
        if trouble == MEMORY:
            raise_if_memory(error, f"{repo} {revision} was fetched")
        elif trouble or isinstance(error, PermissionError):
            raise MachineError(f"{repo} {revision}: could not be kept on the disk: {quote_error(error)}") from None
        if refusal := access_problem(error):
            raise CheckpointError(f"{repo} {revision}: {refusal}") from None
        raise_if_gone(repo, revision)
        raise CheckpointError(f"{repo} {revision}: could not be fetched: {quote_error(error)}") from None


def raise_if_gone(repo: str, revision: str) -> None:
    """Ask the Hub for something small, and raise where it does not answer: then no other revision can be had either.

    A client that is set offline has nothing to ask; others may lie in its cache.

    Raises:
        MachineError: the Hub cannot be reached.
    """
    if constants.HF_HUB_OFFLINE:
        return
    try:
        list_refs(repo)
    except MachineError as error:
        raise MachineError(f"{error}; fetching {revision} was given up, what was measured is kept: --resume") from None
    except PythiageoError:
        return  # it answers, and refuses
