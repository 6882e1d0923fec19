"""One checkpoint of a series, as ``checkpoints`` gives it: opened when it is first asked for its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from torch import nn

from pythiageo.compute.allocator import loading
from pythiageo.errors import CheckpointError, UserError, quote_error
from pythiageo.measurement.failures import Failures
from pythiageo.measurement.result import Origin
from pythiageo.no_value import NoValue
from pythiageo.observations import table_of
from pythiageo.runs.harness import evaluate
from pythiageo.series.architecture import read_tokenizer
from pythiageo.series.checkpoint import Checkpoint, OpenCheckpoint
from pythiageo.series.origin import Source


class SeriesCheckpoint:
    """A step of a series. Its weights are read when ``model``, ``tokenizer``, ``fingerprint`` or ``failure`` is asked.

    Good until the next one is asked for; what was kept of it (``model`` in a variable of your own) stays yours.
    """

    def __init__(
        self,
        step: int,
        checkpoint: Checkpoint | None,
        tokenizer: Path | None,
        failure: NoValue | None,
        fetch_error: Exception | None,
        revision: str | None = None,
        series: str = "model",
    ) -> None:
        self.step = step
        """Optimiser steps taken."""
        self._checkpoint = checkpoint
        self._tokenizer = tokenizer
        self._failure = failure
        self._revision = revision
        self._series = series
        self._opened: OpenCheckpoint | None = None
        self._closed = False
        if fetch_error is not None:
            self._failure = NoValue(*Failures().of_checkpoint(fetch_error, self.label))

    def __repr__(self) -> str:
        return f"<checkpoint {self.label}, step {self.step}>"

    @property
    def label(self) -> str:
        """Where it is, for people: a revision with its commit, or a folder's name."""
        return self._checkpoint.label if self._checkpoint is not None else self._revision or f"step{self.step}"

    @property
    def tokens(self) -> int | None:
        """Training tokens seen, or ``None`` where the series does not say."""
        return None if self._checkpoint is None else self._checkpoint.tokens

    @property
    def commit(self) -> str | None:
        """The repository's commit; ``None`` of a folder."""
        return self.source.commit

    @property
    def source(self) -> Source:
        """What it is read from: commit, and what tells its files from others."""
        return Source(None, None) if self._checkpoint is None else self._checkpoint.source()

    @property
    def failure(self) -> NoValue | None:
        """Why it cannot be used, as status and reason; ``None`` where it can. Weights that hold NaN are a failure."""
        if self._failure is None and self._opened is None:
            self._open()
        return self._failure

    @property
    def model(self) -> nn.Module:
        """The causal language model of transformers: weights as saved, in float32 on the CPU, in evaluation mode.

        No parameter requires a gradient; ``model.requires_grad_()`` changes that. Raises ``CheckpointError`` where
        there is a ``failure``.
        """
        return self._usable().model

    @property
    def fingerprint(self) -> str:
        """sha256 over its tensors as stored, as in the column ``weight_sha``. Raises as ``model``."""
        return self._usable().weight_sha

    @property
    def note(self) -> str | None:
        """What to know of the model, such as code of its repository that was not run. Raises as ``model``."""
        return self._usable().note

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers that lies beside the weights, or the one that was named for the series.

        Raises:
            CheckpointError: as ``model``; there is none.
        """
        folder = self._tokenizer or self._usable().tokenizer_folder
        try:
            return read_tokenizer(folder)
        except Exception as error:  # transformers raises many kinds
            raise CheckpointError(
                f"{self.label}: no tokenizer can be read beside its weights; name one with tokenizer=: "
                f"{quote_error(error)}"
            ) from None

    def harness(self, tasks: Sequence[Any], **options: Any) -> pl.DataFrame:
        """Return the scores that lm-evaluation-harness gives this model, as observations.

        Columns are those of ``measure`` and of every run; ``probe_set`` names the harness and its version or hash of
        the task, ``level`` the shots. ``pip install lm_eval`` brings it.

        Args:
            tasks: the harness's own tasks, by name or as its dictionaries.
            options: of its ``simple_evaluate`` (``num_fewshot``, ``limit``), and ``batch_size``.

        Raises:
            UserError: it is not installed, or no task is named.
            CheckpointError: as ``model`` and ``tokenizer``.
        """
        origin = Origin("lm-eval", self._series, "naturalistic", self._series, None, self.step, self.tokens,
                        self.fingerprint)  # fmt: skip
        return table_of(self.step, evaluate(self.model, self.tokenizer, tasks, origin, options))

    def close(self) -> None:
        """Let go of the model; whoever gave this checkpoint does so when the next one is asked for."""
        self._opened, self._closed = None, True

    def _usable(self) -> OpenCheckpoint:
        if self.failure is not None:
            raise CheckpointError(f"{self.label}: {self._failure.reason}", self._failure.status)  # type: ignore[union-attr]
        assert self._opened is not None
        return self._opened

    def _open(self) -> None:
        """Read the weights. Raises what concerns more than this checkpoint, as a run does."""
        if self._closed:
            raise UserError(f"{self.label}: is closed: its weights are there only until the next one is asked for")
        assert self._checkpoint is not None
        try:
            with loading():
                opened = self._checkpoint.open()
        except Exception as error:
            self._failure = NoValue(*Failures().of_checkpoint(error, self.label))
            return
        if opened.nonfinite is not None:
            self._failure = NoValue("nonfinite", opened.nonfinite)
            return
        self._opened = opened
