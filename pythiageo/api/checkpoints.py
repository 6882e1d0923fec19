"""``checkpoints``: your own analysis over a series, a checkpoint at a time, within a disk budget."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self
from weakref import ReferenceType, ref

from huggingface_hub import constants

from pythiageo.api.series_checkpoint import SeriesCheckpoint
from pythiageo.config.options import overrides
from pythiageo.config.runs import AnalyzeConfig, make_config
from pythiageo.errors import CheckpointError
from pythiageo.locations import make_folder
from pythiageo.no_value import NoValue, NoValueError
from pythiageo.progress import silent
from pythiageo.runs.choose_steps import StepChoice, choose_steps
from pythiageo.series import open_series
from pythiageo.series.audit.rules import NEIGHBOUR
from pythiageo.series.checkpoint import Checkpoint, checkpoints_of, is_fetchable
from pythiageo.series.kinds import check_kinds
from pythiageo.series.prefetch import Stream
from pythiageo.series.tokenizers import read_tokenizer


class CheckpointValue(NamedTuple):
    """What a function made of one checkpoint; ``failure`` says why there is no ``value``."""

    step: int
    tokens: int | None
    label: str
    commit: str | None
    fingerprint: str | None
    value: Any
    failure: NoValue | None


class Checkpoints:
    """The chosen checkpoints of a series, in the order of their steps, each fetched while the one before it is in use.

    Iterate over it, or ask ``map``. Weights that it fetched lie in a folder of its own until the next checkpoint is
    asked for; the folder is removed when the loop ends, however it ends, or with the context. Each loop begins anew.

    Every chosen step is given. One that cannot be read, that the audit leaves out, or that holds the weights of an
    earlier step has a ``failure`` (status and reason) and no model: asking for its model raises ``CheckpointError``.
    """

    def __init__(self, config: AnalyzeConfig, folder: Path | None = None) -> None:
        self._config = config
        self._folder = folder or Path(constants.HF_HUB_CACHE)
        self._tokenizer = None if config.tokenizer is None else read_tokenizer(config.tokenizer)
        self._series = open_series(config.target, config.naming)
        self._choice: StepChoice = choose_steps(config, self._series, lambda _: None, silent)
        self._given: ReferenceType[Generator[SeriesCheckpoint, None, None]] | None = None
        self._held: Generator[SeriesCheckpoint, None, None] | None = None
        self._within = False
        readable = [step for step in self._there() if not self._left_out(step)]
        check_kinds(list(checkpoints_of(self._series, readable[:3] or self._there()[:3])), self._series.name)

    @property
    def name(self) -> str:
        """The series: a repository, as the Hub spells it, or a folder's name."""
        return self._series.name

    @property
    def steps(self) -> tuple[int, ...]:
        """The chosen steps, ascending."""
        return tuple(self._choice.steps)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences that whoever reads its numbers must know: which revisions are not read, another name it has."""
        return self._series.remarks

    def __len__(self) -> int:
        return len(self._choice.steps)

    def __iter__(self) -> Iterator[SeriesCheckpoint]:
        self.close()
        given = self._give()
        self._given = ref(given)  # a strong one would be a circle, and a loop that is left would not end at once
        self._held = given if self._within else None
        return given

    def __enter__(self) -> Self:
        self._within = True
        return self

    def __exit__(self, *_error: object) -> None:
        self._within = False
        self.close()

    def close(self) -> None:
        """End the loop under way, if there is one, and remove what was fetched for it."""
        given, self._held = None if self._given is None else self._given(), None
        if given is not None:
            given.close()

    def map(self, function: Callable[[SeriesCheckpoint], Any]) -> list[CheckpointValue]:
        """Return what ``function`` makes of each checkpoint, one entry a chosen step.

        Where a checkpoint has a failure, the function is not called. It may raise ``NoValueError`` to say why there is
        no value; any other error ends the loop and is raised.
        """
        with self:
            return [_value_of(checkpoint, function) for checkpoint in self]

    def _there(self) -> list[int]:
        known = set(self._series.steps())
        return [step for step in self._choice.steps if step in known]

    def _left_out(self, step: int) -> NoValue | None:
        """Return why a step is not read, as far as that is known without its weights."""
        if (found := self._choice.left_out.get(step)) is not None:
            return NoValue(found.verdict, f"left out by the audit: {found.reason}")
        if earlier := self._choice.earlier.get(step):
            return NoValue(NEIGHBOUR, f"holds the weights of step {earlier[0]}: one observation")
        return None

    def _give(self) -> Generator[SeriesCheckpoint, None, None]:
        fetch = self._config.fetch
        with ExitStack() as opened:
            scratch = Path(
                opened.enter_context(TemporaryDirectory(prefix=".pythiageo-", dir=make_folder(self._folder)))
            )
            tokenizer = None if self._tokenizer is None else self._tokenizer.write(scratch / "tokenizer")
            store = None if fetch.keep else scratch
            checkpoints = {one.step: one for one in checkpoints_of(self._series, self._there(), store)}
            read = [one for step, one in checkpoints.items() if not self._left_out(step)]
            stream = Stream([one for one in read if is_fetchable(one)], fetch.bytes, fetch.ahead)
            fetched = opened.enter_context(closing(stream.while_waiting(lambda: None)))
            for step in self._choice.steps:
                checkpoint: Checkpoint | None = checkpoints.get(step)
                failure, error = self._left_out(step), None
                if failure is None and checkpoint is not None and is_fetchable(checkpoint):
                    brought = next(fetched)
                    checkpoint, error = brought, stream.failure(brought)
                audited = self._choice.left_out.get(step)
                revision = audited and audited.revision
                given = SeriesCheckpoint(step, checkpoint, tokenizer, failure, error, revision, self.name)
                try:
                    yield given
                finally:
                    given.close()


def checkpoints(
    target: str | Path,
    steps: str = "all",
    *,
    disk_budget: str | None = None,
    keep: bool = False,
    tokenizer: str | Path | None = None,
    audit: bool = True,
    trust_revisions: bool = False,
    step_pattern: str | None = None,
    stages: Sequence[str] | None = None,
    seed: str | None = None,
    tokens_per_step: int | None = None,
    folder: str | Path | None = None,
) -> Checkpoints:
    """Return the checkpoints of a series to loop over: audited, verified, fetched ahead within a budget, and dropped.

    ``for checkpoint in pythiageo.checkpoints("EleutherAI/pythia-160m", steps="log:20"): ...``

    The listing and the audit are asked for at once, so that a mistake is said here; no weights are fetched before the
    loop begins. Each file is held against the sha256 that the Hub promises, and each model is tried: a later token
    must not move an earlier state.

    Args:
        target: a Hub repository, a folder of checkpoints, or a run folder, as for ``analyze``.
        steps: as for ``analyze``: ``"log:20"``, ``"every:1000"``, ``"0,1,2,512"``.
        disk_budget: most that fetched checkpoints may take together, such as ``"20GB"``; default: no bound.
        keep: leave what is fetched in the Hub client's own cache.
        tokenizer: a repository or folder whose tokenizer is taken for all checkpoints.
        audit: compare the weight files of the whole series first, and leave out steps that are not what they say.
        trust_revisions: give the steps too that the audit doubts.
        step_pattern, stages, seed, tokens_per_step: how the checkpoints are named, and which are meant.
        folder: where fetched weights lie meanwhile; default the Hub client's cache, in a folder of this loop's own.

    Raises:
        UserError: no such series or steps, or its models are of a kind that is not measured (encoders, adapters ...).
        MachineError: the Hub cannot be reached.
    """
    settings = {
        "steps": steps,
        "fetch.disk_budget": disk_budget,
        "fetch.keep": keep,
        "tokenizer": None if tokenizer is None else str(tokenizer),
        "audit": audit,
        "trust_revisions": trust_revisions,
        "step_pattern": step_pattern,
        "series.stages": None if stages is None else list(stages),
        "series.seed": seed,
        "series.tokens_per_step": tokens_per_step,
    }
    given = {key: value for key, value in settings.items() if value is not None}
    config = make_config({"name": "checkpoints", "target": str(target)}, overrides(given), "analyze", "checkpoints")
    assert isinstance(config, AnalyzeConfig)
    return Checkpoints(config, None if folder is None else Path(folder))


def _value_of(checkpoint: SeriesCheckpoint, function: Callable[[SeriesCheckpoint], Any]) -> CheckpointValue:
    failure, value = checkpoint.failure, None
    if failure is None:
        try:
            value = function(checkpoint)
        except NoValueError as error:
            failure = error.no_value
        except CheckpointError as error:
            failure = NoValue(error.status, str(error))
    return CheckpointValue(
        checkpoint.step,
        checkpoint.tokens,
        checkpoint.label,
        checkpoint.commit,
        checkpoint.fingerprint if failure is None else None,
        value,
        failure,
    )
